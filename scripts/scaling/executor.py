"""Workers in virtual time: what the executors of hptune do, without the waiting."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hptune.executors.base import ClosedOnExit, mapped


@dataclass(slots=True)
class Clock:
    """Seconds since the run began: virtual ones, and those, by `real`, that the driver computes between two results."""

    real: Callable[[], float] = time.process_time
    now: float = 0.0
    driver: float = 0.0  # of them, what the driver took
    _since: float | None = None

    def __post_init__(self) -> None:
        self.work()

    def __call__(self) -> float:
        return self.now + (0.0 if self._since is None else self.real() - self._since)

    def wait(self) -> None:
        """The driver waits for results from now on."""
        if self._since is not None:
            worked = self.real() - self._since
            self.now, self.driver, self._since = self.now + worked, self.driver + worked, None

    def work(self) -> None:
        """The driver goes on."""
        self._since = self.real()


@dataclass(frozen=True, slots=True)
class Busy:
    """A worker's time with one item."""

    number: int
    began: float
    ended: float


@dataclass(slots=True)
class SimulatedExecutor(ClosedOnExit):
    """`workers` workers; `perform` returns what an item gives and the seconds it takes.

    All are ready `start_seconds` after the beginning. Results come one after the other, `driver` seconds
    apart at least, while the workers go on.
    """

    workers: int
    clock: Clock
    perform: Callable[[Any], tuple[Any, float]]
    start_seconds: float = 0.0
    driver: float = 0.0
    places: int = 1
    heartbeat: float | None = None
    where: str = ""
    busy: list[Busy] = field(default_factory=list)
    _items: dict[int, Any] = field(default_factory=dict)
    _wanted: set[int] = field(default_factory=set)
    _queue: deque[int] = field(default_factory=deque)
    _spare: deque[int] = field(default_factory=deque)
    _running: list[tuple[float, int, Any]] = field(default_factory=list)  # a heap: when it ends, its number, what it gives
    _early: list[tuple[int, Any]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def start(self) -> None:
        """They have all been started."""

    def resize(self, workers: int) -> None:
        raise NotImplementedError("the number of workers is what is simulated")

    def submit(self, item: Any, *, spare: bool = False) -> int:
        number = next(self._numbers)
        self._items[number] = item
        if not spare:
            self._wanted.add(number)
        (self._spare if spare else self._queue).append(number)
        return number

    def want(self, number: int) -> None:
        if number in self._items:
            self._wanted.add(number)
            if number in self._spare:
                self._spare.remove(number)
                self._queue.appendleft(number)

    def withdraw(self) -> list[int]:
        numbers = list(self._spare)
        self._spare.clear()
        for number in numbers:
            del self._items[number]
        return numbers

    @property
    def idle(self) -> int:
        return max(0, self.workers - len(self._items))

    def results(self) -> Generator[tuple[int, Any], None, None]:
        early, self._early = self._early, []
        yield from early
        self.clock.wait()
        while self._wanted:
            self._hand_out()
            done = self._next()
            self._hand_out()
            self.clock.work()
            yield done
            self.clock.wait()
        self.clock.work()

    def map(self, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        self.withdraw()
        self.clock.wait()
        while self._running:
            self._early.append(self._next())
        self.clock.work()
        before, self._early = self._early, []
        yield from mapped(self, items)
        self._early = before

    def news(self) -> list[str]:
        return []

    def close(self) -> None:
        """There is nothing to end."""

    def _hand_out(self) -> None:
        while (queue := self._queue or self._spare) and len(self._running) < self.workers:
            number = queue.popleft()
            began = max(self.clock.now, self.start_seconds)
            result, seconds = self.perform(self._items[number])
            heapq.heappush(self._running, (began + seconds, number, result))
            self.busy.append(Busy(number, began, began + seconds))

    def _next(self) -> tuple[int, Any]:
        ended, number, result = heapq.heappop(self._running)
        self.clock.now = max(self.clock.now + self.driver, ended)
        del self._items[number]
        self._wanted.discard(number)
        return number, result
