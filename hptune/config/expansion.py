"""`${VAR}` in the config's texts: expanded for use, kept as written wherever the config is written back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hptune.config.fields import LONGEST_QUOTE, quoted
from hptune.config.reading import read_yaml
from hptune.errors import ConfigError, abridged

REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}|$)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def has_variable(text: str) -> bool:
    """Whether `text` refers to an environment variable."""
    return any(not match[0].startswith("$$") for match in REFERENCE.finditer(text))


def variables(tree: Any) -> tuple[str, ...]:
    """Names of the environment variables that the texts of `tree` refer to, sorted."""
    if isinstance(tree, dict | list):
        inside = tree.values() if isinstance(tree, dict) else tree
        return tuple(sorted({name for value in inside for name in variables(value)}))
    matches = REFERENCE.finditer(tree) if isinstance(tree, str) else ()
    return tuple(sorted({match[1] for match in matches if match[1]}))


def escape(text: str) -> str:
    """Return what expands to `text` itself."""
    return text.replace("${", "$${")


def expand(
    tree: Any, environment: Mapping[str, str], *, text_keys: tuple[str, ...], locate: Callable[[str], str | None], key: str = ""
) -> Any:
    """Return a copy of `tree` with every `${VAR}` replaced by its value in `environment`; `$${` stands for a plain `${`.

    A value that is one `${VAR}` as a whole is typed as if its text stood in the file, except at `text_keys`. Raises ConfigError,
    placed by `locate`, for a variable that is not set.
    """
    if isinstance(tree, dict):
        inside = {name: f"{key}.{name}".lstrip(".") for name in tree}
        return {name: expand(value, environment, text_keys=text_keys, locate=locate, key=inside[name]) for name, value in tree.items()}
    if isinstance(tree, list):
        return [expand(value, environment, text_keys=text_keys, locate=locate, key=f"{key}.{n}") for n, value in enumerate(tree)]
    if not isinstance(tree, str) or "${" not in tree:
        return tree
    try:
        text = expand_text(tree, environment)
        return _typed(text) if _is_one_variable(tree) and key not in text_keys else text
    except ConfigError as error:
        raise ConfigError(error.message, where=locate(key), key=key) from None


def expand_text(text: str, environment: Mapping[str, str]) -> str:
    """Return `text` with its variables replaced; raises ConfigError for one that is not set or no name."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if not match[2] or not NAME.fullmatch(name):
            raise ConfigError(f"{quoted(match[0])} names no environment variable: write ${{NAME}}, or $${{ for a plain ${{")
        if name not in environment:
            shown = abridged(name, LONGEST_QUOTE)
            raise ConfigError(f"the environment variable {shown} is not set: set it, or write $${{{shown}}} for the plain text")
        return environment[name]

    return REFERENCE.sub(value, text)


def _is_one_variable(text: str) -> bool:
    match = REFERENCE.fullmatch(text)
    return match is not None and match[1] is not None


def _typed(text: str) -> Any:
    """A number, boolean or nothing where `text` reads as one; otherwise the text."""
    try:
        value = read_yaml(text, lambda _: "").value
    except ConfigError:
        return text
    return value if isinstance(value, bool | int | float) or (value is None and not text.strip().startswith("#")) else text
