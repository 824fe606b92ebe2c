"""The far end of a worker on another machine: it loads the work once, then performs items as they are sent. It knows no cluster."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptune.children import print_to_stderr
from hptune.executors.worker import answer
from hptune.pulse import PULSE

MOST_PRINTED = 20_000  # bytes of one item's output that travel
LOG = Path("/proc/self/fd/2")  # where standard error goes, as far as the system tells


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a worker is: its machine's name, its process, the file that has what it prints ("" where none is known)."""

    host: str
    pid: int
    log: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


class Station:
    """One worker process. `work` is the pickled work function; raises where it cannot be loaded here."""

    def __init__(self, work: bytes) -> None:
        print_to_stderr()
        self._log = _log_file()
        self._work = pickle.loads(work)

    def whereabouts(self) -> Whereabouts:
        """Say where this is; to say anything at all shows that the code is loaded."""
        return Whereabouts(socket.gethostname(), os.getpid(), str(self._log or ""))

    def perform(self, item: Any) -> tuple[bytes, str]:
        """Perform an item; return the pickled message that tells of it (`pool.Kind`), and what was printed meanwhile."""
        begin = _size(self._log)
        message = answer(self._work, lambda: item)[1]
        sys.stderr.flush()
        return message, _read_from(self._log, begin)

    def beats(self) -> int:
        """Signs of life of the work so far; asked for while it goes on."""
        return PULSE.beats


def _log_file() -> Path | None:
    try:
        path = LOG.readlink()
    except OSError:
        return None
    return path if path.is_file() else None


def _size(path: Path | None) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size if path is not None else 0
    return 0


def _read_from(path: Path | None, begin: int) -> str:
    """The end of what was written to the file since it had `begin` bytes."""
    if path is None or _size(path) <= begin:
        return ""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(begin, _size(path) - MOST_PRINTED))
        return file.read().decode("utf-8", "replace")
    return ""
