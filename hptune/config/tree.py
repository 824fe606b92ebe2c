"""The config as a tree of plain values, its parts addressed by dotted keys: `baseline.momentum`, `optimizer.groups.0.match`."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from hptune.config.fields import describe
from hptune.config.reading import DEEPEST
from hptune.errors import ConfigError

Tree = dict[str, Any]
COMPONENTS = ("model", "loss", "metric")
"""Blocks that may be given as a plain word, which stands for their `name`."""


def get(tree: Any, key: str) -> Any:
    """Return the value at `key`, or None where there is none."""
    for part in key.split("."):
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return tree


def replaced(tree: Tree, key: str, value: Any, *, where: str | None = None) -> Tree:
    """Return a copy of `tree` with `value` at `key`, the blocks on the way made where missing; `where` stands in errors."""
    parts = key.split(".")
    if not all(parts) or key != key.strip():
        raise ConfigError(f"{key!r} is no key: write names joined by dots, such as baseline.lr", where=where)
    top = copy.deepcopy(tree)
    node: Any = top
    for depth, part in enumerate(parts[:-1], start=1):
        path = ".".join(parts[:depth])
        slot = _slot(node, part, path, where)
        node[slot] = _as_block(node[slot] if isinstance(node, list) else node.get(slot), path, where)
        node = node[slot]
    node[_slot(node, parts[-1], key, where)] = value
    return top


def _slot(node: Any, part: str, path: str, where: str | None) -> Any:
    if isinstance(node, dict):
        return part
    if not (part.isdecimal() and int(part) < len(node)):
        items = f"{len(node)} item{'s' * (len(node) != 1)}"
        raise ConfigError(f"there is no item {part}: the list has {items}, counted from 0", where=where, key=path)
    return int(part)


def _as_block(value: Any, path: str, where: str | None) -> Any:
    """What to go on into: short forms are written out, and a stage that is only on or off becomes a block."""
    if isinstance(value, str) and path in COMPONENTS:
        return {"name": value}
    if value is None or (isinstance(value, bool) and path.startswith("stages.")):
        return {}
    if not isinstance(value, dict | list):
        raise ConfigError(f"is {describe(value)}: there is no key below it", where=where, key=path)
    return value


def plain(value: Any, key: str = "", depth: int = 0) -> Any:
    """Return a copy of `value` made of what a YAML file can hold; tuples become lists, paths text, NumPy scalars numbers.

    Raises ConfigError for anything else: such a config could not be written back.
    """
    if depth > DEEPEST:
        raise ConfigError(f"nested deeper than {DEEPEST} levels", key=key or None)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item, f"{key}.{name}".lstrip("."), depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{key}.{number}".lstrip("."), depth + 1) for number, item in enumerate(value)]
    raise ConfigError(f"a config holds text, numbers, lists and mappings, not a {type(value).__name__}", key=key or None)
