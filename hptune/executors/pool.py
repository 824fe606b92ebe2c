"""A pool of workers, each with one item at a time, kept warm from one item to the next; whatever a worker is."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from typing import Any, Generic, Literal, Protocol, TypeVar

from hptune.errors import HptuneError
from hptune.executors.base import ClosedOnExit, Failure, mapped

START_ATTEMPTS = 3  # workers in a row that may be lost before they are ready
MOST_MOVES = 10  # machines that an item may lose under it, through no fault of its own

Kind = Literal["ready", "alive", "result", "input_error", "lost", "broken"]
"""What a worker says: its code is loaded; it goes on; an item's result, or Failure; an InputError that the item raised; this worker
can do no more; its code cannot be loaded."""


class Handle(Protocol):
    """The driver's end of one worker.

    `ready`: its code is loaded. `number`: the item it has, or is to get as soon as it is ready. `silent`: seconds the driver has
    listened since it heard from it last. `moved`: it was lost with its machine, through no fault of its item.
    """

    ready: bool
    number: int | None
    silent: float
    moved: bool

    def send(self, item: Any) -> bool:
        """Hand over an item; False where the worker is gone. Raises what pickling the item raises."""
        ...

    def receive(self) -> tuple[Kind, Any] | None:
        """Return the next message; None where the worker is gone. Blocks until there is either."""
        ...

    def hangs(self, heartbeat: float | None) -> bool:
        """Whether it should give signs of life and has not for `heartbeat` seconds, or more where it still loads its code."""
        ...

    def ask_to_end(self) -> None:
        """Have it end soon: an idle worker winds up, a busy one stops where it is."""
        ...

    def end(self) -> str:
        """See it to its end, by force where it must be, and return how it ended."""
        ...


W = TypeVar("W", bound=Handle)


@dataclass(slots=True)
class _Jobs:
    """The items submitted: those not done yet, in two queues until they are begun, and what was lost under them."""

    items: dict[int, Any] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    queue: deque[int] = field(default_factory=deque)
    spare: deque[int] = field(default_factory=deque)
    deaths: dict[int, int] = field(default_factory=dict)
    moves: dict[int, int] = field(default_factory=dict)

    def next(self) -> int | None:
        """The item to be begun next."""
        queue = self.queue or self.spare
        return queue.popleft() if queue else None

    def finish(self, number: int) -> None:
        del self.items[number]
        self.wanted.discard(number)
        self.deaths.pop(number, None)
        self.moves.pop(number, None)


class Pool(ClosedOnExit, Generic[W]):
    """What all executors with workers of their own have in common.

    An item whose worker dies, or hangs, is given to a fresh one once, then it is a Failure. A worker hangs that has an item and gives
    no sign of life (`hptune.pulse`) for `heartbeat` seconds.
    """

    noun, nouns = "worker", "workers"
    remedy = ""  # said where workers do not start

    def __init__(self, workers: int, heartbeat: float | None) -> None:
        self.workers, self.places, self.heartbeat = workers, 1, heartbeat
        self._pool: list[W] = []
        self._jobs = _Jobs()
        self._numbers = itertools.count()
        self._early: list[tuple[int, Any]] = []  # results that came while nobody asked for them
        self._failed_starts = 0
        Finalize(self, end_all, args=(self._pool,), exitpriority=10)  # at exit: before multiprocessing waits for its children

    @abstractmethod
    def _worker(self, number: int | None = None) -> W:
        """Start a worker, which gets the item `number` once it is ready."""

    @abstractmethod
    def _listen(self) -> Iterable[W]:
        """Wait a little for messages; return the workers to be heard or looked after, and count the others' silence."""

    def start(self) -> None:
        """Start all workers now; they load their code while the caller does something else."""
        self._grow(self.workers)

    def resize(self, workers: int) -> None:
        """Use `workers` workers from now on; returns once all have loaded their code. Raises HptuneError where they cannot start."""
        self._settle()
        self._shrink(workers)
        self.workers = workers
        self.start()
        while not all(worker.ready for worker in self._pool):
            self._early += self._collect()
            self.start()

    def submit(self, item: Any, *, spare: bool = False) -> int:
        """Queue an item and return its number."""
        jobs, number = self._jobs, next(self._numbers)
        jobs.items[number] = item
        if spare:
            jobs.spare.append(number)
        else:
            jobs.wanted.add(number)
            jobs.queue.append(number)
        return number

    def want(self, number: int) -> None:
        """Make a spare item a wanted one, before all that wait; harmless where it runs, or is done, already."""
        jobs = self._jobs
        if number in jobs.items and number not in jobs.wanted:
            jobs.wanted.add(number)
            if number in jobs.spare:
                jobs.spare.remove(number)
                jobs.queue.appendleft(number)

    def withdraw(self) -> list[int]:
        """Forget the spare items that nobody has begun, and return their numbers."""
        numbers = list(self._jobs.spare)
        self._jobs.spare.clear()
        for number in numbers:
            self._jobs.finish(number)
        return numbers

    @property
    def idle(self) -> int:
        """How many more items could be begun now."""
        return max(0, self.workers - len(self._jobs.items))

    def results(self) -> Generator[tuple[int, Any], None, None]:
        """Yield `(number, result or Failure)` in the order in which items are done, until no wanted one is left.

        Raises the work's InputError, what pickling an item raises, and HptuneError where workers cannot be started.
        """
        complete = False
        try:
            yield from self._take_early()
            while self._jobs.wanted:
                self._grow(min(self.workers, self._demand()))
                self._hand_out()
                results = self._collect()
                self._hand_out()  # before the caller takes its time over the results
                yield from results
            complete = True
        finally:
            if not complete:
                self._abandon()

    def map(self, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """Yield `(index, result or Failure)` for every item, with no other item beside them, in the order in which they are done."""
        self._settle()
        before, self._early = self._early, []
        yield from mapped(self, items)
        self._early = before

    def news(self) -> list[str]:
        """Nothing happens to workers on this machine that their items do not tell."""
        return []

    @property
    def where(self) -> str:
        """On this machine."""
        return ""

    def close(self) -> None:
        """End all workers; calling it twice is harmless, and what is submitted afterwards starts new ones."""
        self._abandon()
        end_all(self._pool)

    def _settle(self) -> None:
        """Withdraw what nobody has begun, and wait for what runs."""
        self.withdraw()
        while any(worker.number is not None for worker in self._pool):
            self._early += self._collect()

    def _take_early(self) -> list[tuple[int, Any]]:
        early, self._early = self._early, []
        return early

    def _demand(self) -> int:
        """How many workers there is work for."""
        return len(self._jobs.items)

    def _grow(self, size: int) -> None:
        while len(self._pool) < size:
            self._pool.append(self._worker())

    def _shrink(self, size: int) -> None:
        surplus = self._pool[size:]
        del self._pool[size:]
        end_all(surplus)

    def _hand_out(self) -> None:
        for worker in [w for w in self._pool if w.ready and w.number is None]:
            number = self._jobs.next()
            if number is None:
                return
            self._give(worker, number)

    def _give(self, worker: W, number: int) -> None:
        if worker.send(self._jobs.items[number]):
            worker.number, worker.silent = number, 0.0
        else:  # it died while idle: the item was never begun
            worker.number = None
            self._discard(worker)
            self._put_back(number)

    def _put_back(self, number: int) -> None:
        queue = self._jobs.queue if number in self._jobs.wanted else self._jobs.spare
        queue.appendleft(number)

    def _collect(self) -> list[tuple[int, Any]]:
        """Wait for messages, deaths and hangs, and return the items they finish."""
        done = []
        for worker in self._listen():
            number, message = worker.number, worker.receive()
            if message is None:
                done += self._bury(worker)
                continue
            kind, content = message
            if kind == "result" and number is not None:
                worker.number = None
                self._jobs.finish(number)
                done.append((number, content))
            elif kind == "ready":
                self._failed_starts = 0
                worker.ready = True
                if number is not None:
                    self._give(worker, number)
            elif kind == "lost":
                done += self._bury(worker, how=content)
            elif kind == "broken":
                raise self._broken(content)
            elif kind == "input_error":
                raise content
        for worker in [w for w in self._pool if w.hangs(self.heartbeat)]:
            done += self._bury(worker, how=f"no sign of life for {worker.silent:.0f} seconds (executor.heartbeat)")
        return done

    def _bury(self, worker: W, how: str = "") -> list[tuple[int, Any]]:
        """Replace a lost worker where it had an item; return that item's Failure where it has now cost two.

        `how` it was lost, where that is not how it ended.
        """
        number, ready, ended = worker.number, worker.ready, self._discard(worker)
        how = how or ended
        if not ready and not worker.moved:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise HptuneError(f"{self.nouns} end before they are ready ({how}){self.remedy}")
        elif number is not None:
            counted = self._jobs.moves if worker.moved else self._jobs.deaths
            counted[number] = counted.get(number, 0) + 1
            if counted[number] > (MOST_MOVES if worker.moved else 1):
                self._jobs.finish(number)
                times = f"{MOST_MOVES + 1} machines" if worker.moved else f"two {self.nouns}"
                return [(number, Failure(error=f"it cost {times}, the last one by {how}", died=True))]
        if number is not None:
            self._pool.append(self._worker(number))
        return []

    def _discard(self, worker: W) -> str:
        self._pool.remove(worker)
        return worker.end()

    def _abandon(self) -> None:
        """Forget all items, and end the workers that have one; the idle ones stay warm."""
        self._jobs = _Jobs()
        self._early = []
        busy = [w for w in self._pool if w.number is not None]
        self._pool[:] = [w for w in self._pool if w.number is None]
        end_all(busy)

    def _broken(self, trace: str) -> HptuneError:
        error = HptuneError(f"the {self.nouns} cannot load their code: {trace.strip().splitlines()[-1]}")
        error.add_note(f"In a {self.noun}:\n{trace}")
        return error


def end_all(workers: list[Any]) -> None:
    """End `workers` together and empty the list."""
    for worker in workers:
        worker.ask_to_end()
    while workers:
        workers.pop().end()
