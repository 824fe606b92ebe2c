"""The protocol every executor keeps."""

from __future__ import annotations

import contextlib
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
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
    """Performs a work function on items.

    Items are submitted under numbers. The wanted ones are begun in order; spare ones are begun, in order, by workers that no wanted
    item waits for, and may still run when all wanted ones are done. Results come in completion order as `(number, result or Failure)`,
    each number once. An exception of class `InputError` raised by the work is re-raised in the caller. After a `DeviceLostError` the
    process that raised it performs no other item. What the work prints goes to standard error.
    """

    workers: int
    """Items performed at a time, as far as it is known now."""
    places: int
    """Devices, or groups of them, over which the workers are spread evenly; 1 where they share one, or the cores."""
    heartbeat: float | None
    """Seconds without a sign of life after which a worker is replaced, None for never; it may be raised at any time."""

    def start(self) -> None:
        """Start the workers now, so that they load their code while the caller does something else; `results` does it otherwise."""
        ...

    def resize(self, workers: int) -> None:
        """Use as many workers from now on, as far as this executor can: surplus ones end, new ones have loaded their code on return."""
        ...

    def submit(self, item: Any, *, spare: bool = False) -> int:
        """Queue an item and return its number."""
        ...

    def want(self, number: int) -> None:
        """Make a spare item a wanted one, before all that wait; harmless where it runs, or is done, already."""
        ...

    def withdraw(self) -> list[int]:
        """Forget the spare items that nobody has begun, and return their numbers."""
        ...

    @property
    def idle(self) -> int:
        """How many more items could be begun now."""
        ...

    def results(self) -> Generator[tuple[int, Any], None, None]:
        """Yield `(number, result or Failure)` until no wanted item is left. Leaving it early abandons everything submitted."""
        ...

    def map(self, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """Yield `(index, result or Failure)` for every item, with no other item beside them. Leaving it early abandons what is left."""
        ...

    def news(self) -> list[str]:
        """Sentences on what happened to the workers since the last call: nodes that came and went."""
        ...

    @property
    def where(self) -> str:
        """Where the workers are, in a few words; empty on this machine."""
        ...

    def close(self) -> None:
        """End all workers; calling it twice is harmless, and what is submitted afterwards starts new ones."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class ClosedOnExit(ABC):
    """An executor as a context manager."""

    @abstractmethod
    def close(self) -> None:
        """See `Executor.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def mapped(executor: Executor, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
    """Submit `items` and yield `(index, result or Failure)` for each; nothing else may be submitted."""
    index = {executor.submit(item): i for i, item in enumerate(items)}
    with contextlib.closing(executor.results()) as results:
        for number, result in results:
            yield index[number], result


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
