"""What a config may hold, wherever it comes from: file, command line, environment or Python.

The limits keep every step quick, and what is accepted can be written out in full and read back.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hptune.config.fields import quoted
from hptune.config.reading import DEEPEST, LARGEST, LONGEST_KEY, LONGEST_NUMBER, MOST_VALUES
from hptune.errors import ConfigError

HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
WRITTEN = LARGEST * 9 // 10  # bytes; the rest is for defaults, comments and paths that grow when a config is written elsewhere
LONG_TEXT = 60  # characters; a longer one may be broken into indented lines


def plain(value: Any, locate: Callable[[str], str | None] = lambda _: None) -> Any:
    """Return a copy of `value` made of what a YAML file can hold; tuples become lists, paths text, NumPy scalars numbers.

    Raises ConfigError, placed by `locate`, for anything else, and for what is too large or too deep to be written and read back.
    """
    return _Copier(locate=locate).copy(value, "", 0)


@dataclass(slots=True, kw_only=True)
class _Copier:
    """Counts what it has copied: keys and values, and the bytes they take in a file at most."""

    locate: Callable[[str], str | None]
    values: int = 0
    size: int = 0

    def copy(self, value: Any, key: str, depth: int) -> Any:
        if depth >= DEEPEST:  # the whole is the first level
            raise self._error(f"nested deeper than {DEEPEST} levels", key)
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if isinstance(value, os.PathLike):
            value = os.fsdecode(value)
        if isinstance(value, Mapping | list | tuple):
            self._count(2, key, depth)
        if isinstance(value, Mapping):
            return {self._name(name, key, depth): self.copy(item, _joined(key, name), depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(item, _joined(key, number), depth + 1) for number, item in enumerate(value)]
        return self._scalar(value, key, depth)

    def _name(self, name: Any, key: str, depth: int) -> str:
        if not isinstance(name, str | int | float):
            raise self._error(f"a key must be text, not a {type(name).__name__}", key)
        text = str(self._scalar(name, _joined(key, name) if isinstance(name, str) else key, depth))
        if len(text) > LONGEST_KEY:
            raise self._error(f"a key has at most {LONGEST_KEY} characters, not {len(text):,}", _joined(key, text))
        return text

    def _scalar(self, value: Any, key: str, depth: int) -> Any:
        """A text, a number, a boolean or nothing, of exactly Python's own type: a dumper knows no others."""
        if isinstance(value, str):
            self._count(_bytes_of(value), key, depth)
            if half := HALF_A_CHARACTER.search(value):
                raise self._error(f"{quoted(value)} is no Unicode text: {half[0]!r} is half a character, or a byte that is not UTF-8", key)
            return str.__str__(value)
        if value is None or isinstance(value, bool):
            self._count(5, key, depth)
            return value
        if isinstance(value, int):
            if abs(value) >= 10**LONGEST_NUMBER:
                raise self._error(f"a number has at most {LONGEST_NUMBER} digits", key)
            self._count(len(int.__repr__(value)), key, depth)
            return int(value)
        if isinstance(value, float):
            self._count(len(float.__repr__(value)) + 2, key, depth)
            return float(value)
        raise self._error(f"a config holds text, numbers, lists and mappings, not a {type(value).__name__}", key)

    def _count(self, size: int, key: str, depth: int) -> None:
        self.values += 1
        self.size += size + 2 * depth + 4  # indentation and punctuation
        if self.values > MOST_VALUES:
            raise self._error(f"the config has more than {MOST_VALUES:,} keys and values: keep large tables in files of their own", key)
        if self.size > WRITTEN:
            raise self._error(f"written out, the config takes more than {WRITTEN:,} bytes: keep large texts in files of their own", key)

    def _error(self, message: str, key: str) -> ConfigError:
        return ConfigError(message, where=self.locate(key), key=key or None)


def _joined(key: str, part: Any) -> str:
    return f"{key}.{part}".lstrip(".")


def _bytes_of(text: str) -> int:
    """At most so many bytes a text takes in a YAML file: each character escaped or doubled, long lines broken."""
    return len(json.dumps(text)) * (3 if len(text) > LONG_TEXT else 2)
