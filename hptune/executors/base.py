"""The protocol every executor keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

Work = Callable[[Any], Any]
"""A top-level function of one picklable item; it is called in the process that runs the item."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker's failure, as data: the item raised (`error` holds the traceback's text) or its worker died."""

    error: str
    died: bool = False


class Executor(Protocol):
    """Runs a work function over items.

    Results come in completion order as `(index, result or Failure)`, each index once. Leaving the iteration early, or `close`,
    abandons what is running. An exception of class `InputError` raised by the work is re-raised in the caller.
    """

    workers: int

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, result or Failure)` for every item."""
        ...

    def close(self) -> None:
        """End all workers; calling it twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
