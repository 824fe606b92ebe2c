"""What a worker takes of a cluster's nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Needs:
    """What one worker takes of a node.

    GPUs may be fractions, so that several workers share one. `gpus_if_any`: what it takes instead where the cluster has GPUs.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    gpus_if_any: float = 0.0

    def fit(self, resources: Mapping[str, float]) -> int:
        """How many workers a node with these `resources` holds."""
        by_cpu = math.floor(resources.get("CPU", 0.0) / self.cpus + 1e-9) if self.cpus else 10**6
        if not self.gpus:
            return by_cpu
        gpus = resources.get("GPU", 0.0)
        by_gpu = gpus * math.floor(1 / self.gpus + 1e-9) if self.gpus < 1 else gpus // self.gpus
        return min(by_cpu, int(by_gpu))

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
