"""From paired trials to verdicts: every figure with its 95 % interval, and a claim that holds, does not, or is not decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hptune.analysis.additive import fit_additive
from hptune.analysis.quantiles import student, studentized_range
from hptune.trial import TrialRecord

Verdict = Literal["holds", "does not hold", "not decided"]
NEAREST = 1  # points of a grid on either side of its best one through which a parabola is laid; losses rise unlike on its two sides
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; infinite where one side of a comparison diverged."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found for one statement, beside what the report says. `wanted`: what the interval was held against, in words."""

    statement: str
    ours: Estimate
    unit: str
    wanted: str
    verdict: Verdict
    figure: str = ""
    paper: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What a figure shows: points with `x`, `y`, `series`, one a seed. `log`: whether the x axis is; `lines` join means."""

    figure: str
    title: str
    x: str
    y: str
    rows: Sequence[Mapping[str, Any]]
    log: bool = False
    lines: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a claim comes to in a setup. `tables`: by title, as the report prints them."""

    findings: Sequence[Finding]
    panels: Sequence[Panel] = ()
    tables: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)


def held(statement: str, ours: Estimate, unit: str, *, above: float = -math.inf, below: float = math.inf, **more: str) -> Finding:
    """A figure that is wanted `above` and `below`: decided only where its whole interval lies on one side of each limit."""
    limits = [f"{word} {limit:.3g}" for word, limit in (("above", above), ("below", below)) if math.isfinite(limit)]
    return Finding(
        statement=statement, ours=ours, unit=unit, wanted=" and ".join(limits), verdict=judged(ours, above=above, below=below), **more
    )


def accuracy(record: TrialRecord) -> float:
    """Per cent of the test images that are classified right."""
    return 100 * record.test_metric


def log_loss(record: TrialRecord) -> float:
    """Logarithm of the test loss: its differences are ratios."""
    return math.log(record.test_loss)


def validation_loss(record: TrialRecord) -> float:
    """Logarithm of the validation loss, by which settings are chosen that are then compared on the test images."""
    return math.log(record.val_loss)


def judged(ours: Estimate, *, above: float = -math.inf, below: float = math.inf) -> Verdict:
    """Whether a figure lies between `above` and `below`: decided only where its whole interval lies on one side of each limit."""
    inside = [limit_met for limit, limit_met in ((above, ours.low > above), (below, ours.high < below)) if math.isfinite(limit)]
    outside = [passed for limit, passed in ((above, ours.high <= above), (below, ours.low >= below)) if math.isfinite(limit)]
    return "holds" if all(inside) else "does not hold" if any(outside) else "not decided"


class Compared:
    """Settings with common seeds, compared in pairs on one scale; the noise is pooled over all of them (two-way additive model).

    A setting of which any trial diverged has no mean, and is worse than any other.
    """

    def __init__(self, settings: Mapping[Any, Sequence[TrialRecord]], value: Callable[[TrialRecord], float] = accuracy) -> None:
        usable = {name: records for name, records in settings.items() if all(r.usable and math.isfinite(value(r)) for r in records)}
        self.lost = tuple(name for name in settings if name not in usable)
        self._at = {name: i for i, name in enumerate(usable)}
        cells = [(self._at[name], r.spec.repetition) for name, records in usable.items() for r in records]
        self._fit = fit_additive(cells, [value(r) for records in usable.values() for r in records])

    @property
    def names(self) -> tuple[Any, ...]:
        """The settings that all seeds completed."""
        return tuple(self._at)

    def mean(self, name: Any) -> float:
        """Mean over the seeds, adjusted for their common effects; NaN for a setting that was lost."""
        return float(self._fit.means[self._at[name]]) if name in self._at else math.nan

    def best(self, among: Sequence[Any] | None = None, *, largest: bool = True) -> Any:
        """The setting with the largest (smallest) mean; the first of those asked for where all were lost."""
        asked = (*self.names, *self.lost) if among is None else among
        known = [name for name in asked if name in self._at]
        return (max if largest else min)(known, key=self.mean) if known else asked[0]

    def interval(self, name: Any) -> Estimate:
        """The mean with its interval, the seeds taken as they are."""
        if name not in self._at:
            return Estimate(value=math.nan, low=math.nan, high=math.nan)
        at = self._at[name]
        return _around(self.mean(name), self._half(self._fit.variance(at), 1))

    def shown(self, name: Any) -> str:
        """The mean with its interval, as tables have it."""
        found = self.interval(name)
        return "diverged" if name in self.lost else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"

    def difference(self, a: Any, b: Any, *, chosen_from: int = 1) -> Estimate:
        """Mean of `a` minus that of `b`.

        `chosen_from`: `b` is the best of so many, or `a` is; the interval then holds for all such differences together (Tukey).
        """
        if a not in self._at or b not in self._at:
            worst = math.nan if a not in self._at and b not in self._at else -math.inf if a not in self._at else math.inf
            return Estimate(value=worst, low=worst, high=worst)
        variance = self._fit.variance_of_difference(self._at[a], self._at[b])
        return _around(self.mean(a) - self.mean(b), self._half(variance, chosen_from))

    def _half(self, variance: float, chosen_from: int) -> float:
        df = self._fit.df
        if df < 1:
            return math.inf
        quantile = student(0.5 + CONFIDENCE / 2, df)
        if chosen_from > 1:
            quantile = studentized_range(CONFIDENCE, chosen_from + 1, max(df, 3)) / math.sqrt(2)
        return quantile * math.sqrt(variance * self._fit.sum_squares / df)


