"""One item after the other, in the caller's process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from hptune.errors import DeviceLostError
from hptune.executors.base import Failure, Work, attempt


class SerialExecutor:
    """Runs the work here; an interrupt from the keyboard ends the item it meets."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.workers = 1
        self.heartbeat: float | None = None  # nobody watches this process

    def start(self) -> None:
        """There is nothing to start."""

    def resize(self, workers: int) -> None:
        """It is one worker always."""

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, result or Failure)` for every item, in order. Raises DeviceLostError after the item that lost the device."""
        for index, item in enumerate(items):
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    result = attempt(self._work, item)
            except DeviceLostError as error:
                yield index, Failure(error=str(error), died=True)
                raise DeviceLostError(f"{error}; give the same command again to go on") from error
            yield index, result

    def close(self) -> None:
        """There is nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
