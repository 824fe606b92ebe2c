"""Records full of numbers that no comparison must be won by: the made-up training of `surfaces`, spoiled at random."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from surfaces import Surface

from hptune.trial import CurveSummary, Status, TrialRecord, TrialSpec

ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, -2.5, 5e-324, 1e-310, 1e308, -1e308, 1.7e308, 1e160, 0.3, 0.5, 1e-30)
NUMBERS = ("val_loss", "metric", "best_val_loss", "best_metric", "train_loss", "test_loss", "test_metric", "seconds")
SERIES = ("val_block_losses", "test_block_losses", "curve")
STATUSES: tuple[Status, ...] = ("completed", "diverged", "out_of_memory", "failed")


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """Trains as `surface` says, then puts one of `values` into each of `fields` of a `share` of the records, by chance.

    Those records end in one of `statuses`; the same spec always gives the same record.
    """

    seed: int
    share: float
    fields: Sequence[str]
    values: Sequence[float]
    statuses: Sequence[Status] = ("completed",)
    surface: Surface = field(default_factory=Surface)

    def __call__(self, spec: TrialSpec) -> TrialRecord:
        record = self._with_blocks(self.surface(spec))
        draw = random.Random(f"{self.seed}/{spec.trial_id}")
        if draw.random() >= self.share:
            return record
        status = draw.choice(self.statuses)
        changes: dict[str, Any] = {name: self._spoiled(record, name, draw) for name in self.fields}
        return replace(record, **changes, status=status, error=None if status == "completed" else "it went wrong")

    def _spoiled(self, record: TrialRecord, name: str, draw: random.Random) -> Any:
        if name in NUMBERS:
            return draw.choice(self.values)
        if name != "curve":
            return self._some(getattr(record, name), draw)
        curve = record.curve
        return replace(curve, **{part: self._some(getattr(curve, part), draw) for part in ("val_loss", "train_loss", "metric")})

    def _some(self, series: tuple[float, ...], draw: random.Random) -> tuple[float, ...]:
        return tuple(draw.choice(self.values) if draw.random() < 0.3 else value for value in series)

    def _with_blocks(self, record: TrialRecord) -> TrialRecord:
        if record.status != "completed" or record.spec.schedule.kind == "ramp":
            return record
        train = tuple(loss * 0.8 ** (i + 1) for i, loss in enumerate(record.curve.train_loss))
        curve: CurveSummary = replace(record.curve, train_loss=train)
        return replace(record, val_block_losses=tuple(record.val_loss * (1 + 0.01 * i) for i in range(16)), curve=curve)