def over_seeds(values: Sequence[float], *, together: int = 1) -> Estimate:
    """The mean of one value a seed, with Student's interval. `together`: so many such intervals hold at once (Bonferroni)."""
    n = len(values)
    middle = float(np.mean(values))
    if n < 2:
        return Estimate(value=middle, low=-math.inf, high=math.inf)
    quantile = student(1 - (1 - CONFIDENCE) / (2 * together), n - 1)
    return _around(middle, quantile * float(np.std(values, ddof=1)) / math.sqrt(n))


def powers(estimate: Estimate, base: float = 10.0) -> Estimate:
    """From a logarithm to what it is the logarithm of."""
    return Estimate(value=base**estimate.value, low=base**estimate.low, high=base**estimate.high)


def share_of(successes: int, trials: int) -> Estimate:
    """A probability, with its Clopper-Pearson interval."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return Estimate(value=successes / trials, low=low, high=high)


def optima(grid: Mapping[float, Sequence[TrialRecord]], value: Callable[[TrialRecord], float] = log_loss) -> list[float]:
    """Common logarithm of the best place of a grid of positive values, one a seed.

    Each seed has a parabola through the points around the best one of all seeds together, and its lowest place between them; a seed
    whose points bend downwards has its lowest point. Settings that diverged are no points.
    """
    places = sorted(x for x, records in grid.items() if all(r.usable for r in records))
    height = np.array([[value(r) for r in grid[x]] for x in places])
    best = int(np.argmin(height.mean(axis=1)))
    near = slice(max(0, best - NEAREST), best + NEAREST + 1)
    x, found = np.log10(places[near]), []
    for y in height[near].T:
        bend, slope, _ = np.polyfit(x, y, 2) if len(x) > 2 else (0.0, 0.0, 0.0)
        vertex = -slope / (2 * bend) if bend > 0 else x[int(np.argmin(y))]
        found.append(float(np.clip(vertex, x[0], x[-1])))
    return found


def at_the_edge(grid: Mapping[float, Sequence[TrialRecord]], value: Callable[[TrialRecord], float] = log_loss) -> bool:
    """Whether the best mean lies at an end of the grid, so that the optimum may lie beyond it."""
    places = sorted(x for x, records in grid.items() if all(r.usable for r in records))
    means = [float(np.mean([value(r) for r in grid[x]])) for x in places]
    return int(np.argmin(means)) in (0, len(places) - 1)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, ties sharing their mean rank; NaN where one side does not vary."""
    ranks = [_ranks(np.asarray(values)) for values in (a, b)]
    if any(np.ptp(values) == 0 for values in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Any) -> Any:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


def _around(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)
