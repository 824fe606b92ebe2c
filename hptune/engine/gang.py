"""Processes that train one network together, seen from the one that started them and is none of them.

A rank that waits in a collective for one that is gone would wait forever. So whoever started them listens to all, and to how their
processes end: the first that fails, dies or runs out of memory ends the others, at once and by force, and the next call finds a fresh
gang. Ranks in turn end with whoever started them, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import torch

from hptune.children import THREAD_VARIABLES, environment, exit_text, interrupts_held_back
from hptune.engine.rank import STOP, Kind, Left, Post, serve
from hptune.errors import HptuneError
from hptune.pulse import PULSE
from hptune.trial import Numerics

__all__ = ["Gang", "Left", "Post", "RankLostError", "gang_of"]

LOOK = 0.2  # seconds between looks at whether to stop
GRACE = 2.0  # seconds an idle rank has to end by itself
FALLING = 10.0  # seconds in which a rank that others lost has shown how it ended
ABORTED = -6  # how the libraries end a process for what happened to another


class RankLostError(HptuneError):
    """The process of a rank ended in the middle of its work."""


@dataclass(slots=True)
class _Member:
    rank: int
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    done: bool = False
    silent: bool = False  # its pipe is closed

    @property
    def gone(self) -> bool:
        return self.process.exitcode is not None

    def heard(self) -> Iterator[tuple[Kind, Any]]:
        """The messages that are there."""
        try:
            while not self.silent and self.connection.poll():
                kind, content = pickle.loads(self.connection.recv_bytes())
                yield kind, content
        except (EOFError, OSError):
            self.silent = True


class Gang:
    """`size` rank processes on devices of type `device`, each with its own; they load their code meanwhile.

    Ranks take the first of the CUDA devices that this process sees. Processes are spawned, so what is called must be importable by its
    name; a script that ends up here guards its calls with `if __name__ == "__main__":`.
    """

    def __init__(self, size: int, device: str, threads: int) -> None:
        self.size, self.device = size, device
        self.folder = Path(tempfile.mkdtemp(prefix="hptune-"))  # where ranks meet; nobody else may look into it
        self._members: list[_Member] = []
        Finalize(self, _end, args=(self._members, self.folder), exitpriority=10)  # at exit: before multiprocessing waits for children
        context = multiprocessing.get_context("spawn")
        for rank, variables in enumerate(_environments(size, device, threads)):
            ours, theirs = context.Pipe(duplex=True)
            process = context.Process(target=serve, args=(theirs, rank, size, device, self.folder / "meeting"), name=f"hptune rank {rank}")
            with environment(variables), interrupts_held_back():
                process.start()
            theirs.close()
            self._members.append(_Member(rank, process, ours))

    def call(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        progress: Callable[[Any], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Have all ranks call `function(post, *arguments)` and return what it returns on the first one, or what one returns as `Left`.

        `progress` is called with what the first rank says meanwhile; once `stop` says so, the ranks are told (`Post.asked`). Raises what
        a rank raises, MemoryError where its memory does not suffice, RankLostError where its process ends, and KeyboardInterrupt where it
        stopped. Whatever else is raised here ends the gang.
        """
        try:
            message = pickle.dumps((function, arguments))
            for member in self._members:
                member.done = False
                with contextlib.suppress(OSError):  # gone: that is noticed below
                    member.connection.send_bytes(message)
            kind, result = self._answer(progress, stop)
        except BaseException:
            self.close(by_force=True)
            raise
        if kind == "left":
            self.close(by_force=True)
        if kind == "interrupted":
            raise KeyboardInterrupt
        return result

    @property
    def usable(self) -> bool:
        """Whether all ranks are there for another call."""
        return bool(self._members) and not any(member.gone for member in self._members)

    def close(self, *, by_force: bool = False) -> None:
        """End all ranks; calling it twice is harmless."""
        if by_force:
            for member in self._members:
                member.process.kill()
        _end(self._members, self.folder)

    def _answer(self, progress: Callable[[Any], None], stop: Callable[[], bool]) -> tuple[Kind, Any]:
        """The first rank's answer once all have given theirs, or that of the first that left the others."""
        answers: dict[int, tuple[Kind, Any]] = {}
        bereaved: tuple[float, str] | None = None  # until when to wait for the reason why a collective failed, and what it said
        told = False
        while len(answers) < self.size or bereaved:
            if stop() and not told:
                told = True
                for member in self._members:
                    with contextlib.suppress(OSError):
                        member.connection.send_bytes(STOP)
            gone = self._wait()
            for member, kind, content in [(m, *message) for m in self._members for message in m.heard()]:
                PULSE.beat()
                if kind == "ready":
                    member.ready = True
                elif kind == "progress":
                    progress(content)
                elif kind == "peer":
                    bereaved = bereaved or (time.monotonic() + FALLING, content)
                elif kind == "left":
                    return kind, content
                elif kind in ("error", "memory"):
                    raise content if kind == "error" else MemoryError(content)
                elif kind != "alive":
                    member.done = True
                    answers[member.rank] = kind, content
            self._check_losses([member for member in gone if not member.done])
            if bereaved and time.monotonic() > bereaved[0]:
                raise RankLostError(bereaved[1])
        return answers[0]

    def _wait(self) -> list[_Member]:
        """Wait for messages or ends, for a moment at most; return the members that are gone: what they said is there to be read."""
        talking = [member.connection for member in self._members if not member.silent]
        wait([*talking, *(member.process.sentinel for member in self._members if not member.gone)], timeout=LOOK)
        return [member for member in self._members if member.gone]

    def _check_losses(self, gone: list[_Member]) -> None:
        """Raise RankLostError where processes ended before they had finished."""
        if not gone:
            return
        cause = min(gone, key=lambda m: m.process.exitcode == ABORTED)
        how = exit_text(cause.process.exitcode)
        if cause.ready:
            raise RankLostError(f"the process on device {cause.rank + 1} of {self.size} ended by {how}")
        raise HptuneError(
            f"the processes for the devices of one trial end before they are ready ({how}); a script that starts hptune must do so under "
            '`if __name__ == "__main__":`'
        )


_running: list[Gang] = []  # one at most


def gang_of(numerics: Numerics) -> Gang:
    """The gang that trains under `numerics`: the one at hand where it is of that kind and whole, or else a new one."""
    for gang in _running:
        if gang.usable and (gang.size, gang.device) == (numerics.replicas, numerics.device):
            return gang
        gang.close()
    _running[:] = [Gang(numerics.replicas, numerics.device, numerics.threads)]
    return _running[0]


def _environments(size: int, device: str, threads: int) -> list[dict[str, str]]:
    """What each rank finds in its environment: how many threads to use, which device alone there is, and no word from torch's insides.

    Those warn of what cannot be known (whether the user's model uses all its parameters), each rank for itself.
    """
    common = {"TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"), **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    if device != "cuda":
        return [common] * size
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named is not None else [str(i) for i in range(torch.cuda.device_count())]
    return [{**common, "CUDA_VISIBLE_DEVICES": name.strip()} for name in visible[:size]]


def _end(members: list[_Member], folder: Path) -> None:
    """End the ranks together: idle ones by themselves, what does not end in time by force."""
    for member in members:
        member.connection.close()
    deadline = time.monotonic() + GRACE
    while members:
        process = members.pop().process
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
        process.join()
        process.close()
    shutil.rmtree(folder, ignore_errors=True)
