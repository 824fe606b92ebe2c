"""One item after the other, in the caller's process."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from hptune.errors import DeviceLostError
from hptune.executors.base import ClosedOnExit, Failure, Work, attempt, mapped


class SerialExecutor(ClosedOnExit):
    """Performs the work here; an interrupt from the keyboard ends the item it meets. Nobody is ever idle, so spare items wait."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.workers = self.places = 1
        self.heartbeat: float | None = None  # nobody watches this process
        self.idle = 0
        self.where = ""
        self._numbers = itertools.count()
        self._wanted: deque[tuple[int, Any]] = deque()
        self._spare: dict[int, Any] = {}

    def start(self) -> None:
        """There is nothing to start."""

    def resize(self, workers: int) -> None:
        """It is one worker always."""

    def submit(self, item: Any, *, spare: bool = False) -> int:
        """See `Executor.submit`."""
        number = next(self._numbers)
        if spare:
            self._spare[number] = item
        else:
            self._wanted.append((number, item))
        return number

    def want(self, number: int) -> None:
        """See `Executor.want`."""
        if number in self._spare:
            self._wanted.appendleft((number, self._spare.pop(number)))

    def withdraw(self) -> list[int]:
        """See `Executor.withdraw`."""
        numbers = list(self._spare)
        self._spare.clear()
        return numbers

    def results(self) -> Generator[tuple[int, Any], None, None]:
        """Yield `(number, result or Failure)`, in order. Raises DeviceLostError after the item that lost the device."""
        try:
            while self._wanted:
                number, item = self._wanted.popleft()
                try:
                    with contextlib.redirect_stdout(sys.stderr):
                        result = attempt(self._work, item)
                except DeviceLostError as error:
                    yield number, Failure(error=str(error), died=True)
                    raise DeviceLostError(f"{error}; give the same command again to go on") from error
                yield number, result
        finally:
            self._wanted.clear()

    def map(self, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """See `Executor.map`."""
        return mapped(self, items)

    def news(self) -> list[str]:
        """There is none."""
        return []

    def close(self) -> None:
        """There is nothing to end."""
