"""What a training leaves step by step: its losses and evaluations, and the rule that stops it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hptune.analysis.wording import format_number
from hptune.engine.ranks import ALONE, Ranks
from hptune.schedules import Table
from hptune.trial import Curve, CurveSummary, StopRule

CURVE_ROWS = 2000
REFERENCE_SAMPLES = 256  # the loss of an untrained model is averaged over so many, if one window of steps holds them


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Validation loss and metric after `step` steps; `block_losses` as in `Measurement`, of the last evaluation alone."""

    step: int
    loss: float
    metric: float
    block_losses: tuple[float, ...] = ()


class Series:
    """Training losses of each step, kept on the device until they are asked for, and evaluations.

    Of several ranks each keeps numbers whose mean is the loss; all ask for as many steps at the same time.
    """

    def __init__(self, steps: int, device: torch.device, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.on_device = torch.zeros(steps, device=device)
        self.evaluations: list[Evaluation] = []
        self._losses = np.zeros(0)

    @property
    def read(self) -> int:
        """Steps whose losses have been asked for."""
        return len(self._losses)

    def losses(self, done: int) -> NDArray[np.float64]:
        """Return the losses of the first `done` steps; those not read yet are read in one transfer."""
        known = len(self._losses)
        if done > known:
            new = self._ranks.sum(self.on_device[known:done]).cpu().numpy().astype(np.float64) / self._ranks.size
            self._losses = np.concatenate([self._losses, new])
        return self._losses[:done]

    def restore(self, losses: torch.Tensor, evaluations: list[Evaluation]) -> None:
        """Begin with these losses, of as many steps, and evaluations."""
        self._losses, self.evaluations = losses.numpy().astype(np.float64), list(evaluations)

    def diverged(self, done: int, rule: StopRule, batch_size: int) -> bool:
        """Whether `rule` ends the training after `done` steps."""
        return self.divergence(done, rule, batch_size) is not None

    def divergence(self, done: int, rule: StopRule, batch_size: int) -> str | None:
        """Why `rule` ends the training after `done` steps, in a sentence, or None where it goes on: see `StopRule`.

        The reference is the mean loss of the first steps: one window of them, or as few as make up 256 samples, since a training
        that explodes at once would raise its own bar.
        """
        losses = self.losses(done)
        broken = np.flatnonzero(~np.isfinite(losses))
        if broken.size:
            return f"the training loss was {losses[broken[0]]:g} at step {broken[0] + 1}"
        if self.evaluations and not math.isfinite(self.evaluations[-1].loss):
            last = self.evaluations[-1]
            return f"the validation loss was {last.loss:g} after {last.step} steps, while the training loss was finite"
        if done < rule.window:
            return None
        first = min(rule.window, -(-REFERENCE_SAMPLES // batch_size))
        reference = float(losses[:first].mean())
        if rule.relative_to_best:
            whole = losses[: done - done % rule.window].reshape(-1, rule.window).mean(axis=1)
            reference = min(reference, float(whole.min()))
        recent = float(losses[done - rule.window :].mean())
        if recent <= reference + (rule.factor - 1) * abs(reference):
            return None
        where = "its lowest" if rule.relative_to_best else "the first steps"
        return f"the training loss rose to {format_number(recent)}, from {format_number(reference)} at {where}"

    def train_loss(self, done: int) -> float:
        """Mean loss over the steps after the last-but-one evaluation; NaN without any step."""
        ends = [e.step for e in self.evaluations if e.step < done]
        return _mean(self.losses(done)[ends[-1] if ends else 0 :])

    def recent(self, done: int, steps: int = 50) -> float:
        """Mean loss over the last `steps` steps; NaN without any step."""
        return _mean(self.losses(done)[-steps:])

    def summary(self, table: Table) -> CurveSummary:
        """Return the curve at the evaluation points."""
        ends = [e.step for e in self.evaluations]
        losses = self.losses(ends[-1] if ends else 0)
        return CurveSummary(
            step=tuple(ends),
            lr=tuple(float(table.lr[end - 1]) for end in ends),
            train_loss=tuple(_mean(losses[start:end]) for start, end in zip([0, *ends], ends, strict=False)),
            val_loss=tuple(e.loss for e in self.evaluations),
            metric=tuple(e.metric for e in self.evaluations),
        )

    def curve(self, table: Table, done: int) -> Curve:
        """Return at most 2000 rows: training losses averaged over the steps of a row, every evaluation in a row of its own step."""
        measured = {e.step: e for e in self.evaluations}
        stride = max(1, math.ceil(done / max(1, CURVE_ROWS - len(measured))))
        rows = sorted({*range(stride, done + 1, stride), *measured})
        losses = self.losses(done)
        columns: dict[str, list[Any]] = {
            "step": list(rows),
            "lr": [float(table.lr[row - 1]) for row in rows],
            "momentum": [float(table.momentum[row - 1]) for row in rows],
            "train_loss": [_mean(losses[start:row]) for start, row in zip([0, *rows], rows, strict=False)],
            "val_loss": [measured[row].loss if row in measured else None for row in rows],
            "metric": [measured[row].metric if row in measured else None for row in rows],
        }
        return Curve(columns)


def _mean(values: NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore"):  # infinite losses of both signs have no mean
        return float(values.mean()) if len(values) else math.nan
