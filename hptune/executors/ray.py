"""Workers on a Ray cluster: actors that keep code, model and data warm. Only this module and `ray_worker` import ray.

The driver hands out the items and alone writes anything; a worker needs no file of the driver's. What is lost with a node is an
attempt at the trials that ran there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import math
import os
import pickle
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from hptune.analysis.wording import count
from hptune.children import THREAD_VARIABLES
from hptune.cores import available_cores
from hptune.errors import ConfigError, said_by
from hptune.executors.base import Work
from hptune.executors.needs import Needs
from hptune.executors.pool import Pool, end_all
from hptune.executors.ray_worker import LIFE, RayWorker, actor_class

LOOK = 1.0  # seconds between looks for workers that give no sign of life
REACHABLE = 10.0  # seconds for a cluster to answer a first knock
LOOK_AROUND = 5.0  # seconds between looks at the cluster's nodes
KIND = "accelerator_type:"  # how ray names the resource that says which GPUs a node has
A_TRACE = 0.001  # of a resource that is there to be asked for
TOKEN = "where a cluster asks for a token, set RAY_AUTH_MODE=token and have its token in ~/.ray/auth_token"
LOCAL = "local"  # the address of a cluster that begins and ends with this process


@dataclass(frozen=True, slots=True)
class Stored:
    """Something in the cluster's object store, from which each node that asks for it gets it once."""

    reference: Any

    def open(self) -> Any:
        """Return it; arrays in it are read where they lie."""
        return ray.get(self.reference)


class RayExecutor(Pool[RayWorker]):
    """Performs the work on a Ray cluster, in as many actors as fit there or in up to `workers`.

    `address`: of a cluster; `auto` is the one that this machine belongs to, or else a local one, which ends with this executor.
    `workers` is what to ask for at most, also of a cluster that has yet to grow; None is what fits at the moment. `folder` travels to
    every node, where workers have a copy of it as their current folder, its Python modules importable. A connection to a cluster that
    was made before is used, and left.

    Raises ConfigError where there is no such cluster.
    """

    remedy = "; see the logs of the Ray cluster"

    def __init__(
        self,
        work: Work,
        workers: int | None,
        *,
        needs: Needs,
        threads: int = 1,
        heartbeat: float | None = None,
        address: str = "auto",
        folder: Path | None = None,
    ) -> None:
        super().__init__(workers or 1, heartbeat)
        self._asked, self._needs, self._threads = workers, needs, threads
        self._kind: str | None = None
        self._work = pickle.dumps(work)
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(address)
        self._code = _stored_code(folder)
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._news: list[str] = []
        self._looked, self._room = -math.inf, 0  # when, and how many workers the nodes hold
        self._look_around()
        if needs.gpus_if_any and any(node["Resources"].get("GPU") for node in self._nodes.values()):
            self._needs = replace(needs, gpus=needs.gpus_if_any)
        self._station = self._made()

    def carry(self, folder: Path) -> None:
        """Have workers that begin from now on find what is in `folder` now; those that have nothing to do end."""
        self._settle()
        self._shrink(0)
        self._code = _stored_code(folder)
        self._station = self._made()

    def adapt(self, cpus: float | None) -> None:
        """Have workers take `cpus` where given, and GPUs all be of the kind that the first worker has: numbers depend on it."""
        if cpus is not None and cpus != self._needs.cpus:
            self._needs = replace(self._needs, cpus=cpus)
            self._shrink(0)
        first = next((worker.found for worker in self._pool if worker.found), None)
        if first is not None and self._needs.gpus:
            resources = self._nodes.get(first.node, {}).get("Resources", {})
            self._kind = next((name for name in resources if name.startswith(KIND)), None)
        self._station = self._made()
        self._looked = -math.inf
        self._look_around()

    def _made(self) -> Any:
        """What actors are made from."""
        needs = self._needs
        environment = dict.fromkeys(THREAD_VARIABLES, str(self._threads)) | ({} if needs.gpus else {"CUDA_VISIBLE_DEVICES": ""})
        made = ray.remote(concurrency_groups={LIFE: 1})(actor_class()).options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, resources={self._kind: A_TRACE} if self._kind else None
        )
        return functools.partial(made.remote, *self._code, environment, self._work)

    def store(self, thing: Any) -> Stored:
        """Put something where every node can get it."""
        return Stored(ray.put(thing))

    def news(self) -> list[str]:
        """See `Executor.news`."""
        news, self._news = self._news, []
        return news

    @property
    def where(self) -> str:
        """How many workers there are, and on how many nodes."""
        ready = [worker for worker in self._pool if worker.ready]
        waiting = len(self._pool) - len(ready)
        if not ready and waiting:
            return f"Ray: waiting for a node with {self._needs} free"
        nodes = len({worker.found.node for worker in ready if worker.found})
        return f"Ray: {count(len(ready), 'worker')} on {count(nodes, 'node')}"

    def close(self) -> None:
        """End all workers, and the connection to the cluster where this executor made it."""
        super().close()
        if self._connected and ray.is_initialized():
            ray.shutdown()

    def resize(self, workers: int) -> None:
        """Ask for so many workers from now on: the cluster gives them when it can."""
        self._settle()
        self._shrink(workers)
        self.workers = self._asked = workers

    def _worker(self, number: int | None = None) -> RayWorker:
        return RayWorker(self._station(), number)

    def _listen(self) -> list[RayWorker]:
        self._look_around()
        speakers = {worker.task: worker for worker in self._pool if worker.task is not None}
        if not speakers:
            return []
        began = time.monotonic()
        ray.wait(list(speakers), timeout=LOOK)
        waited = min(time.monotonic() - began, 2 * LOOK)
        heard, _ = ray.wait(list(speakers), num_returns=len(speakers), timeout=0)
        for worker in self._pool:
            worker.watch(self.heartbeat, waited)
        return [speakers[task] for task in heard]

    @property
    def idle(self) -> int:
        """See `Executor.idle`: of the workers that there are."""
        return max(0, min(self.workers, sum(worker.ready for worker in self._pool)) - len(self._jobs.items))

    def _demand(self) -> int:
        """How many workers are to be asked for: what is spare is no reason for a cluster to grow."""
        return sum(worker.number is not None for worker in self._pool) + len(self._jobs.queue)

    def _grow(self, size: int) -> None:
        """Ask for more workers; no longer for those that the cluster had no place for, where no item waits for them any more."""
        waiting = [worker for worker in self._pool if not worker.ready and worker.number is None]
        surplus = waiting[: max(0, len(self._pool) - max(size, self._room))]
        self._pool[:] = [worker for worker in self._pool if worker not in surplus]
        end_all(surplus)
        super()._grow(size)

    def _look_around(self) -> None:
        """See which nodes there are, every few seconds."""
        if time.monotonic() - self._looked < LOOK_AROUND:
            return
        self._looked = time.monotonic()
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        if self._nodes:
            self._news += [f"Ray: node {nodes[n]['NodeManagerHostname']} joined" for n in nodes.keys() - self._nodes.keys()]
            self._news += [f"Ray: node {self._nodes[n]['NodeManagerHostname']} is gone" for n in self._nodes.keys() - nodes.keys()]
        self._nodes = nodes
        fitting = [node["Resources"] for node in nodes.values() if self._kind is None or self._kind in node["Resources"]]
        self._room = sum(self._needs.fit(resources) for resources in fitting)
        if self._asked is None:
            self.workers = max(1, self._room)


