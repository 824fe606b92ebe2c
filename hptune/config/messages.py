"""One clear sentence for what pydantic finds wrong in a config."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from hptune.config.fields import Section, describe, quoted, suggestion
from hptune.config.schema import Experiment
from hptune.config.sections import OFF, ON
from hptune.config.tree import Tree
from hptune.errors import ConfigError

EXAMPLES = {"data": "{name: digits}", "model": "{name: small_cnn}"}
BLOCKS = ("dict_type", "model_type", "model_attributes_type")
KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list, such as [a, b]",
}
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: ValidationError, tree: Tree, locate: Callable[[str], str | None]) -> ConfigError:
    """Return the first mistake as a ConfigError with its place, and how many more there are.

    Unknown keys come first: a key that was misspelt is often why another one is missing.
    """
    details = error.errors(include_url=False)
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    path = _key_path(first["loc"], tree)
    key = ".".join(path)
    more = len(details) - 1
    message = _sentence(first, path) + (f" (and {more} more mistake{'s' * (more > 1)})" if more else "")
    return ConfigError(message, where=locate(key), key=key or None)


def _key_path(loc: Sequence[int | str], tree: Any) -> list[str]:
    """The keys of an error's place as the user wrote them: no tags of unions, nothing below a short form."""
    path = []
    for part in loc:
        if part in (ON, OFF) and not (isinstance(tree, dict) and part in tree):
            continue
        if not isinstance(tree, dict | list):
            break
        path.append(str(part))
        tree = tree[int(part)] if isinstance(tree, list) else tree.get(str(part), {})
    return path


def _sentence(detail: Mapping[str, Any], path: Sequence[str]) -> str:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            text = _unknown_key(path)
        case "missing":
            text = f"required; e.g. {path[0]}: {EXAMPLES[path[0]]}" if len(path) == 1 else "required"
        case "value_error":
            text = str(context["error"])
        case "literal_error":
            text = _unknown_word(value, context["expected"], path)
        case "finite_number":
            text = f"must be a finite number, got {value}"
        case "too_short":
            text = "needs at least one value"
        case "string_too_short":
            text = "must not be empty"
        case "string_too_long":
            text = f"must have at most {context['max_length']} characters, got {len(str(value))}"
        case _ if kind in BOUNDS:
            limit, words = BOUNDS[kind]
            text = f"must be {words} {context[limit]:,.15g}, got {describe(value)}"
        case _ if kind in BLOCKS:
            stage = " or off" if path[0] == "stages" and len(path) == 2 else ""
            text = f"needs a block of keys, such as {EXAMPLES.get(path[-1], '{key: value}')}{stage}, got {describe(value)}"
        case _ if kind in KINDS:
            text = f"needs {KINDS[kind]}, got {describe(value)}{_quotes_hint(kind, value)}"
        case _:
            text = str(detail["msg"]).replace("Input should be", "must be")
    return text


def _quotes_hint(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return ": put it in quotes"
    quoted = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", value)
    return ": leave out the quotes" if quoted and kind != "string_type" else ""


def _unknown_word(value: Any, expected: str, path: Sequence[str]) -> str:
    known = re.findall(r"'([^']+)'", expected)
    if not known:
        return f"must be {expected}, got {describe(value)}"
    if not isinstance(value, str):
        return f"needs one of {', '.join(known)}, got {describe(value)}"
    what = "name" if path[-1] == "name" else "value"
    return f"unknown {what} {quoted(value)}{suggestion(value, known)} (one of {', '.join(known)})"


def _unknown_key(path: Sequence[str]) -> str:
    key, section = path[-1], _section_at(path[:-1])
    near = suggestion(key, section.model_fields)
    if near:
        return f"unknown key {quoted(key)}{near}"
    homes = [home for home, fields in _sections(Experiment, "") if key in fields]
    if homes:
        return f"unknown key {quoted(key)}: it belongs in {' or '.join(homes)}"
    own = f"; the {path[-2]}'s own arguments go in args" if "args" in section.model_fields else ""
    return f"unknown key {quoted(key)}: here go {', '.join(section.model_fields)}{own}"


def _section_at(path: Sequence[str]) -> type[Section]:
    section: type[Section] = Experiment
    for part in path:
        field = section.model_fields.get(part)
        section = (_section_in(field.annotation) if field is not None else None) or section
    return section


def _sections(section: type[Section], path: str) -> Iterator[tuple[str, set[str]]]:
    """Every block of the config by its key, with the keys that go in it."""
    yield path or "the top level", set(section.model_fields)
    for name, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}".lstrip("."))


def _section_in(annotation: Any) -> type[Section] | None:
    """The section among a field's types, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)
