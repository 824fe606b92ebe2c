"""Ranking candidates from repeated, paired trials: pooled noise, adjusted means, intervals, verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hptune.trial import Hyperparameters

Verdict = Literal["best", "tied", "worse", "diverged", "out_of_memory", "failed"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate of a ranked table; `values` are the swept columns, NaN means an empty cell."""

    values: tuple[tuple[str, float | int | str], ...]
    hyperparameters: Hyperparameters
    val_loss: float = math.nan
    val_loss_low: float = math.nan
    val_loss_high: float = math.nan
    metric: float = math.nan
    train_loss: float = math.nan
    seeds: int = 0
    chosen: bool = False
    verdict: Verdict = "failed"
    clue: str = ""
    steps: int = 0
    samples: int = 0
    samples_per_second: float = math.nan
    seconds: float = 0.0
    trials: tuple[str, ...] = ()
