"""What JSON schemas are put together from, and how one is listed: objects are closed, and every value says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}


def _value(kind: str, says: str, *, null: bool = False) -> Schema:
    return {"type": [kind, "null"] if null else kind, "description": says}


def text(says: str, *, null: bool = False) -> Schema:
    """A string."""
    return _value("string", says, null=null)


def number(says: str, *, null: bool = True) -> Schema:
    """A number; null where it is not known, unless `null` rules that out."""
    return _value("number", says, null=null)


def whole(says: str, *, null: bool = False) -> Schema:
    """An integer."""
    return _value("integer", says, null=null)


def flag(says: str, *, null: bool = False) -> Schema:
    """True or false."""
    return _value("boolean", says, null=null)


def words(says: str, *values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values), "description": says}


def several(items: Schema, says: str) -> Schema:
    """An array."""
    return {"type": "array", "items": items, "description": says}


def thing(says: str, /, **fields: Schema) -> Schema:
    """An object with exactly these keys."""
    return {"type": "object", "description": says, "properties": fields, "required": list(fields), "additionalProperties": False}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def keyed(values: Schema, says: str) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "description": says, "additionalProperties": values}


def hyperparameters(says: str, /, **more: Schema) -> Schema:
    """The five of them, and what stands beside them."""
    return thing(
        says,
        lr=number("maximum learning rate", null=False),
        batch_size=whole("samples a step"),
        momentum=number("largest momentum; AdamW: beta1", null=False),
        momentum_min=number("what it falls to", null=False),
        weight_decay=number("coupled for sgd, decoupled for adamw", null=False),
        **more,
    )


def listed(schema: Schema, at: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key of a document: its path (`[]`: each of an array, `NAME`: any key), its type, and what it says."""
    for choice in schema.get("anyOf", ()):
        yield at or ".", "one of", choice["description"]
        yield from listed(choice, at)
    inside = dict(schema.get("properties", {}))
    if isinstance(more := schema.get("additionalProperties"), dict):
        inside["NAME"] = more
    for name, part in inside.items():
        path = f"{at}.{name}" if at else name
        yield path, kind(part), part["description"]
        yield from listed(part, path)
    if "items" in schema:
        yield from listed(schema["items"], f"{at}[]")


def kind(schema: Schema) -> str:
    """The type of a value in words."""
    if "enum" in schema:
        return ", ".join("null" if value is None else str(value) for value in schema["enum"])
    kinds = schema.get("type", "any")
    return " or ".join(TYPES.get(name, name) for name in ([kinds] if isinstance(kinds, str) else kinds))
