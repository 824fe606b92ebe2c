"""Ranking candidates from repeated, paired trials: pooled noise, adjusted means, intervals, verdicts.

With two or three seeds an interval from one candidate alone says nothing, so noise is pooled over candidates and stages. The
lowest adjusted mean is *chosen*; that a candidate is worse than the best is *claimed* only by a simultaneous 95 % comparison
(Tukey-Kramer), and never with fewer than `MIN_DF` degrees of freedom. Seed noise is large: arXiv 2304.01910.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hptune.analysis.additive import fit_additive
from hptune.analysis.diagnosis import summarize_clues
from hptune.analysis.scale import MIN_DF, Scale, exponential
from hptune.analysis.wording import format_number
from hptune.trial import Hyperparameters, TrialRecord, is_result

Verdict = Literal["best", "tied", "worse", "diverged", "out_of_memory", "failed"]
Criterion = Literal["val_loss", "metric"]

FAR_OFF = math.log(2)  # log loss this far above the best: another regime, whose noise says nothing about the best
RACE_DEVIATIONS = 4.0  # of a difference of two trials: what lies further behind is out of the race
RACE_CONFIDENCE = 0.995  # and not told apart at this level: dropping sooner, where noise is known poorly, costs false claims
RACE_SHARE = 0.05  # a candidate this near to the best stays in the race, however small the noise
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate of a ranked table; `values` are the swept columns, NaN means an empty cell.

    `val_loss` and `metric`: means over the seeds adjusted for common-seed effects (the loss's geometric, where losses are
    positive); `val_loss_low` and `val_loss_high` its 95 % interval, the seeds taken as they are. `train_loss`: plain mean. `seeds`:
    completed trials. `steps` and `samples`: a trial's mean, rounded; `seconds`: sum over the trials; `samples_per_second`: all
    samples over all seconds. A candidate of which any trial did not complete has no loss; its `verdict` is the worst such status
    (diverged, then out_of_memory, then failed); completed without a loss that is a result counts as diverged, without the metric that
    is ranked by as failed.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One candidate against another.

    `ratio`: of their adjusted losses, with its simultaneous 95 % interval; NaN where losses are not all positive, `low` and `high`
    also where no interval can be given. `claim`: whether the two differ at that level in what the ranking goes by; `better`:
    whether they do in favour of the first.
    """

    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    claim: bool = False
    better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The best candidate of a comparison still under way: adjusted mean loss, 95 % interval as in `Row`."""

    hyperparameters: Hyperparameters
    val_loss: float
    val_loss_low: float
    val_loss_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Rows sorted best first, those without a usable loss last; exactly one is `best` where any is usable.

    `noise`: of log loss among these candidates alone, for later stages to pool (none where losses are not all positive).
    `criterion`: what the ranking goes by. `loss` and `scale`: fits of the loss and of the criterion; the first rows, one for each
    of their candidates, are numbered there by `positions`.
    """

    rows: tuple[Row, ...]
    noise: Noise
    criterion: Criterion
    larger_is_better: bool
    loss: Scale
    scale: Scale
    positions: tuple[int, ...]

    @property
    def best(self) -> Row | None:
        """The first row; None where no candidate is usable."""
        return self.rows[0] if self.positions else None

    @property
    def pooled(self) -> Noise:
        """Noise of what the ranking goes by, the prior included: what intervals and claims rest on."""
        return Noise(sum_squares=self.scale.sum_squares, df=self.scale.df)

    def near_equal(self) -> tuple[Row, ...]:
        """The rows a safer or cheaper choice may be made from, the best first.

        They lie within one pooled standard error of the difference and cost at most 1 % of the best one's loss (and, ranking by
        metric, of its metric); where the standard error is not known, the 1 % alone decides.
        """
        return tuple(row for row, at in zip(self.rows, self.positions, strict=False) if self._near_equal(at))

    def within_standard_error(self, row: Row, of: Row | None = None) -> bool:
        """Whether `row` lies within one pooled standard error of the difference to `of`, by default the best row.

        Where the standard error is not known, within 1 %.
        """
        at = self._position(row)
        if at is None:
            return False
        other = self.positions[0] if of is None else self._position(of)
        return other is not None and self.scale.within_standard_error(at, other)

    def choose(self, row: Row) -> Ranking:
        """Return the ranking with `row` alone marked as chosen."""
        return replace(self, rows=tuple(replace(other, chosen=other.trials == row.trials) for other in self.rows))

    def compare(self, first: Row, second: Row) -> Comparison:
        """Compare two rows; nothing is claimed, and no ratio given, where either has no usable loss."""
        a, b = self._position(first), self._position(second)
        if a is None or b is None:
            return Comparison()
        gap = self.scale.gap(a, b)
        claim = abs(gap) > self.scale.margin(a, b)
        comparison = Comparison(claim=claim, better=claim and gap < 0)
        if not self.loss.logarithmic:
            return comparison
        gap, margin = self.loss.gap(a, b), self.loss.margin(a, b)
        comparison = replace(comparison, ratio=exponential(gap))
        return comparison if math.isinf(margin) else replace(comparison, low=exponential(gap - margin), high=exponential(gap + margin))

    def _position(self, row: Row) -> int | None:
        return next((at for other, at in zip(self.rows, self.positions, strict=False) if other.trials == row.trials), None)

    def _near_equal(self, at: int) -> bool:
        best = self.positions[0]
        return self.scale.within_standard_error(at, best) and self.scale.near(at, best) and self.loss.near(at, best)


