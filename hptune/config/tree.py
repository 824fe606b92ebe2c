"""The config as a tree of plain values, its parts addressed by dotted keys: `baseline.momentum`, `optimizer.groups.0.match`."""

from __future__ import annotations

import copy
from typing import Any

from hptune.config.fields import describe, quoted
from hptune.config.reading import DEEPEST
from hptune.errors import ConfigError, abridged

Tree = dict[str, Any]
COMPONENTS = ("model", "loss", "metric")
"""Blocks that may be given as a plain word, which stands for their `name`."""
FILL_IN = "FILL_IN"
"""What a starter config says in place of a value that only the user knows."""


def get(tree: Any, key: str) -> Any:
    """Return the value at `key`, or None where there is none."""
    for part in key.split("."):
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and (item := _item(part, tree)) is not None:
            tree = tree[item]
        else:
            return None
    return tree


def unfilled(tree: Any, key: str = "") -> list[str]:
    """The dotted keys at which `tree` still says FILL_IN."""
    if isinstance(tree, dict | list):
        inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [found for name, value in inside for found in unfilled(value, f"{key}.{name}".lstrip("."))]
    return [key] if tree == FILL_IN else []


def replaced(tree: Tree, key: str, value: Any, *, where: str | None = None) -> Tree:
    """Return `tree` with `value` at `key`, the blocks on the way made where missing; `where` stands in errors.

    What lies on the way is copied, the rest shared.
    """
    parts = key.split(".")
    if not all(parts) or key != key.strip():
        raise ConfigError(f"{quoted(key)} is no key: write names joined by dots, such as baseline.lr", where=where)
    if len(parts) > DEEPEST:
        raise ConfigError(f"nested deeper than {DEEPEST} levels", where=where, key=key)
    top = dict(tree)
    node: Any = top
    for depth, part in enumerate(parts[:-1], start=1):
        path = ".".join(parts[:depth])
        slot = _slot(node, part, path, where)
        node[slot] = copy.copy(_as_block(node[slot] if isinstance(node, list) else node.get(slot), path, where))
        node = node[slot]
    node[_slot(node, parts[-1], key, where)] = value
    return top


def _slot(node: Any, part: str, path: str, where: str | None) -> Any:
    if isinstance(node, dict):
        return part
    item = _item(part, node)
    if item is None:
        items = f"{len(node)} item{'s' * (len(node) != 1)}"
        raise ConfigError(f"there is no item {abridged(part, 40)}: the list has {items}, counted from 0", where=where, key=path)
    return item


def _item(part: str, items: list[Any]) -> int | None:
    """The place in `items` that `part` names, None where it names none."""
    number = int(part) if len(part) < 10 and part.isascii() and part.isdecimal() else None
    return number if number is not None and number < len(items) else None


def _as_block(value: Any, path: str, where: str | None) -> Any:
    """What to go on into: short forms are written out, and a stage that is only on or off becomes a block."""
    if isinstance(value, str) and path in COMPONENTS:
        return {"name": value}
    if value is None or (isinstance(value, bool) and path.startswith("stages.")):
        return {}
    if not isinstance(value, dict | list):
        raise ConfigError(f"is {describe(value)}: there is no key below it", where=where, key=path)
    return value
