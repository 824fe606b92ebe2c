"""Processes for measurements: one's own for each contestant, so that none meets what another has set or left in memory."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def own_process() -> ProcessPoolExecutor:
    """A fresh process that runs what it is given, one call at a time; it may have children of its own."""
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))


def isolated(function: Callable[..., Any], *args: Any) -> Any:
    """Run `function` in a fresh process and return its result."""
    with own_process() as process:
        return process.submit(function, *args).result()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Send what libraries print, their progress bars included, nowhere: drawing it is no part of the work."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def peak_memory() -> float:
    """Largest resident memory of this process so far, MiB.

    Linux counts it by program in VmHWM; ru_maxrss outlives exec there, so that a child starts with its parent's and growth is hidden.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def settle() -> None:
    """Collect garbage, so that it does not fall into somebody's measurement."""
    gc.collect()
