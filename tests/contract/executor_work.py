"""Work functions for the executor tests: top-level, importable by a spawned process, and free of torch."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from hptune.errors import ConfigError, DeviceLostError, InputError, UserCodeError
from hptune.pulse import PULSE


class OddError(InputError):
    """An input error that pickle cannot rebuild."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Unreadable:
    """Pickles, but cannot be read back."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def square(item: int) -> int:
    return item * item


def square_unless_negative(item: int) -> int:
    if item < 0:
        raise ValueError(f"{item} is negative")
    return item * item


def quit_or_square(item: int) -> int:
    if item < 0:
        sys.exit("user code called sys.exit")
    return item * item


def refuse(item: str) -> None:
    if item == "config":
        raise ConfigError("is no number", where="c.yaml:3", key="model.args.width")
    if item == "user":
        raise UserCodeError("ZeroDivisionError: division by zero", where="models.py:7")
    if item == "odd":
        raise OddError("one", "two")


def interrupt(item: int) -> None:
    raise KeyboardInterrupt


def pid(item: object) -> int:
    return os.getpid()


def meet(item: tuple[str, int]) -> int:
    """`(folder, n)`: return the process id once `n` processes have met in the folder."""
    folder, expected = Path(item[0]), item[1]
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < expected:
        time.sleep(0.01)
    return os.getpid()


def wait_for(mark: str) -> None:
    """End once there is such a file; with an empty name, at once."""
    while mark and not Path(mark).exists():
        time.sleep(0.01)


def wait_or_look(item: tuple[str, str]) -> bool:
    """`(how, mark)`: whether there is such a file; told to wait, once there is."""
    how, mark = item
    if how == "wait":
        wait_for(mark)
    return Path(mark).exists()


def environment(item: str) -> str | None:
    return os.environ.get(item)


def chatter(item: int) -> int:
    print(f"python says {item}", flush=True)
    ctypes.CDLL(None).puts(f"C says {item}".encode())
    ctypes.CDLL(None).fflush(None)
    subprocess.run([sys.executable, "-c", "print('a child says')"], check=True)
    return item


def die(item: tuple[str, str]) -> str:
    """`("exit" | "kill" | "close" | "fine", folder)`: leave a mark in the folder, then end as told."""
    how, folder = item
    (Path(folder) / f"{how} {os.getpid()}").touch()
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def die_once(item: tuple[int, str]) -> int:
    """Die while there is no mark of an earlier attempt in the folder."""
    index, folder = item
    mark = Path(folder) / str(index)
    if index % 2 and not mark.exists():
        mark.touch()
        os._exit(1)
    return index


def leave_a_child_and_die(item: str) -> None:
    """Die while a child of ours still holds our end of the pipe."""
    if os.fork() == 0:
        Path(item, str(os.getpid())).touch()
        time.sleep(60)
        os._exit(0)
    os._exit(5)


def hang(item: str) -> None:
    """Mark that it runs, then work for long, in Python and out of it."""
    Path(item, str(os.getpid())).touch()
    while True:
        time.sleep(0.01)


def hang_or_square(item: tuple[str, int]) -> int:
    """`(how, n)`: n squared, after hanging where Python can be interrupted ("lock") or cannot ("C"), or being busy for a while
    ("silent", "beat")."""
    how, number = item
    if how == "lock":
        threading.Lock().acquire()
        threading.Event().wait()
    if how == "C":
        ctypes.PyDLL(None).sleep(3600)  # holds the interpreter
    if how == "silent":
        time.sleep(3)
    if how == "beat":
        for _ in range(50):
            time.sleep(0.1)
            PULSE.beat()
    return number**2


def lose_the_device(item: int) -> int:
    if item < 0:
        raise DeviceLostError(f"device-side assert triggered in {os.getpid()}")
    return os.getpid()


def hang_if_told(item: tuple[bool, str]) -> str:
    if item[0]:
        hang(item[1])
    while not any(Path(item[1]).iterdir()):
        time.sleep(0.01)
    return "done"


def unsendable(item: str) -> Any:
    return {"lambda": lambda: None, "unreadable": Unreadable(), "fine": 1}[item]


def loaded(item: str) -> bool:
    return item in sys.modules


def process_id(seconds: float) -> int:
    """The worker's pid, after so long that no worker gets two of as many items."""
    time.sleep(seconds)
    return os.getpid()


def device_of(seconds: float) -> str | None:
    """The device this process is confined to, after so long that no worker gets two of as many items."""
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES")
