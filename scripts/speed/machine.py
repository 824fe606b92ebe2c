"""The machine, the versions and the moment a measurement belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"

PACKAGES = ("torch", "torchvision", "numpy", "torch-lr-finder", "fastai", "lightning", "optuna")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, instruction sets, versions, date and git commit, as plain values."""
    import torch

    from hptune.engine.numerics import device_model
    from hptune.executors.factory import available_cores
    from hptune.version import __version__

    return {
        "processor": device_model(torch.device("cpu")),
        "cores": available_cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16 instructions": has_bf16(),
        "versions": {"hptune": __version__, **{name: _version(name) for name in PACKAGES}},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def results_file(kind: str, machine: Mapping[str, Any]) -> Path:
    """Where results of a kind are kept for a machine and a day, unless the command line says otherwise."""
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["processor"]).lower()).strip("-")
    return RESULTS / f"{kind}-{slug}-{machine['date'][:10]}.json"


def has_bf16() -> bool:
    """Whether this processor computes in bf16 itself, by the engine's own rule."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def load_average() -> list[float]:
    """Running processes, averaged over 1, 5 and 15 minutes: what else the machine was doing."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def file_system(path: Path) -> str:
    """The kind of file system `path` is on: on tmpfs an fsync costs nothing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    holding = [m for m in mounts if path.resolve().is_relative_to(m[1])]
    return max(holding, key=lambda m: len(m[1]))[2] if holding else "unknown"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit, with a plus where the working tree differs from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
