"""Standard output and error, made fit for whatever they lead to."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from pathlib import Path
from typing import Any


class _Terminal(io.FileIO):
    """A terminal that may be closed while we run: from then on what is said goes nowhere, and the work goes on."""

    def write(self, data: Any, /) -> int:
        """Write, or let go of the terminal."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            let_go(self.fileno())
            return len(memoryview(data))


def prepare() -> None:
    """Replace what a stream cannot show, say nothing into one that was closed from the start, and outlive a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            if os.name == "posix" and _may_be_a_terminal(stream):
                raw = _Terminal(stream.fileno(), "w", closefd=False)
                setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=True))


def _may_be_a_terminal(stream: io.TextIOWrapper) -> bool:
    """`isatty` is false of a terminal that has gone already."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it has no descriptor
        return False


def let_go(descriptor: int) -> None:
    """Nobody reads any more, or nothing can be written: whatever still comes goes nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), descriptor)