def _stored_code(folder: Path | None) -> tuple[Any, str]:
    """The files of a folder in one archive in the object store, and a hash of their names and contents; an empty one without a folder."""
    if folder is None:
        return ray.put(b""), ""
    content, digest = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder).as_posix()
            archive.write(file, name)
            digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return ray.put(content.getvalue()), digest.hexdigest()[:16]


def _connect(address: str) -> None:
    """Join the cluster at `address`, or start one on this machine where that may be. Raises ConfigError where it may not."""
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    named = address if address != "auto" else os.environ.get("RAY_ADDRESS", "")
    key = "executor.address" if address != "auto" else "executor.name"
    with _handlers_kept():
        if named == LOCAL or not (named or _runs_here()):
            ray.init(address=LOCAL, num_cpus=available_cores(), include_dashboard=False, **common)
            return
        if (place := _place(named)) is not None and not _answers(place):  # ray itself would try for minutes
            raise ConfigError(f"there is no Ray cluster at {named}: nobody answers there", key=key)
        try:
            ray.init(address=named or "auto", **common)  # of one that it finds itself ray also knows the token
        except (OSError, RuntimeError, ValueError) as error:
            where = f" at {named}" if named else " of this machine"
            raise ConfigError(f"cannot use the Ray cluster{where}: {said_by(error)}; {TOKEN}", key=key) from error


def _runs_here() -> bool:
    """Whether the cluster that `ray start` had this machine join last still answers.

    Ray's own search waits for one that is gone, and without one finds clusters that belong to other programs and end with them.
    """
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        place = _place(note.read_text(encoding="utf-8").strip())
    except OSError:
        return False
    return place is not None and _answers(place)


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=REACHABLE).close()
    except OSError:
        return False
    return True


def _place(address: str) -> tuple[str, int] | None:
    """Host and port of an address that has them."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() and int(port) < 2**16 else None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the handlers of signals that ray takes over: its own would abort where this program saves first."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
