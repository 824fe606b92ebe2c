"""One item after the other, in the caller's process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from hptune.executors.base import Work, attempt


class SerialExecutor:
    """Runs the work here; an interrupt from the keyboard ends the item it meets."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.workers = 1

    def start(self) -> None:
        """There is nothing to start."""

    def resize(self, workers: int) -> None:
        """It is one worker always."""

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, result or Failure)` for every item, in order."""
        for index, item in enumerate(items):
            with contextlib.redirect_stdout(sys.stderr):
                result = attempt(self._work, item)
            yield index, result

    def close(self) -> None:
        """There is nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
