"""Both ends of one worker on a Ray cluster: the actor there and the handle the driver has on it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError, RayError, RuntimeEnvSetupError

from hptune.executors.pool import Kind
from hptune.executors.station import Whereabouts
from hptune.executors.worker import BEATS, read

NODE_DIED = "node has died"  # as ray says it of an actor whose node was taken away in order
LIFE = "life"  # the thread of a worker that answers while the work goes on


class RayWorker:
    """The driver's handle on one actor; see `pool.Handle`. It is not `ready` until the cluster has a place for it.

    `task`: what it is about to say, None where it has nothing to do.
    """

    def __init__(self, actor: Any, number: int | None) -> None:
        self.ready, self.number, self.silent, self.moved = False, number, 0.0, False
        self.task: Any = actor.whereabouts.remote()
        self.found: Whereabouts | None = None
        self._actor = actor
        self._how = ""
        self._beats = 0
        self._asked: Any = None  # for its beats

    def send(self, item: Any) -> bool:
        """Hand over an item; where the worker is gone shows when it should answer. Raises what pickling the item raises."""
        self.task = self._actor.perform.remote(item)
        return True

    def receive(self) -> tuple[Kind, Any] | None:
        """See `pool.Handle.receive`."""
        task, self.task = self.task, None
        try:
            said = ray.get(task)
        except (RuntimeEnvSetupError, ActorUnschedulableError) as error:
            return "broken", str(error)
        except RayActorError as error:
            if error.actor_init_failed:
                return "broken", str(error)
            self.moved = error.preempted or isinstance(error, ActorUnavailableError) or NODE_DIED in str(error)
            self._how = self._end_of(error)
            return None
        except RayError as error:  # what it said did not arrive
            self.moved, self._how = True, f"{type(error).__name__}: {error}".splitlines()[0]
            return None
        if isinstance(said, Whereabouts):
            self.found = said
            return "ready", None
        message, printed = said
        for line in printed.splitlines():
            print(f"({self.found}) {line}", file=sys.stderr)
        return read(message)

    def hangs(self, heartbeat: float | None) -> bool:
        """Whether it has an item and has given no sign of life for `heartbeat` seconds."""
        return heartbeat is not None and self.ready and self.number is not None and self.silent > heartbeat

    def watch(self, heartbeat: float | None, waited: float) -> None:
        """Count its silence, and ask it now and then for signs of life."""
        if heartbeat is None or not self.ready or self.number is None:
            return
        self.silent += waited
        if self._asked is None:
            if self.silent >= heartbeat / BEATS:
                self._asked = self._actor.beats.options(concurrency_group=LIFE).remote()
        elif ray.wait([self._asked], timeout=0)[0]:
            with contextlib.suppress(RayError):  # it is gone, which shows where it should answer
                beats = ray.get(self._asked)
                if beats != self._beats:
                    self._beats, self.silent = beats, 0.0
            self._asked = None

    def ask_to_end(self) -> None:
        """End it, whatever it does."""
        if ray.is_initialized():
            ray.kill(self._actor)

    def end(self) -> str:
        """End it, and return how it ended."""
        self.ask_to_end()
        return self._how

    def _end_of(self, error: RayActorError) -> str:
        where = f" ({self.found})" if self.found else ""
        if self.moved:
            return f"the loss of its node{where}"
        short = any(word in str(error) for word in ("memory monitor", "low on memory", "OutOfMemory"))
        log = f"; it printed to {self.found.log}" if self.found and self.found.log else ""
        return f"{'lack of memory on its node' if short else 'the end of its process'}{where}{log}"


def actor_class() -> type:
    """The class of the actors. Being local to a function, it travels by value, and can unpack the code that everything else is in."""

    class Actor:
        def __init__(self, archive: bytes, digest: str, environment: dict[str, str], work: bytes) -> None:
            import io
            import os
            import sys
            import tempfile
            import zipfile
            from pathlib import Path

            os.environ.update(environment)
            # One folder for all workers of a node with the same code: they are ended by force, and each would leave its own behind.
            root = Path(tempfile.gettempdir()) / f"hptune-{os.getuid() if hasattr(os, 'getuid') else 'code'}-{digest}"
            if archive:
                if not root.is_dir() or root.is_symlink() or (hasattr(os, "getuid") and root.stat().st_uid != os.getuid()):
                    fresh = Path(tempfile.mkdtemp(prefix="hptune-"))
                    zipfile.ZipFile(io.BytesIO(archive)).extractall(fresh)
                    try:
                        fresh.rename(root)
                    except OSError:  # another worker was first, or it is somebody else's: this one has its own
                        root = fresh
                sys.path.insert(0, str(root))
                os.chdir(root)
            from hptune.executors.station import Station

            self._station = Station(work)

        def whereabouts(self) -> Any:
            from dataclasses import replace

            import ray

            return replace(self._station.whereabouts(), node=ray.get_runtime_context().get_node_id())

        def perform(self, item: Any) -> tuple[bytes, str]:
            return self._station.perform(item)

        def beats(self) -> int:
            return self._station.beats()

    return Actor
