"""Ctrl-C and SIGTERM: what was done is saved; the user is told the command that continues."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

INTERRUPTED = 130


@contextlib.contextmanager
def continuing() -> Iterator[None]:
    """End an interrupted command, once everything inside is closed, with exit status 130 and the command that continues it."""
    try:
        yield
    except KeyboardInterrupt:
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
