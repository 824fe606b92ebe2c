"""The `args` of built-in networks, losses and metrics, checked against the signature they are passed to."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from hptune.config.fields import LONGEST_QUOTE, quoted
from hptune.errors import ConfigError, abridged


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be: in words, and as a test."""

    words: str
    accepts: Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Count = Annotated[int, Kind("a whole number of at least 1", _is_count)]
Counts = Annotated[
    Sequence[int],
    Kind("a list of whole numbers of at least 1", lambda value: isinstance(value, list | tuple) and all(map(_is_count, value))),
]
Fraction = Annotated[float, Kind("a number from 0 up to, but not including, 1", lambda value: _is_number(value) and 0 <= value < 1)]
Positive = Annotated[float, Kind("a finite number above 0", lambda value: _is_number(value) and 0 < value < float("inf"))]


def check_arguments(function: Callable[..., Any], args: Mapping[str, Any], *, name: str, key: str) -> None:
    """Raise ConfigError unless every entry of `args` is a keyword-only parameter of `function` and of the kind annotated there.

    `name` is what the user calls the function, `key` the config key that holds `args`.
    """
    allowed = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hints = get_type_hints(function, include_extras=True)
    for argument, value in args.items():
        if argument not in allowed:
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise ConfigError(f"{name} has no argument {quoted(argument)}{suggestion(argument, allowed)}; {takes}", key=key)
        kind: Kind = hints[argument].__metadata__[0]
        if not kind.accepts(value):
            raise ConfigError(f"{name} needs {kind.words}, got {abridged(repr(value), LONGEST_QUOTE)}", key=f"{key}.{argument}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'x'?` for the nearest known word, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""
