"""Ranking candidates from repeated, paired trials: pooled noise, adjusted means, intervals, verdicts.

With two or three seeds an interval from one candidate alone says nothing, so noise is pooled over candidates and stages. The
lowest adjusted mean is *chosen*; that a candidate is worse than the best is *claimed* only by a simultaneous 95 % comparison
(Tukey-Kramer), and never with fewer than `MIN_DF` degrees of freedom. Seed noise is large: arXiv 2304.01910.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hptune.analysis.candidates import NO_NOISE, Candidate, Noise, adjusted_metrics, is_usable, loss_scale, metric_scale
from hptune.analysis.diagnosis import summarize_clues
from hptune.analysis.scale import Scale, exponential
from hptune.analysis.wording import format_number
from hptune.trial import Hyperparameters, TrialRecord

Verdict = Literal["best", "tied", "worse", "diverged", "out_of_memory", "failed"]
Criterion = Literal["val_loss", "metric"]


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
class Ranking:
    """Rows sorted best first, those without a usable loss last; exactly one is `best` where any is usable.

    `noise`: of log loss among these candidates alone, for later stages to pool (none where losses are not all positive).
    `criterion`: what the ranking goes by. `loss` and `scale`: fits of the loss and of the criterion; the first rows, one for each
    of their candidates, are numbered there by `positions`, and by their trials in `places`.
    """

    rows: tuple[Row, ...]
    noise: Noise
    criterion: Criterion
    larger_is_better: bool
    loss: Scale
    scale: Scale
    positions: tuple[int, ...]
    places: Mapping[tuple[str, ...], int] = field(repr=False)

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
        return self.places.get(row.trials)

    def _near_equal(self, at: int) -> bool:
        best = self.positions[0]
        return self.scale.within_standard_error(at, best) and self.scale.near(at, best) and self.loss.near(at, best)


def rank(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE, by_metric: bool = False, larger_is_better: bool = True) -> Ranking:
    """Rank `candidates` by their adjusted mean loss, or `by_metric`.

    `prior` is noise of log loss seen in earlier comparable trials; it counts only where log loss is what is compared. Where any
    loss is zero or negative, losses are compared as they are. The metric always is.
    """
    usable = [i for i, candidate in enumerate(candidates) if is_usable(candidate, by_metric)]
    chosen = [candidates[i] for i in usable]
    loss, noise = loss_scale(chosen, prior, far_tell=True)
    scale = metric_scale(chosen, larger_is_better) if by_metric else loss
    metrics = adjusted_metrics(chosen)
    positions = tuple(scale.order())
    rows = [_usable_row(chosen[at], loss, scale, at, metrics[at], positions[0]) for at in positions]
    lost = sorted(set(range(len(candidates))).difference(usable))
    rest = [_row(candidates[i], _failed_verdict(candidates[i].records)) for i in lost]
    return Ranking(
        rows=(*rows, *rest),
        noise=noise,
        criterion="metric" if by_metric else "val_loss",
        larger_is_better=larger_is_better,
        loss=loss,
        scale=scale,
        positions=positions,
        places={row.trials: at for row, at in zip(rows, positions, strict=True)},
    )


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
