"""YAML text as plain values, with the place of every key; nothing but text, numbers, booleans, lists and mappings comes out.

Only the safe loader is used, with the number forms people write: `1e-4`, `1E5` and `.5e-3` are floats (plain PyYAML reads text),
`010` is ten and `12:30` text (YAML 1.1: eight, 750), dates are text. `on`, `off`, `yes`, `no` are booleans. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from hptune.errors import LONGEST_SAID, ConfigError, abridged

DEEPEST = 30  # levels of nesting; a config has six
MOST_VALUES = 5_000  # keys and values of a config, with every alias written out
READ_VALUES = MOST_VALUES + 500  # of a file: one that we wrote holds every default besides
LARGEST = 200_000  # bytes of a file
LONGEST_KEY = 200  # characters
LONGEST_NUMBER = 300  # digits; more make no finite float
TAG = "tag:yaml.org,2002:"
NUMBERS = (
    ("int", re.compile(r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+)\Z"), "-+0123456789"),
    (
        "float",
        re.compile(r"[-+]?(?:(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"),
        "-+.0123456789",
    ),
)
"""Tag, form and first characters of a number written without quotes. No form has two ways to match a text: trying all takes for ever."""
WORDS = (
    ("bool", re.compile(r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z"), "yYnNtTfFoO"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<\Z"), "<"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; `_Reader` makes values of them."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        if parent is not None and self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST} levels", problem_mark=parent.start_mark)
        if parent is not None and self.nodes > READ_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES:,} keys and values", problem_mark=parent.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (*WORDS, *NUMBERS):
    _Loader.add_implicit_resolver(TAG + _tag, _form, list(_first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML text holds: `value`, and for each dotted key path (list items by number) its place in words."""

    value: Any
    places: dict[str, str]


def read_yaml(text: str, place: Callable[[int], str]) -> Document:
    """Return what `text` holds; an empty text holds None.

    `place` names a line, counted from 1: `c.yaml:5`. Raises ConfigError for broken YAML, tags, repeated keys, keys that are no
    plain text, nesting too deep, more text or values than a config can need, and aliases that multiply beyond reason.
    """
    if len(text) > LARGEST:
        raise ConfigError(f"more than {LARGEST:,} characters: keep large tables in files of their own", where=place(1))
    node = _compose(text, place)
    reader = _Reader(place=place)
    return Document(value=None if node is None else reader.value(node, (), 0), places=reader.places)


def _compose(text: str, place: Callable[[int], str]) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"broken YAML: the character {chr(error.character)!r} is not allowed in it", where=place(line)) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"broken YAML: {_problem(error)}", where=place(_line(error.problem_mark or error.context_mark))) from None
    except (ValueError, OverflowError):  # of PyYAML's own chr() and int(): "\UFFFFFFFF", and %YAML with thousands of digits
        raise ConfigError("broken YAML: an escaped character or a version that does not exist", where=place(loader.line + 1)) from None


def _line(mark: yaml.Mark | None) -> int:
    return 1 if mark is None else mark.line + 1


def _problem(error: yaml.MarkedYAMLError) -> str:
    text = ", ".join(abridged(part, LONGEST_SAID) for part in (error.context, error.problem) if part)
    if error.context_mark is not None and error.problem_mark is not None and error.context_mark.line != error.problem_mark.line:
        text += f" (it began in line {_line(error.context_mark)})"
    return text


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Makes values of nodes, noting where each key stands and counting what aliases multiply."""

    place: Callable[[int], str]
    places: dict[str, str] = field(default_factory=dict)
    values: int = 0

    def value(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> Any:
        self.values += 1
        if self.values > READ_VALUES:
            raise self._error(node, f"more than {MOST_VALUES:,} keys and values once every alias (*name) is written out")
        if depth > DEEPEST:
            raise self._error(node, f"nested deeper than {DEEPEST} levels: does an alias (*name) contain itself?")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return [self._item(child, (*path, str(number)), depth) for number, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            return self._mapping(node, path, depth)
        raise self._error(node, f"the tag {_short(node.tag)} is not allowed: a config holds plain text, numbers, lists and mappings")

    def _item(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> Any:
        self.places[".".join(path)] = self._place(node)
        return self.value(node, path, depth + 1)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...], depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, child in node.value:
            if key.tag == TAG + "merge":
                merged = {**self._merged(child, path, depth), **merged}
        for key, child in node.value:
            if key.tag == TAG + "merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be plain text")
            name = key.value
            self.values += 1
            if len(name) > LONGEST_KEY:
                raise self._error(key, f"a key has at most {LONGEST_KEY} characters, not {len(name):,}")
            if name in own:
                raise self._error(key, f"the key {name!r} is given twice (first at {self.places['.'.join((*path, name))]})")
            self.places[".".join((*path, name))] = self._place(key)
            own[name] = self.value(child, (*path, name), depth + 1)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> dict[str, Any]:
        """What `<<: *name` or `<<: [*a, *b]` brings; of several, the first wins."""
        blocks = self.value(node, path, depth + 1)
        merged: dict[str, Any] = {}
        for block in reversed(blocks if isinstance(blocks, list) else [blocks]):
            if not isinstance(block, dict):
                raise self._error(node, "<< takes a mapping, such as *name")
            merged.update(block)
        return merged

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(TAG)
        if kind in ("str", "merge"):
            return node.value
        if kind == "null":
            return None
        text = node.value[: LONGEST_NUMBER + 1].replace("_", "").lower()
        try:
            if len(node.value) > LONGEST_NUMBER:
                raise ValueError
            match kind:
                case "bool":
                    return {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}[text]
                case "int":
                    return int(text, 16) if "x" in text else int(text)
                case "float":
                    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            raise self._error(node, f"{abridged(node.value, 40)!r} cannot be read as {_short(node.tag)}") from None
        raise self._error(node, f"the tag {_short(node.tag)} is not allowed: a config holds plain text, numbers, lists and mappings")

    def _place(self, node: yaml.Node) -> str:
        return self.place(_line(node.start_mark))

    def _error(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(message, where=self._place(node))


def _short(tag: str) -> str:
    return abridged(tag.replace(TAG, "!!") if tag.startswith(TAG) else tag, LONGEST_SAID)
