"""Both ends of one worker process: the loop inside it and the handle the driver has on it.

They talk over one duplex pipe. The driver sends a pickled item; the worker sends pickled `(kind, content)` pairs: `ready` once
its code is loaded, then for each item `result` (or a Failure as the result), `input_error`, or `lost` where this process can do no more;
`broken` where the code cannot be loaded; and `alive` now and then while the work beats (`hptune.pulse`). A closed pipe ends the
worker at once, so that a driver killed by SIGKILL leaves nothing running.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from hptune.children import THREAD_VARIABLES, environment, exit_text, interrupts_held_back, leave_interrupts_and_output
from hptune.errors import DeviceLostError, InputError
from hptune.executors.base import Failure, Work, attempt
from hptune.executors.pool import Kind
from hptune.pulse import PULSE

GRACE = 2.0  # seconds a worker has to end by itself, then again after SIGTERM
STARTING = 600.0  # seconds a worker may be silent while it loads its code: from a cold disk in a network that takes minutes
BEATS = 10  # signs of life in the time after which there must have been one

_sending = threading.Lock()  # one message at a time


class Worker:
    """The driver's handle on one worker process, started by being made.

    See `pool.Handle`. `place`: which of the executor's devices it is on, where `variables` of its environment have it. A process with a
    `heartbeat` says `BEATS` times as often as that that it goes on.
    """

    moved = False  # this machine is the driver's too

    def __init__(
        self,
        work: bytes,
        *,
        threads: int,
        heartbeat: float | None = None,
        number: int | None = None,
        place: int = 0,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready = False
        self.number = number
        self.silent = 0.0
        self.place = place
        self.connection, theirs = context.Pipe(duplex=True)
        # Not a daemon: those may have no children, and data loaders of user code do.
        self.process = context.Process(target=serve, args=(theirs, work, heartbeat), name="hptune worker")
        with environment({**dict.fromkeys(THREAD_VARIABLES, str(threads)), **(variables or {})}), interrupts_held_back():
            self.process.start()
        theirs.close()

    def send(self, item: Any) -> bool:
        """Hand over an item; False where the worker is gone. Raises what pickling the item raises."""
        message = pickle.dumps(item)
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[Kind, Any] | None:
        """Return the next message; None where the worker is gone. Blocks until there is either."""
        try:
            if self.gone and not self.connection.poll():  # its end of the pipe lives on in a process that it left behind
                return None
            return read(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None

    def hangs(self, heartbeat: float | None) -> bool:
        """Whether it should give signs of life and has not for `heartbeat` seconds, or more where it still loads its code."""
        if heartbeat is None or (self.ready and self.number is None):
            return False
        return self.silent > (heartbeat if self.ready else max(heartbeat, STARTING))

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.process.exitcode is not None

    def end(self) -> str:
        """See the process to its end, by force where it must be, and return how it ended."""
        self.ask_to_end()
        for force in (self.process.terminate, self.process.kill):
            self.process.join(GRACE)
            if not self.gone:
                force()
        self.process.join()
        how = exit_text(self.process.exitcode)
        self.process.close()
        return how

    def ask_to_end(self) -> None:
        """Close the pipe: an idle worker winds up, a busy one stops where it is."""
        self.connection.close()


def read(message: bytes) -> tuple[Kind, Any]:
    """Unpickle a message of a worker's."""
    try:
        kind, content = pickle.loads(message)
    except Exception:
        return "result", Failure(error=f"{traceback.format_exc()}the result cannot be read in the main process")
    return kind, content


def serve(connection: Connection, pickled_work: bytes, heartbeat: float | None = None) -> None:
    """Be a worker: load the work, then perform items until the pipe closes. The driver alone decides about interrupts."""
    leave_interrupts_and_output()
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    idle = threading.Event()
    threading.Thread(target=_receive, args=(connection, inbox, idle), daemon=True).start()
    try:
        work = pickle.loads(pickled_work)
    except Exception:
        _send(connection, _pickled("broken", traceback.format_exc()))
        return
    idle.set()
    _send(connection, _pickled("ready", None))
    if heartbeat is not None:
        threading.Thread(target=_tell_of_life, args=(connection, heartbeat / BEATS), daemon=True).start()
    while (item := inbox.get()) is not None:
        kind, reply = answer(work, functools.partial(pickle.loads, item))
        idle.set()
        _send(connection, reply)
        if kind == "lost":
            return


def _tell_of_life(connection: Connection, interval: float) -> None:
    """Pass on, every `interval` seconds, that the work has said since that it goes on."""
    told = PULSE.beats
    while True:
        time.sleep(interval)
        if PULSE.beats != told:
            told = PULSE.beats
            _send(connection, _pickled("alive", None))


def _receive(connection: Connection, inbox: queue.SimpleQueue[bytes | None], idle: threading.Event) -> None:
    """Pass items on. Reading beside the work is how a busy worker learns that its driver is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            item = connection.recv_bytes()
            idle.clear()
            inbox.put(item)
    if not idle.is_set():
        os._exit(1)
    inbox.put(None)


def answer(work: Work, read: Callable[[], Any]) -> tuple[Kind, bytes]:
    """Perform the item that `read` gives; return the kind of the reply, and the message that holds it."""
    try:
        result = attempt(lambda _: work(read()), None)
    except InputError as error:
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        with contextlib.suppress(Exception):
            reply = _pickled("input_error", error)
            pickle.loads(reply)
            return "input_error", reply
        return "input_error", _pickled("input_error", InputError(str(error)))
    except DeviceLostError as error:
        return "lost", _pickled("lost", str(error))
    try:
        return "result", _pickled("result", result)
    except Exception:
        return "result", _pickled("result", Failure(error=f"{traceback.format_exc()}the result cannot be sent to the main process"))


def _pickled(kind: Kind, content: Any) -> bytes:
    return pickle.dumps((kind, content))


def _send(connection: Connection, message: bytes) -> None:
    with _sending, contextlib.suppress(OSError):  # the driver is gone: the reading thread ends the process
        connection.send_bytes(message)
