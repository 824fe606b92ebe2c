"""The inside of one rank's process: it joins the others, then calls what it is told to, together with them.

It talks with the process that started it over one pipe. That one sends pickled `(function, arguments)` and `STOP`; the rank sends pickled
`(kind, content)` pairs: `ready` once all have met, `alive` while the work beats (`hptune.pulse`), `progress` of the first rank, and for
each call one end: `result`, `left` (a result, but the other ranks may be waiting for this one), `error`, `memory` or `peer` (a collective
failed, since another rank is gone). A closed pipe ends the rank at once, whatever it waits for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from hptune.children import leave_interrupts_and_output
from hptune.engine.memory import is_out_of_memory
from hptune.engine.ranks import PeerLostError, is_peer_lost, join
from hptune.engine.trainer import describe_error
from hptune.pulse import PULSE

STOP = b""
BEAT = 0.25  # seconds between signs of life; whoever watches the process that started this one waits for longer

Kind = Literal["ready", "alive", "progress", "result", "left", "error", "memory", "peer", "interrupted"]


@dataclass(frozen=True, slots=True)
class Left:
    """What a called function returns where this rank did not come to the end that it has in common with the others."""

    result: Any


class Post:
    """What a called function may say and ask while it works."""

    def __init__(self, connection: Connection, rank: int) -> None:
        self._connection, self._rank = connection, rank
        self._sending = threading.Lock()
        self._asked_to_stop = threading.Event()

    def progress(self, state: Any) -> None:
        """Pass on how far the work is, where this is the first rank."""
        if self._rank == 0:
            self.send("progress", state)

    def asked(self) -> bool:
        """Whether the work is to stop at the next occasion; the ranks need not have heard of it at the same time."""
        return self._asked_to_stop.is_set()

    def ask(self, stop: bool) -> None:
        """Note that the work is to stop, or that this is over."""
        (self._asked_to_stop.set if stop else self._asked_to_stop.clear)()

    def send(self, kind: Kind, content: Any = None) -> None:
        """Send one message."""
        message = pickle.dumps((kind, content))
        with self._sending, contextlib.suppress(OSError):  # nobody there: the reading thread ends the process
            self._connection.send_bytes(message)


def serve(connection: Connection, rank: int, size: int, device: str, meeting: Path) -> None:
    """Be rank `rank` of `size`: perform calls until the pipe closes."""
    leave_interrupts_and_output()
    post = Post(connection, rank)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, post, inbox, meeting.parent), daemon=True).start()
    join(rank, size, device=device, meeting=meeting)
    post.send("ready")
    threading.Thread(target=_tell_of_life, args=(post,), daemon=True).start()
    while True:
        kind, content = _called(inbox.get(), post)
        try:
            post.send(kind, content)
        except Exception as error:  # it cannot be pickled
            post.send("error", RuntimeError(f"the result cannot be sent to the main process: {describe_error(error)}"))


def _receive(connection: Connection, post: Post, inbox: queue.SimpleQueue[bytes], folder: Path) -> None:
    """Pass calls on. Reading beside the work is how a rank that waits in a collective learns that nobody waits for it."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = connection.recv_bytes()
            if message == STOP:
                post.ask(True)
            else:
                post.ask(False)
                inbox.put(message)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _tell_of_life(post: Post) -> None:
    told = PULSE.beats
    while True:
        time.sleep(BEAT)
        if PULSE.beats != told:
            told = PULSE.beats
            post.send("alive")


def _called(message: bytes, post: Post) -> tuple[Kind, Any]:
    """Perform a call and return what to say of it."""
    try:
        function: Callable[..., Any]
        function, arguments = pickle.loads(message)
        result = function(post, *arguments)
    except KeyboardInterrupt:
        return "interrupted", None
    except (Exception, SystemExit) as error:
        if isinstance(error, PeerLostError) or is_peer_lost(error):
            return "peer", describe_error(error)
        return ("memory", describe_error(error)) if is_out_of_memory(error) else ("error", _portable(error))
    return ("left", result.result) if isinstance(result, Left) else ("result", result)


def _portable(error: BaseException) -> BaseException:
    """The exception itself where it can be sent, or else a plain one that says as much."""
    with contextlib.suppress(Exception):
        if type(copy := pickle.loads(pickle.dumps(error))) is type(error) and str(copy) == str(error):
            return error
    return RuntimeError(describe_error(error))