def rank(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE, by_metric: bool = False, larger_is_better: bool = True) -> Ranking:
    """Rank `candidates` by their adjusted mean loss, or `by_metric`.

    `prior` is noise of log loss seen in earlier comparable trials; it counts only where log loss is what is compared. Where any
    loss is zero or negative, losses are compared as they are. The metric always is.
    """
    usable = [i for i, candidate in enumerate(candidates) if _is_usable(candidate, by_metric)]
    chosen = [candidates[i] for i in usable]
    loss, noise = _loss_scale(chosen, prior, far_tell=True)
    scale = _metric_scale(chosen, larger_is_better) if by_metric else loss
    metrics = _adjusted_metrics(chosen)
    positions = tuple(scale.order())
    rows = [_usable_row(chosen[at], loss, scale, at, metrics[at], positions[0]) for at in positions]
    rest = [_row(candidate, _failed_verdict(candidate.records)) for i, candidate in enumerate(candidates) if i not in usable]
    return Ranking(
        rows=(*rows, *rest),
        noise=noise,
        criterion="metric" if by_metric else "val_loss",
        larger_is_better=larger_is_better,
        loss=loss,
        scale=scale,
        positions=positions,
    )


def leader(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE) -> Leader | None:
    """Return the candidate that leads by its loss, as `rank` would see it, but for the price of no comparison; None without any usable."""
    usable = [candidate for candidate in candidates if _is_usable(candidate, by_metric=False)]
    if not usable:
        return None
    scale, _ = _loss_scale(usable, prior, far_tell=True)
    best = scale.order()[0]
    low, high = scale.interval(best)
    return Leader(hyperparameters=usable[best].hyperparameters, val_loss=scale.mean(best), val_loss_low=low, val_loss_high=high)


def in_race(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE) -> tuple[int, ...]:
    """Return the indices of the candidates worth another seed: those the pooled deviation does not rule out yet.

    They lie within four standard deviations of a difference of two trials of the best, within the simultaneous interval of that
    difference at `RACE_CONFIDENCE`, or within 5 % of its loss; without enough degrees of freedom, within a factor of two (where
    losses are not all positive: anywhere). All their trials completed.
    """
    usable = [i for i, candidate in enumerate(candidates) if _is_usable(candidate, by_metric=False)]
    if not usable:
        return ()
    scale, _ = _loss_scale([candidates[i] for i in usable], prior)
    best = scale.order()[0]
    return tuple(i for at, i in enumerate(usable) if scale.gap(at, best) <= _race_margin(scale, at, best))


def _race_margin(scale: Scale, at: int, best: int) -> float:
    if not scale.known:
        return FAR_OFF if scale.logarithmic else math.inf
    share = math.log1p(RACE_SHARE) if scale.logarithmic else RACE_SHARE * abs(scale.mean(best))
    return max(share, RACE_DEVIATIONS * scale.sd * math.sqrt(2), scale.margin(at, best, RACE_CONFIDENCE))


def disagreement(ranking: Ranking) -> str | None:
    """A sentence where the lowest loss and the best metric belong to candidates that the ranking tells apart, else None.

    Among near-equal candidates the two disagree by chance all the time.
    """
    measured = [row for row in ranking.rows if math.isfinite(row.val_loss) and math.isfinite(row.metric)]
    if not measured:
        return None
    sign = -1 if ranking.larger_is_better else 1
    by_loss = min(measured, key=lambda row: row.val_loss)
    by_metric = min(measured, key=lambda row: sign * row.metric)
    if math.isclose(by_loss.metric, by_metric.metric) or math.isclose(by_loss.val_loss, by_metric.val_loss):
        return None
    if ranking.within_standard_error(by_loss if ranking.criterion == "metric" else by_metric):
        return None
    lowest = f"{_label(by_loss)} (loss {format_number(by_loss.val_loss)}, metric {by_loss.metric:.4g})"
    other = f"{_label(by_metric)} (loss {format_number(by_metric.val_loss)}, metric {by_metric.metric:.4g})"
    followed = "metric" if ranking.criterion == "metric" else "loss"
    return f"the loss is lowest at {lowest}, the metric best at {other}; the ranking goes by the {followed}"


