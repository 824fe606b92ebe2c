"""Ctrl-C, SIGTERM and a terminal that closes: what was done is saved; the user is told the command that continues."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import typer

INTERRUPTED = 130
STDERR = 2


def interrupts() -> list[signal.Signals]:
    """The signals that ask a program to end, but those that whoever started it has it ignore (`nohup`)."""
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have `handler` take the interrupts within; afterwards everything is as before."""
    before = {number: signal.signal(number, handler) for number in interrupts()}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def deferred(notice: str) -> Iterator[Callable[[], bool]]:
    """Within, the first interrupt is only noted, and answered with `notice`; the second one interrupts. Yields whether there was one."""
    asked = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        with contextlib.suppress(OSError):
            os.write(STDERR, f"\n{notice}\n".encode())  # the stream may be in the middle of a write

    with handled(note):
        yield lambda: asked


@contextlib.contextmanager
def continuing() -> Iterator[None]:
    """End an interrupted command, once everything inside is closed, with exit status 130 and the command that continues it."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be what went away
            print(f"\ninterrupted; what was done is saved. Continue with:\n  {shlex.join(continuation(command_line()))}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def command_line() -> list[str]:
    """The command line of this process, as one would type it again."""
    return [*program(sys.argv[0]), *sys.argv[1:]]


def program(started_as: str) -> list[str]:
    """How to call the program again: `hptune` where that is found, else the way it was called."""
    path = Path(started_as)
    if path.name == "__main__.py":
        return [sys.executable, "-m", "hptune"]
    found = shutil.which("hptune")
    if found is not None and path.exists() and path.samefile(found):
        return ["hptune"]
    return [started_as]


def continuation(command: Sequence[str]) -> list[str]:
    """The command that goes on where `command` was stopped: the same one, but not over from the start."""
    return [word for word in command if word != "--fresh"]
