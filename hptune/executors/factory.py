"""From the config's `executor` block to an executor."""

from __future__ import annotations

from typing import Literal

from hptune.cores import available_cores
from hptune.errors import ConfigError
from hptune.executors.base import Executor, Work
from hptune.executors.process import ProcessExecutor
from hptune.executors.serial import SerialExecutor


def resolve(
    name: str, workers: int | Literal["auto"], device_type: str, cpu_count: int | None = None, threads: int = 1, *, room: bool = False
) -> tuple[str, int]:
    """Settle `auto`: return the executor's name and its number of workers.

    On a CPU there is one worker for each `threads` of the `cpu_count` cores (default: those available); on other devices there is
    one unless the config names more. Under `auto` a single worker needs no process of its own, unless one trial leaves `room` on its
    device, where more may follow. Raises ConfigError for an executor this version has not.
    """
    if name == "serial":
        return "serial", 1
    if name not in ("auto", "process"):
        raise _unknown(name)
    fitting = max(1, (cpu_count or available_cores()) // threads) if device_type == "cpu" else 1
    count = fitting if workers == "auto" else workers
    alone = count == 1 and not (room and workers == "auto")
    return ("serial" if name == "auto" and alone else "process"), count


def make_executor(name: str, work: Work, workers: int, threads: int, heartbeat: float | None = None) -> Executor:
    """Return the executor `name` (`serial` or `process`) for `work`; `threads` are the numeric threads of one worker process.

    `heartbeat`: seconds without a sign of life after which a worker process is replaced; None waits for ever.

    Raises ConfigError for an executor this version has not.
    """
    if name == "serial":
        return SerialExecutor(work)
    if name == "process":
        return ProcessExecutor(work, workers, threads=threads, heartbeat=heartbeat)
    raise _unknown(name)


def _unknown(name: str) -> ConfigError:
    if name == "ray":
        return ConfigError("the ray executor is not part of this version: use process", key="executor.name")
    return ConfigError(f"unknown executor {name!r}: use auto, serial or process", key="executor.name")
