"""Worker processes on this machine, spread over its devices."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait

from hptune.executors.base import Work
from hptune.executors.pool import Pool, end_all
from hptune.executors.worker import Worker

LOOK = 1.0  # seconds between looks for workers that ended without their pipe saying so, or give no sign of life
EVERYWHERE: tuple[Mapping[str, str], ...] = ({},)


class ProcessExecutor(Pool[Worker]):
    """Performs the work in up to `workers` processes of `threads` numeric threads each.

    The processes are spawned, so `work` and the items are pickled and `work` must be importable by its name; a script that ends up
    here guards its calls with `if __name__ == "__main__":`. `devices`: environment variables that confine a process to a device, one
    mapping a device; each new worker goes where the fewest are. Workers end with this process, however it ends.
    """

    noun, nouns = "worker process", "worker processes"
    remedy = (
        '; a script that starts hptune must do so under `if __name__ == "__main__":`; `--executor serial` works without worker processes'
    )

    def __init__(
        self,
        work: Work,
        workers: int,
        *,
        threads: int = 1,
        heartbeat: float | None = None,
        devices: Sequence[Mapping[str, str]] = EVERYWHERE,
    ) -> None:
        super().__init__(workers, heartbeat)
        self.places = len(devices)
        self._work = pickle.dumps(work)
        self._threads = threads
        self._devices = devices

    def _worker(self, number: int | None = None) -> Worker:
        taken = Counter(worker.place for worker in self._pool)
        place = min(range(self.places), key=lambda place: taken[place])
        return Worker(
            self._work, threads=self._threads, heartbeat=self.heartbeat, number=number, place=place, variables=self._devices[place]
        )  # fmt: skip

    def _shrink(self, size: int) -> None:
        surplus = []
        while len(self._pool) > size:
            taken = Counter(worker.place for worker in self._pool)
            crowded = max(taken, key=lambda place: taken[place])
            surplus.append(next(worker for worker in reversed(self._pool) if worker.place == crowded))
            self._pool.remove(surplus[-1])
        end_all(surplus)

    def _listen(self) -> list[Worker]:
        """Wait for messages; the others' silence grows by the time that was waited, a stop of this process (Ctrl-Z) aside."""
        began = time.monotonic()
        heard = set(wait([w.connection for w in self._pool], timeout=LOOK))
        waited = min(time.monotonic() - began, 2 * LOOK)
        for worker in self._pool:
            worker.silent = worker.silent + waited if worker.connection not in heard else 0.0
        return [w for w in self._pool if w.connection in heard or w.gone]