def _label(row: Row) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {format_number(value)}" for name, value in row.values)


def _is_usable(candidate: Candidate, by_metric: bool) -> bool:
    return bool(candidate.records) and all(r.usable and (not by_metric or is_result(r.metric)) for r in candidate.records)


def _loss_scale(candidates: Sequence[Candidate], prior: Noise, *, far_tell: bool = False) -> tuple[Scale, Noise]:
    """The scale losses are compared on, and these candidates' own noise of log loss.

    Far-off candidates are no part of the noise. `far_tell`: unless what is near the best tells too little of it, and their pairs with
    the best more; for the winner and one far-off candidate alone that is the paired t-test.
    """
    cells, losses = _cells(candidates, lambda record: record.val_loss)
    if any(loss <= 0 for loss in losses):
        return _raw_scale(cells, losses, sign=1), Noise()
    values = [math.log(loss) for loss in losses]
    fit = fit_additive(cells, values)
    far = frozenset(i for i, mean in enumerate(fit.means) if mean - min(fit.means) > FAR_OFF)
    near = fit_additive(cells, values, set_aside=far) if far else fit
    noise = Noise(sum_squares=near.sum_squares, df=near.df)
    pooled = noise + prior
    if far_tell and pooled.df < MIN_DF <= fit.df:
        pooled = Noise(sum_squares=fit.sum_squares, df=fit.df)
    else:
        fit = near
    return Scale(fit=fit, logarithmic=True, sign=1, sum_squares=pooled.sum_squares, df=pooled.df, rounding=ROUNDING), noise


def _raw_scale(cells: Sequence[tuple[int, int]], values: Sequence[float], *, sign: int) -> Scale:
    fit = fit_additive(cells, values)
    rounding = ROUNDING * max((abs(value) for value in values), default=0.0) or ROUNDING
    return Scale(fit=fit, logarithmic=False, sign=sign, sum_squares=fit.sum_squares, df=fit.df, rounding=rounding)


def _metric_scale(candidates: Sequence[Candidate], larger_is_better: bool) -> Scale:
    cells, metrics = _cells(candidates, lambda record: record.metric)
    return _raw_scale(cells, metrics, sign=-1 if larger_is_better else 1)


def _adjusted_metrics(candidates: Sequence[Candidate]) -> list[float]:
    """The adjusted mean metric of each candidate; NaN for those of which a trial has none."""
    measured = [i for i, candidate in enumerate(candidates) if all(is_result(r.metric) for r in candidate.records)]
    means = fit_additive(*_cells([candidates[i] for i in measured], lambda record: record.metric)).means
    found = dict(zip(measured, means, strict=True))
    return [float(found.get(i, math.nan)) for i in range(len(candidates))]


def _cells(candidates: Sequence[Candidate], quantity: Callable[[TrialRecord], float]) -> tuple[list[tuple[int, int]], list[float]]:
    cells = [(i, record.spec.repetition) for i, candidate in enumerate(candidates) for record in candidate.records]
    return cells, [quantity(record) for candidate in candidates for record in candidate.records]


def _verdict(scale: Scale, at: int, best: int) -> Verdict:
    if at == best:
        return "best"
    return "worse" if scale.gap(at, best) > scale.margin(at, best) else "tied"


def _usable_row(candidate: Candidate, loss: Scale, scale: Scale, at: int, metric: float, best: int) -> Row:
    train_loss = _mean([record.train_loss for record in candidate.records])
    return _row(candidate, _verdict(scale, at, best), (loss.mean(at), *loss.interval(at)), metric, train_loss)


def _failed_verdict(records: Sequence[TrialRecord]) -> Verdict:
    statuses = {"diverged" if r.status == "completed" and not r.usable else r.status for r in records}
    return "diverged" if "diverged" in statuses else "out_of_memory" if "out_of_memory" in statuses else "failed"


def _row(
    candidate: Candidate,
    verdict: Verdict,
    val_loss: tuple[float, float, float] = (math.nan, math.nan, math.nan),
    metric: float = math.nan,
    train_loss: float = math.nan,
) -> Row:
    """Assemble a row; `val_loss` comes with the ends of its interval."""
    records = candidate.records
    samples, seconds = sum(r.samples for r in records), sum(r.seconds for r in records)
    return Row(
        values=candidate.values,
        hyperparameters=candidate.hyperparameters,
        val_loss=val_loss[0],
        val_loss_low=val_loss[1],
        val_loss_high=val_loss[2],
        metric=metric,
        train_loss=train_loss,
        seeds=sum(r.usable for r in records),
        verdict=verdict,
        clue=summarize_clues(records),
        steps=round(_mean([r.steps for r in records])),
        samples=round(_mean([r.samples for r in records])),
        samples_per_second=samples / seconds if seconds > 0 else math.nan,
        seconds=seconds,
        trials=tuple(r.trial_id for r in records),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
