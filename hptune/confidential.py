"""What must not be written down: values of options, keys and environment variables that are named like secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
SHORTEST = 8  # characters of a variable's value: `false` or `1` is no secret, and stands in too many texts
_WORD = r"(?:token|secret|password|passwd|api_?key|access_?key|credential)"
_NAME = re.compile(_WORD, re.IGNORECASE)
_INSIDE = re.compile(rf"{_WORD}[\w.]*[\"']?\s*[:=]", re.IGNORECASE)


def hide_in_command(command: Sequence[str]) -> list[str]:
    """Return a command line with `***` for every value whose key or option is named like a secret.

    It knows `--token x`, `--token=x`, `--set a.token=x`, `--set=a.token=x` and values that
    hold such a key themselves (`--set a={token: x}`).
    """
    shown: list[str] = []
    hide_next = False
    for word in command:
        prefix = "--set=" if word.startswith("--set=") else ""
        name, equals, value = word.removeprefix(prefix).partition("=")
        if hide_next and not word.startswith("--"):
            shown.append(HIDDEN)
        elif equals and (_NAME.search(name) or _INSIDE.search(value)):
            shown.append(f"{prefix}{name}={HIDDEN}")
        else:
            shown.append(word)
        hide_next = word.startswith("-") and not equals and _NAME.search(word) is not None
    return shown


def hide_values(value: Any, environment: Mapping[str, str]) -> Any:
    """Return plain values with `***` for what a secret variable of `environment` holds, wherever a text has it."""
    return None if value is None else _replaced(value, dict.fromkeys(_secrets(environment), HIDDEN))


def as_variables(text: str, environment: Mapping[str, str]) -> str:
    """Return `text` with `${NAME}` for what a secret variable of `environment` holds."""
    replaced: str = _replaced(text, {secret: f"${{{name}}}" for secret, name in _secrets(environment).items()})
    return replaced


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Values of variables named like secrets, and those names; longer values first, since one may hold another."""
    found = {value: name for name, value in environment.items() if _NAME.search(name) and len(value) >= SHORTEST}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _replaced(value: Any, by: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for secret, shown in by.items():
            value = value.replace(secret, shown)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(item, by) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, by) for item in value]
    return value
