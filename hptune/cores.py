"""How many CPU cores there are for this process."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cores() -> int:
    """CPU cores this process may use: its affinity, and within that a container's CPU limit (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or the quota is "max"
        return cores
