"""What a trial costs in seconds, as measured: from the built-in figures or a recorded run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hptune.stages.base import EVALUATIONS
from hptune.store.journal import replay
from hptune.store.layout import RunLayout
from hptune.trial import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a trial and of what surrounds it.

    `speeds`: training samples per second of a whole trial, its evaluations included, by batch size; other sizes have the nearest one's.
    `overhead`: seconds of a worker for a trial besides. `driver`: seconds of the driver for a result, one after the other (planning
    aside). `start`: seconds until a worker has loaded its code and data.
    """

    name: str
    train_samples: int
    val_samples: int
    speeds: Mapping[int, float]
    overhead: float
    driver: float
    start: float
    source: str

    def seconds(self, samples: int, batch_size: int) -> float:
        """Of a trial that trains on so many samples."""
        nearest = min(self.speeds, key=lambda size: (max(size, batch_size) / min(size, batch_size), size))
        return samples / self.speeds[nearest] + self.overhead

    def seconds_per_step(self, batch_size: int) -> float:
        return self.seconds(batch_size, batch_size) - self.overhead


DIGITS = Costs(
    name="digits",
    train_samples=1079,
    val_samples=359,
    speeds={32: 1550.0, 64: 4180.0, 128: 2070.0},
    overhead=0.01,
    driver=0.002,
    start=4.0,
    source="configs/digits.yaml by two processes on two busy cores of a Xeon at 2.5 GHz; overhead and start are guessed",
)
RESNET = Costs(
    name="resnet56",
    train_samples=40_000,
    val_samples=10_000,
    speeds={64: 15_000.0, 128: 27_000.0, 256: 40_000.0, 512: 47_000.0},
    overhead=0.3,
    driver=0.002,
    start=40.0,
    source="512: 10.3 ms a step on an H200 (results/gpu-nvidia-h200-2026-11-26.json); other sizes, overhead and start are guessed",
)
BUILT_IN = {costs.name: costs for costs in (DIGITS, RESNET)}


def of_run(folder: Path) -> Costs:
    """The costs of the trials recorded in a run directory; raises SystemExit where it holds none."""
    state = replay(RunLayout(folder).journal)
    by_size: dict[int, list[TrialRecord]] = {}
    for record in state.records.values():
        if record.status == "completed" and record.seconds > 0 and len(record.spec.evaluate_at) == EVALUATIONS:
            by_size.setdefault(record.spec.hyperparameters.batch_size, []).append(record)
    if not by_size:
        raise SystemExit(f"{folder}: no trial that completed is recorded there")
    task = next(reversed(state.tasks.values()))
    speeds = {size: statistics.median(r.samples_per_second for r in records) for size, records in sorted(by_size.items())}
    return Costs(
        name=folder.name,
        train_samples=task["train_samples"],
        val_samples=task["val_samples"],
        speeds=speeds,
        overhead=DIGITS.overhead,
        driver=DIGITS.driver,
        start=DIGITS.start,
        source=f"the trials of {folder.name}",
    )
