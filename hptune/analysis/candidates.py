"""Candidates with their repeated, paired trials, and the scales on which their losses and metrics are compared.

With two or three seeds an interval from one candidate alone says nothing, so noise is pooled over candidates and stages. Seed noise is
large: arXiv 2304.01910.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hptune.analysis.additive import fit_additive
from hptune.analysis.scale import MIN_DF, Scale
from hptune.trial import Hyperparameters, TrialRecord, is_result

FAR_OFF = math.log(2)  # log loss this far above the best: another regime, whose noise says nothing about the best
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Residual sum of squares of log loss and its degrees of freedom; `+` pools two."""

    sum_squares: float = 0.0
    df: int = 0

    def __add__(self, other: Noise) -> Noise:
        return Noise(sum_squares=self.sum_squares + other.sum_squares, df=self.df + other.df)

    @property
    def sd(self) -> float:
        """Pooled standard deviation of one trial's log loss; NaN without degrees of freedom."""
        return math.sqrt(self.sum_squares / self.df) if self.df > 0 else math.nan


NO_NOISE = Noise()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is compared: the swept `values` by column, and all trials of it, any repetition, any status."""

    values: tuple[tuple[str, float | int | str], ...]
    hyperparameters: Hyperparameters
    records: tuple[TrialRecord, ...]


def is_usable(candidate: Candidate, by_metric: bool) -> bool:
    """Whether all trials completed with a loss, and `by_metric` with a metric, that can be compared."""
    return bool(candidate.records) and all(r.usable and (not by_metric or is_result(r.metric)) for r in candidate.records)


def loss_scale(candidates: Sequence[Candidate], prior: Noise, *, far_tell: bool = False) -> tuple[Scale, Noise]:
    """The scale losses are compared on, and these candidates' own noise of log loss.

    Far-off candidates are no part of the noise. `far_tell`: unless what is near the best tells too little of it, and their pairs with
    the best more; for the winner and one far-off candidate alone that is the paired t-test.
    """
    cells, losses = _cells(candidates, lambda record: record.val_loss)
    if any(loss <= 0 for loss in losses):
        return _raw_scale(cells, losses, sign=1), Noise()
    values = [math.log(loss) for loss in losses]
    fit = fit_additive(cells, values)
    far = frozenset(np.flatnonzero(fit.means - fit.means.min(initial=math.inf) > FAR_OFF).tolist())
    near = fit_additive(cells, values, set_aside=far) if far else fit
    noise = Noise(sum_squares=near.sum_squares, df=near.df)
    pooled = noise + prior
    if far_tell and pooled.df < MIN_DF <= fit.df:
        pooled = Noise(sum_squares=fit.sum_squares, df=fit.df)
    else:
        fit = near
    return Scale(fit=fit, logarithmic=True, sign=1, sum_squares=pooled.sum_squares, df=pooled.df, rounding=ROUNDING), noise


def metric_scale(candidates: Sequence[Candidate], larger_is_better: bool) -> Scale:
    """The scale metrics are compared on."""
    cells, metrics = _cells(candidates, lambda record: record.metric)
    return _raw_scale(cells, metrics, sign=-1 if larger_is_better else 1)


def adjusted_metrics(candidates: Sequence[Candidate]) -> list[float]:
    """The adjusted mean metric of each candidate; NaN for those of which a trial has none."""
    measured = [i for i, candidate in enumerate(candidates) if all(is_result(r.metric) for r in candidate.records)]
    means = fit_additive(*_cells([candidates[i] for i in measured], lambda record: record.metric)).means
    found = dict(zip(measured, means, strict=True))
    return [float(found.get(i, math.nan)) for i in range(len(candidates))]


def _raw_scale(cells: Sequence[tuple[int, int]], values: Sequence[float], *, sign: int) -> Scale:
    fit = fit_additive(cells, values)
    rounding = ROUNDING * max((abs(value) for value in values), default=0.0) or ROUNDING
    return Scale(fit=fit, logarithmic=False, sign=sign, sum_squares=fit.sum_squares, df=fit.df, rounding=rounding)


def _cells(candidates: Sequence[Candidate], quantity: Callable[[TrialRecord], float]) -> tuple[list[tuple[int, int]], list[float]]:
    cells = [(i, record.spec.repetition) for i, candidate in enumerate(candidates) for record in candidate.records]
    return cells, [quantity(record) for candidate in candidates for record in candidate.records]
