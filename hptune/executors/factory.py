"""From the config's `executor` block to an executor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hptune.cores import available_cores
from hptune.errors import ConfigError
from hptune.executors.base import Executor, Work
from hptune.executors.needs import Needs
from hptune.executors.process import EVERYWHERE, ProcessExecutor
from hptune.executors.serial import SerialExecutor

if TYPE_CHECKING:
    from hptune.executors.ray import RayExecutor

A_CPU = Needs()
RAY_SETTINGS = {
    "RAY_SCHEDULER_EVENTS": "0",  # what nodes come and go the executor tells itself
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by ray when it is imported, unless the user has set them."""


def resolve(
    name: str,
    workers: int | Literal["auto"],
    device_type: str,
    cpu_count: int | None = None,
    threads: int = 1,
    *,
    room: bool = False,
    places: int = 1,
) -> tuple[str, int]:
    """Settle `auto`: return the executor's name and its number of workers.

    On a CPU there is one worker for each `threads` of the `cpu_count` cores (default: those available); on other devices there is
    one for each of the `places` unless the config names more. Under `auto` a single worker needs no process of its own, unless one
    trial leaves `room` on its device, where more may follow. How many a cluster holds, only the cluster tells: it is taken to be one
    like this machine. Raises ConfigError for an executor there is none of.
    """
    if name == "serial":
        return "serial", 1
    if name not in ("auto", "process", "ray"):
        raise _unknown(name)
    fitting = max(1, (cpu_count or available_cores()) // threads) if device_type == "cpu" else places
    count = fitting if workers == "auto" else workers
    alone = count == 1 and not (room and workers == "auto")
    if name == "auto":
        return ("serial" if alone else "process"), count
    return name, count


def make_executor(
    name: str,
    work: Work,
    workers: int | None,
    threads: int,
    heartbeat: float | None = None,
    devices: Sequence[Mapping[str, str]] = EVERYWHERE,
) -> Executor:
    """Return the executor `name` (`serial`, `process`, or `ray` with its defaults) for `work`.

    `threads` are the numeric threads of one worker. `heartbeat`: seconds without a sign of life after which a worker is replaced; None
    waits for ever. `devices`: see `ProcessExecutor`. `workers` None is as many as a cluster has room for.

    Raises ConfigError for an executor there is none of.
    """
    if name == "serial":
        return SerialExecutor(work)
    if name == "process":
        return ProcessExecutor(work, workers or 1, threads=threads, heartbeat=heartbeat, devices=devices)
    if name == "ray":
        return make_ray_executor(work, workers, threads=threads, heartbeat=heartbeat)
    raise _unknown(name)


def make_ray_executor(
    work: Work,
    workers: int | None,
    *,
    needs: Needs = A_CPU,
    threads: int = 1,
    heartbeat: float | None = None,
    address: str = "auto",
    folder: Path | None = None,
) -> RayExecutor:
    """Return an executor on a Ray cluster; see `RayExecutor`.

    Raises ConfigError where ray is not installed, or there is no such cluster.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in RAY_SETTINGS.items()})
    try:
        from hptune.executors.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("ray is not installed: pip install 'hptune[ray]'", key="executor.name") from error
    return RayExecutor(work, workers, needs=needs, threads=threads, heartbeat=heartbeat, address=address, folder=folder)


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"unknown executor {name!r}: use auto, serial, process or ray", key="executor.name")
