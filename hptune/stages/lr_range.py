"""Stage 1: LR range tests, then short 1cycle runs around what they suggest (arXiv 1803.09820, sections 4.1 and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hptune.analysis.curves import RangeSummary, read_ramp, summarize_ranges
from hptune.analysis.ranking import Ranking
from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.schedules import Schedule
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import conclusion, interval, nothing_usable
from hptune.stages.rounds import criterion, next_round, ranked
from hptune.trial import StopRule, TrialRecord, TrialSpec

TEXTBOOK_LR = {"sgd": 0.1, "adamw": 1e-3}
RANGE_POINTS = 24  # validation points of a ramp: about five a decade at the default range
RANGE_SAMPLES = 1000  # fixed validation subset of a ramp, at most
FEWEST_RANGE_SAMPLES = 100
VALIDATION_SHARE = 0.25  # of a ramp's training, at most, goes into validation; a sample measured costs a third of one trained on
MIN_RAMP_STEPS = 60  # a faster ramp is itself unstable (section 4.1)
RANGE_SHARE = 4  # a ramp for so many short-run equivalents of allowance
SPREAD = 2.0  # the best LR checked gets neighbours at this factor
SAME = 1.2  # LRs closer than this factor are one candidate
LOWEST = 0.01  # times the start's LR: nothing lower is fallen back to
BRACKETS = 4  # rounds of neighbours, at most


class LrRange:
    """Ramps the LR over short runs on each seed, suggests a maximum, and checks it in short runs around it."""

    name = "lr_range"

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """First the ramps, then the check runs, then the best one's neighbours until it lies between two others."""
        known = {record.trial_id for record in done}
        ramps = [spec for spec in self._ramps(knowledge) if spec.trial_id not in known]
        if ramps:
            return ramps
        checks = self._checks(knowledge, done)
        if _none_usable(done):  # nothing else is worth the budget
            return [spec for spec in checks if spec.trial_id not in known]
        return next_round(knowledge, checks, done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the LR of the best check run; the range test's reading stands beside it."""
        summary = self._summary(knowledge, done)
        ranking = ranked(knowledge, _checked(done), _columns)
        detail = {
            "ranges": [_series(record) for record in done if record.spec.schedule.kind == "ramp"],
            "kind": summary.kind,
            "suggested": summary.lr_max,
            "low": summary.low,
            "high": summary.high,
        }
        if ranking.rows:
            sentence = f"{_verdict(ranking, _checked(done))}; {summary.sentence}"
            return conclusion(self.name, ranking, done, ranking.best, sentence=sentence, detail=detail)
        found = conclusion(
            self.name, ranking, done, None, sentence=f"{summary.sentence}; the budget paid for no check of it", detail=detail
        )
        return found if summary.lr_max is None else replace(found, chosen=knowledge.start.but(lr=round_lr(summary.lr_max)))

    def _ramps(self, k: Knowledge) -> list[TrialSpec]:
        """One ramp a seed; under a tight budget fewer, since most of it belongs to the checks."""
        ramps = k.seeds if k.allowance is None else min(k.seeds, max(1, int(k.allowance / RANGE_SHARE)))
        start = k.start.but(lr=float(k.settings["max_lr"]), momentum_min=k.start.momentum)
        steps = max(k.steps(k.short_epochs, start.batch_size), MIN_RAMP_STEPS)
        points = tuple(sorted({max(1, round(steps * (i + 1) / RANGE_POINTS)) for i in range(RANGE_POINTS)}))
        ramp = Schedule(kind="ramp", shape=k.settings["ramp"], min_lr=float(k.settings["min_lr"]))
        return [
            k.short_run(
                start,
                repetition,
                schedule=ramp,
                steps=steps,
                evaluate_at=points,
                validation_limit=min(range_samples(steps * start.batch_size), k.val_samples),
                stop=StopRule(window=max(1, steps // RANGE_POINTS), relative_to_best=True),
            )
            for repetition in range(ramps)
        ]

    def _summary(self, k: Knowledge, done: Sequence[TrialRecord]) -> RangeSummary:
        readings = [read_ramp(r.curve) for r in done if r.spec.schedule.kind == "ramp"]
        return summarize_ranges(readings, min_lr=float(k.settings["min_lr"]), max_lr=float(k.settings["max_lr"]))

    def _checks(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The first LRs, then both neighbours of whichever is best on the first seed, as far as all before them were run.

        What lies above an LR that diverged is left out.
        """
        losses = {r.spec.hyperparameters.lr: criterion(k, r) for r in _checked(done) if r.spec.repetition == 0}
        losses |= {r.spec.hyperparameters.lr: math.inf for r in _checked(done) if not r.usable}
        limit = min((r.spec.hyperparameters.lr for r in _checked(done) if not r.usable), default=math.inf)
        rates = [lr for lr in self._first_rates(k, done) if lr <= limit or lr in losses]
        for _ in range(BRACKETS):
            if not losses.keys() >= set(rates):
                break
            best = min(rates, key=lambda lr: losses[lr])
            around = (best * SPREAD, best / SPREAD) if math.isfinite(losses[best]) else (min(rates) / 10,)
            new = [lr for lr in map(round_lr, around) if is_new(lr, rates) and (lr < limit or lr in losses)]
            if not new:
                break
            rates += new
        return [k.short_run(k.start.but(lr=lr)) for lr in rates]

    def _first_rates(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[float]:
        """The suggestion, the start's LR and a textbook one, since a range test alone can mislead."""
        suggested = self._summary(k, done).lr_max
        rates: list[float] = []
        for lr in (suggested, k.start.lr, TEXTBOOK_LR[k.optimizer]):
            if lr is not None and is_new(lr, rates):
                rates.append(lr if lr == k.start.lr else round_lr(lr))
        return rates


def _checked(done: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The short runs among the records of the stage."""
    return [record for record in done if record.spec.schedule.kind != "ramp"]


def _none_usable(done: Sequence[TrialRecord]) -> bool:
    """Whether every LR checked so far, one at least, came to nothing on some seed."""
    rates = {record.spec.hyperparameters.lr for record in _checked(done)}
    return bool(rates) and rates == {record.spec.hyperparameters.lr for record in _checked(done) if not record.usable}


def range_samples(trained: int) -> int:
    """Validation samples of each point of a ramp that trains on so many samples: few enough that measuring stays a part of the cost.

    They are the same at every point, so that fewer of them shift the whole curve rather than its lowest point.
    """
    affordable = int(3 * VALIDATION_SHARE * trained / RANGE_POINTS)
    return max(FEWEST_RANGE_SAMPLES, min(RANGE_SAMPLES, affordable))


def round_lr(lr: float) -> float:
    """Two significant figures: nothing finer can be told from short runs."""
    return float(f"{lr:.1e}")


def lower_lr(start: float, done: Sequence[TrialRecord]) -> float | None:
    """An LR to fall back to where every candidate has diverged on some seed, whatever the allowance; None where there is no need.

    A quarter of the lowest one tried, down to `LOWEST` times the start's.
    """
    candidates = {(record.spec.hyperparameters, record.spec.steps) for record in done}
    diverged = [record for record in done if record.status in ("completed", "diverged") and not record.usable]
    if not done or candidates != {(record.spec.hyperparameters, record.spec.steps) for record in diverged}:
        return None
    lowest = min(record.spec.hyperparameters.lr for record in done)
    return round_lr(lowest / 4) if lowest > LOWEST * start else None


def is_new(lr: float, rates: Sequence[float]) -> bool:
    """Whether no LR of `rates` is nearly the same."""
    return all(max(lr, kept) / min(lr, kept) > SAME for kept in rates)


def _columns(spec: TrialSpec) -> tuple[tuple[str, float | int | str], ...]:
    return (("lr", spec.hyperparameters.lr),)


def _series(record: TrialRecord) -> dict[str, object]:
    curve = record.curve
    series = {"lr": curve.lr, "val_loss": curve.val_loss, "train_loss": curve.train_loss}
    return {"repetition": record.spec.repetition, **{name: list(values) for name, values in series.items()}}


def _verdict(ranking: Ranking, checked: Sequence[TrialRecord]) -> str:
    if ranking.best is None:
        advice = "; lower stages.lr_range.min_lr or look at the data" if any(r.status == "diverged" for r in checked) else ""
        return f"{nothing_usable('LR checked in short runs', ranking, checked)}{advice}"
    tried = sorted(row.hyperparameters.lr for row in ranking.rows)
    best = ranking.best
    text = f"max LR {format_number(best.hyperparameters.lr)} goes on: loss {format_number(best.val_loss)}{interval(best)}"
    text += f", the best of {len(tried)} checked in short runs" if len(tried) > 1 else ", the only one checked in short runs"
    if len(tried) > 1 and best.hyperparameters.lr in (tried[0], tried[-1]):
        text += ", at the edge of what was tried"
    return text
