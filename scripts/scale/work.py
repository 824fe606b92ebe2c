"""A training that costs nothing: its record and its curve are made up from the trial's own id, in any process."""

from __future__ import annotations

import math
import random
import time
from typing import Any

from hptune.trial import Curve, CurveSummary, TrialOutcome, TrialRecord, TrialSpec

LEVEL, SPREAD, SEED_EFFECT, NOISE = 0.3, 0.01, 0.05, 0.02  # of log loss: candidates differ by less than trials of one of them
BLOCKS = 16
PER_STEP = ("lr", "momentum", "train_loss")


def perform(item: Any) -> TrialOutcome:
    """Return the made-up outcome of the trial among an item's parts; its `seconds` are what making it up took."""
    began = time.perf_counter()
    spec = next(part for part in item if isinstance(part, TrialSpec))
    points = spec.evaluate_at
    falling = tuple(_loss(spec) * (1 + 0.2 * (len(points) - 1 - i)) for i in range(len(points)))
    training = tuple(loss * 0.9**i for i, loss in enumerate(falling, start=1))
    loss = falling[-1]
    summary = CurveSummary(
        step=points, lr=(spec.hyperparameters.lr,) * len(points), train_loss=training, val_loss=falling, metric=(1 - loss,) * len(points)
    )
    record = TrialRecord(
        spec=spec,
        status="completed",
        val_loss=loss,
        metric=1 - loss,
        best_val_loss=loss,
        best_metric=1 - loss,
        train_loss=training[-1],
        val_block_losses=tuple(loss * (1 + 0.01 * i) for i in range(BLOCKS)),
        curve=summary,
        steps=spec.steps,
        samples=spec.samples,
        seconds=time.perf_counter() - began,
    )
    return TrialOutcome(record, _curve(spec, dict(zip(points, falling, strict=True))))


def _loss(spec: TrialSpec) -> float:
    """Log loss is quadratic in log10 of weight decay, whatever the LR, with the seed's own effect and noise."""
    draw, common = random.Random(spec.trial_id), random.Random(spec.seed)
    off = math.log10(max(spec.hyperparameters.weight_decay, 1e-8)) + 3
    return math.exp(math.log(LEVEL) + SPREAD * off**2 + common.gauss(0, SEED_EFFECT) + draw.gauss(0, NOISE))


def _curve(spec: TrialSpec, measured: dict[int, float]) -> Curve:
    """A row a step, as the engine leaves it."""
    steps: list[float | int | None] = list(range(1, spec.steps + 1))
    return Curve(
        {
            "step": steps,
            **{name: [1.0 / (step + offset) for step in range(spec.steps)] for offset, name in enumerate(PER_STEP, start=3)},
            "val_loss": [measured.get(step) for step in range(1, spec.steps + 1)],
        }
    )
