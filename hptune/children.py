"""What all processes that this program starts have in common: how they begin, where they print, how their end is told."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""How many threads numeric libraries use: read once, when a process loads them."""


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have a process that is started within find these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """A process that is started within never sees Ctrl-C, from its first moment on; our own comes afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_interrupts_and_output() -> None:
    """Be a process that others decide about, and that leaves standard output to them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_to_stderr()


def print_to_stderr() -> None:
    """Have standard error get what is printed from now on, by user code in C too."""
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    sys.stdout = sys.stderr


def exit_text(code: int | None) -> str:
    """Say how a process ended."""
    if code == -9:
        return "exit code -9 (killed, as the system does when memory runs out)"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"exit code {code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
