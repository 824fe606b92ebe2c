"""A made-up training whose best settings are known: records for stages without a tensor."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hptune.analysis.curves import MINIMUM_OVER_BEST
from hptune.config.schema import Experiment
from hptune.schedules import Schedule, tabulate
from hptune.stages.base import Knowledge, Stage
from hptune.trial import CurveSummary, Hyperparameters, Numerics, Task, TrialRecord, TrialSpec

START = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
TASK = Task(
    task_id="t1", identity={}, train_samples=1280, val_samples=320, test_samples=320, classes=10, parameters=100, numerics=Numerics()
)


def experiment(**changes: Any) -> Experiment:
    tree: dict[str, Any] = {
        "name": "made up",
        "data": {"name": "digits"},
        "model": {"name": "linear"},
        "budget": {"epochs": 10, "search_epochs": 2},
        "stages": {"batch_size": {"values": [32, 64, 128], "compare": "samples"}, "confirm": {"seeds": 2}},
    }
    return Experiment.model_validate({**tree, **changes})


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Log loss is quadratic in log10 LR, log10 weight decay, momentum and log2 batch around the best values."""

    lr: float = 0.2
    weight_decay: float = 1e-3
    momentum: float = 0.9
    batch_size: int = 64
    decay_curvature: float = 0.05
    batch_curvature: float = 0.02
    momentum_curvature: float = 20.0
    noise: float = 0.005
    seed_effect: float = 0.05
    diverges_above: float = 3.0
    level: float = 0.3

    def log_loss(self, h: Hyperparameters) -> float:
        decay = math.log10(max(h.weight_decay, 1e-7) / self.weight_decay)
        best_lr = self.lr * (h.batch_size / 64) ** 0.7
        return (
            math.log(self.level)
            + 0.5 * math.log10(h.lr / best_lr) ** 2
            + self.decay_curvature * decay**2
            + self.momentum_curvature * (h.momentum - self.momentum) ** 2
            + self.batch_curvature * math.log2(h.batch_size / self.batch_size) ** 2
        )

    def __call__(self, spec: TrialSpec) -> TrialRecord:
        h = spec.hyperparameters
        if spec.schedule.kind == "ramp":
            return self._ramp(spec)
        draw = random.Random(spec.trial_id)
        common = random.Random(spec.seed).gauss(0, self.seed_effect)
        if h.lr > self.diverges_above:
            return TrialRecord(spec=spec, status="diverged", steps=5, samples=5 * h.batch_size, seconds=0.1)
        loss = math.exp(self.log_loss(h) + common + draw.gauss(0, self.noise))
        points = len(spec.evaluate_at)
        falling = tuple(loss * (1 + 0.2 * (points - 1 - i)) for i in range(points))
        curve = CurveSummary(step=spec.evaluate_at, lr=(h.lr,) * points, train_loss=falling, val_loss=falling, metric=(1 - loss,) * points)
        test = spec.test
        return TrialRecord(
            spec=spec,
            status="completed",
            val_loss=loss,
            best_val_loss=loss,
            metric=1 - loss,
            best_metric=1 - loss,
            train_loss=loss,
            curve=curve,
            steps=spec.steps,
            samples=spec.samples,
            seconds=1.0,
            test_loss=loss * 1.1 if test else math.nan,
            test_metric=1 - loss if test else math.nan,
            test_block_losses=tuple(loss * (1 + 0.01 * i) for i in range(32)) if test else (),
        )

    def _ramp(self, spec: TrialSpec) -> TrialRecord:
        table = tabulate(spec.schedule, steps=spec.steps, lr=spec.hyperparameters.lr, momentum=0.9, momentum_min=0.9)
        lowest = self.lr * MINIMUM_OVER_BEST
        lrs, losses = [], []
        for step in spec.evaluate_at:
            lr = float(table.lr[step - 1])
            if lr > 4 * self.diverges_above:
                break
            lrs.append(lr)
            losses.append(2.3 * (0.2 + 0.8 * min(1.0, abs(math.log10(lr / lowest)) / 2)))
        curve = CurveSummary(
            step=spec.evaluate_at[: len(lrs)], lr=tuple(lrs), train_loss=tuple(losses), val_loss=tuple(losses), metric=(0.5,) * len(lrs)
        )
        return TrialRecord(
            spec=spec,
            status="completed",
            val_loss=losses[-1] if losses else math.nan,
            curve=curve,
            steps=spec.steps,
            samples=spec.samples,
            seconds=1.0,
        )


def knowledge(**changes: object) -> Knowledge:
    """A plain one: 1,280 training samples, short runs of 2 of 10 epochs."""
    plain = Knowledge(
        task="task",
        numerics=Numerics(),
        train_samples=1280,
        val_samples=320,
        test_samples=320,
        optimizer="sgd",
        schedule=Schedule(),
        start=START,
        baseline=START,
        short_epochs=2.0,
        full_epochs=10.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def go(stage: Stage, k: Knowledge, train: Callable[[TrialSpec], TrialRecord]) -> tuple[list[TrialRecord], list[int]]:
    """Run a stage to its end; returns its records in plan order and the sizes of its rounds."""
    done: list[TrialRecord] = []
    rounds: list[int] = []
    while new := stage.plan(k, done):
        assert len({spec.trial_id for spec in new}) == len(new)
        assert not {spec.trial_id for spec in new} & {record.trial_id for record in done}
        rounds.append(len(new))
        done += [train(spec) for spec in new]
        assert len(rounds) < 100, "the stage never ends"
    return done, rounds


def lrs(records: Sequence[TrialRecord]) -> set[float]:
    return {record.spec.hyperparameters.lr for record in records if record.spec.schedule.kind != "ramp"}
