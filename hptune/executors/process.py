"""Worker processes on this machine, each with one item at a time, kept warm from one `map` to the next."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Self

from hptune.errors import HptuneError
from hptune.executors.base import Failure, Work
from hptune.executors.worker import Worker

START_ATTEMPTS = 3  # processes in a row that may die before they are ready
LOOK = 1.0  # seconds between looks for workers that ended without their pipe saying so, or give no sign of life


@dataclass(slots=True)
class _Batch:
    """The items of one `map`: those waiting to be handed out, how many are unfinished, and which one lost a worker before."""

    items: Sequence[Any]
    waiting: deque[int]
    unfinished: int
    lost_worker: set[int] = field(default_factory=set)


class ProcessExecutor:
    """Runs the work in up to `workers` processes of `threads` numeric threads each.

    The processes are spawned, so `work` and the items are pickled and `work` must be importable by its name; a script that ends up
    here guards its calls with `if __name__ == "__main__":`. An item whose worker dies, or hangs, is given to a fresh one once, then it
    is a Failure. A worker hangs that has an item and gives no sign of life (`hptune.pulse`) for `heartbeat` seconds. Workers end with
    this process, however it ends.
    """

    def __init__(self, work: Work, workers: int, *, threads: int = 1, heartbeat: float | None = None) -> None:
        self.workers = workers
        self._work = pickle.dumps(work)
        self._threads = threads
        self.heartbeat = heartbeat
        self._pool: list[Worker] = []
        self._failed_starts = 0
        Finalize(self, _end, args=(self._pool,), exitpriority=10)  # at exit: before multiprocessing waits for its children

    def start(self) -> None:
        """Start all workers now; they load their code while the caller does something else."""
        self._grow(self.workers)

    def resize(self, workers: int) -> None:
        """Use `workers` processes from now on; returns once all have loaded their code. Raises HptuneError where they cannot start."""
        surplus = self._pool[workers:]
        del self._pool[workers:]
        _end(surplus)
        self.workers = workers
        self.start()
        nothing = _Batch([], deque(), 0)
        while not all(worker.ready for worker in self._pool):
            self._collect(nothing)
            self.start()

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield `(index, result or Failure)` for every item, in the order in which they are done.

        Raises the work's InputError, and HptuneError where worker processes cannot be started.
        """
        batch = _Batch(items, deque(range(len(items))), len(items))
        try:
            while batch.unfinished:
                self._grow(min(self.workers, batch.unfinished))
                self._hand_out(batch)
                results = self._collect(batch)
                self._hand_out(batch)  # before the caller takes its time over the results
                yield from results
        finally:
            self._abandon()

    def close(self) -> None:
        """End all workers; calling it twice is harmless, and a later `map` starts new ones."""
        _end(self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _grow(self, size: int) -> None:
        while len(self._pool) < size:
            self._pool.append(self._worker())

    def _worker(self, index: int | None = None) -> Worker:
        return Worker(self._work, threads=self._threads, heartbeat=self.heartbeat, index=index)

    def _hand_out(self, batch: _Batch) -> None:
        for worker in [w for w in self._pool if w.ready and w.index is None]:
            if not batch.waiting:
                return
            self._give(worker, batch.waiting.popleft(), batch)

    def _give(self, worker: Worker, index: int, batch: _Batch) -> None:
        if worker.send(pickle.dumps(batch.items[index])):
            worker.begin(index)
        else:  # it died while idle: the item was never begun
            self._discard(worker)
            batch.waiting.appendleft(index)

    def _collect(self, batch: _Batch) -> list[tuple[int, Any]]:
        """Wait for messages, deaths and hangs, and return the items they finish."""
        heard = self._listen()
        done = []
        for worker in [w for w in self._pool if w.connection in heard or w.gone]:
            index = worker.index
            message = worker.receive()
            if message is None:
                done += self._bury(worker, batch)
                continue
            kind, content = message
            if kind == "result" and index is not None:
                worker.index = None
                batch.unfinished -= 1
                done.append((index, content))
            elif kind == "ready":
                self._failed_starts = 0
                worker.ready = True
                if index is not None:
                    self._give(worker, index, batch)
            elif kind == "lost":
                done += self._bury(worker, batch, how=content)
            elif kind == "broken":
                raise _broken(content)
            elif kind == "input_error":
                raise content
        for worker in [w for w in self._pool if w.hangs(self.heartbeat)]:
            done += self._bury(worker, batch, how=f"no sign of life for {worker.silent:.0f} seconds (executor.heartbeat)")
        return done

    def _listen(self) -> set[Any]:
        """Wait for messages; the others' silence grows by the time that was waited, a stop of this process (Ctrl-Z) aside."""
        began = time.monotonic()
        heard = set(wait([w.connection for w in self._pool], timeout=LOOK))
        waited = min(time.monotonic() - began, 2 * LOOK)
        for worker in self._pool:
            worker.silent = worker.silent + waited if worker.connection not in heard else 0.0
        return heard

    def _bury(self, worker: Worker, batch: _Batch, how: str = "") -> list[tuple[int, Any]]:
        """Replace a lost worker where it had an item; return that item's Failure where it has now cost two.

        `how` it was lost, where that is not how its process ended.
        """
        index, ended = worker.index, self._discard(worker)
        how = how or ended
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise HptuneError(
                    f"worker processes end before they are ready ({how}); a script that starts hptune must do so under "
                    '`if __name__ == "__main__":`; `--executor serial` works without worker processes'
                )
        elif index in batch.lost_worker:
            batch.unfinished -= 1
            return [(index, Failure(error=f"it cost two worker processes, the second one by {how}", died=True))]
        elif index is not None:
            batch.lost_worker.add(index)
        if index is not None:
            self._pool.append(self._worker(index))
        return []

    def _discard(self, worker: Worker) -> str:
        self._pool.remove(worker)
        return worker.end()

    def _abandon(self) -> None:
        """End the workers that still have an item; the idle ones stay warm."""
        busy = [w for w in self._pool if w.index is not None]
        self._pool[:] = [w for w in self._pool if w.index is None]
        _end(busy)


def _end(workers: list[Worker]) -> None:
    """End `workers` together and empty the list."""
    for worker in workers:
        worker.ask_to_end()
    while workers:
        workers.pop().end()


def _broken(trace: str) -> HptuneError:
    error = HptuneError(f"the worker processes cannot load their code: {trace.strip().splitlines()[-1]}")
    error.add_note(f"In a worker process:\n{trace}")
    return error
