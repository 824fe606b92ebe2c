"""The protocol every executor keeps."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from hptune.errors import DeviceLostError, InputError

Work = Callable[[Any], Any]
"""A top-level function of one picklable item; it is called in the process that runs the item."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker's failure, as data: the item raised (`error` holds the traceback's text) or cost its worker (`died`)."""

    error: str
    died: bool = False


class Executor(Protocol):
    """Runs a work function over items.

    Results come in completion order as `(index, result or Failure)`, each index once. Leaving the iteration early, or `close`,
    abandons what is running. An exception of class `InputError` raised by the work is re-raised in the caller. After a
    `DeviceLostError` the process that raised it performs no other item. What the work prints goes to standard error. One `map` at a
    time.
    """

    workers: int
    heartbeat: float | None
    """Seconds without a sign of life after which a worker is replaced, None for never; it may be raised at any time."""

    def start(self) -> None:
        """Start the workers now, so that they load their code while the caller does something else; `map` does it otherwise."""
        ...

    def resize(self, workers: int) -> None:
        """Use as many workers from now on, as far as this executor can: surplus ones end, new ones have loaded their code on return."""
        ...

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, result or Failure)` for every item."""
        ...

    def close(self) -> None:
        """End all workers; calling it twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def attempt(work: Work, item: Any) -> Any:
    """Return `work(item)`, or what it raised as a Failure; `sys.exit` in user code is such a failure too.

    InputError passes: it says that nothing of the kind can succeed. So does DeviceLostError: nothing else can, here.
    """
    try:
        return work(item)
    except (InputError, DeviceLostError):
        raise
    except (Exception, SystemExit):
        return Failure(error=traceback.format_exc())
