"""What the charts show, as plain data frames: everything that decides how a chart reads is settled here, without a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeGuard

import pandas as pd

from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.report.run import Run, StageResult
from hptune.trial import TrialRecord

SHOWN = 20  # candidates in a chart; the table has them all
SEEDS = 12  # of a candidate in a chart, where there are more
SECOND_LINE = " | "  # where a label goes on below
SEPARATOR = " · "
ABBREVIATIONS = {"lr": "LR", "batch_size": "batch", "weight_decay": "decay"}


@dataclass(frozen=True, slots=True)
class Axis:
    """How a stage's candidates stand side by side.

    `log`: a number on a logarithmic axis. `ordered`: one place a value, smallest first, so that zero has its own. `named`: no common
    scale (candidates of refine and confirm), best first. `title` names the swept value.
    """

    kind: Literal["log", "ordered", "named"]
    title: str


def axis(conclusion: Conclusion) -> Axis:
    """Choose the axis of a stage's sweep chart from its swept columns."""
    names = [name for name, _ in conclusion.rows[0].values] if conclusion.rows else []
    if names == ["lr"]:
        return Axis("log", "maximum learning rate")
    if len(names) > 2:
        return Axis("named", SEPARATOR.join(ABBREVIATIONS.get(name, name.replace("_", " ")) for name in names))
    if not names or names[0] == "candidate":
        return Axis("named", "candidate")
    return Axis("ordered", names[0].replace("_", " "))


def range_frame(conclusion: Conclusion) -> pd.DataFrame:
    """The LR range tests: columns lr, loss, part (validation | training), seed; finite values only, the first `SEEDS` seeds."""
    rows = [
        {"lr": lr, "loss": loss, "part": part, "seed": str(series["repetition"])}
        for series in conclusion.detail.get("ranges", ())[:SEEDS]
        for part, key in (("validation", "val_loss"), ("training", "train_loss"))
        for lr, loss in zip(series["lr"], series[key], strict=False)
        if is_number(loss) and is_number(lr) and lr > 0
    ]
    return pd.DataFrame(rows, columns=["lr", "loss", "part", "seed"])


def candidate_frame(conclusion: Conclusion) -> pd.DataFrame:
    """One row a candidate with a finite loss, best first: its place on the axis, loss and interval, and what a tooltip says.

    Columns label, value, val_loss, low, high, shown, beyond, verdict, chosen, seeds, settings, interval. `shown` is the loss, or the
    upper limit of the chart where the loss lies beyond it: `beyond` then says the loss. `low` and `high` equal `shown` where there is no
    interval.
    """
    usable = [row for row in conclusion.rows if math.isfinite(row.val_loss)][:SHOWN]
    limit = _limit(usable)
    return pd.DataFrame([_candidate(row, limit) for row in usable], columns=list(_CANDIDATE))


def seed_frame(stage: StageResult, conclusion: Conclusion) -> pd.DataFrame:
    """One row a seed of each candidate of `candidate_frame`, the first `SEEDS`: columns label, value, seed, val_loss, shown."""
    records = {record.trial_id: record for record in stage.records}
    usable = [row for row in conclusion.rows if math.isfinite(row.val_loss)][:SHOWN]
    limit = _limit(usable)
    rows = [
        {
            "label": _label(row),
            "value": _value(row),
            "seed": str(records[trial].spec.repetition),
            "val_loss": records[trial].val_loss,
            "shown": min(records[trial].val_loss, limit),
        }
        for row in usable
        for trial in row.trials[:SEEDS]
        if trial in records and math.isfinite(records[trial].val_loss)
    ]
    return pd.DataFrame(rows, columns=["label", "value", "seed", "val_loss", "shown"])


def missing_candidates(conclusion: Conclusion) -> str:
    """A remark on what a chart leaves out: candidates without a loss, by verdict, and those beyond the best `SHOWN`."""
    lost = [f"{label(row)} ({row.verdict.replace('_', ' ')})" for row in conclusion.rows if not math.isfinite(row.val_loss)]
    more = len(conclusion.rows) - len(lost) - SHOWN
    parts = [f"without a loss: {', '.join(lost)}"] if lost else []
    return "; ".join([*parts, *([f"the best {SHOWN} are shown, {more} more are in the table"] if more > 0 else [])])


def missing_seeds(seeds: int) -> str:
    """A remark on seeds that a chart leaves out; empty where it shows them all."""
    return f" The first {SEEDS} of {seeds} seeds are shown." if seeds > SEEDS else ""


def has_timescale(conclusion: Conclusion) -> bool:
    """Whether the candidates are weight decays, with the epochs over which each forgets."""
    return bool(conclusion.rows) and "timescale_epochs" in dict(conclusion.rows[0].values)


def with_curves(conclusion: Conclusion) -> list[Row]:
    """The candidates whose loss curves are drawn: the chosen one, then the baseline where it is one."""
    rows = [row for row in conclusion.rows if row.chosen or dict(row.values).get("candidate") == "baseline"]
    return sorted(rows, key=lambda row: not row.chosen)


def curve_frame(stage: StageResult, conclusion: Conclusion) -> pd.DataFrame:
    """Loss curves of the chosen candidate (and the baseline, where it is one of the candidates) on the first `SEEDS` seeds.

    Columns epoch, loss, part (training | validation), seed, candidate; finite values only.
    """
    records = {record.trial_id: record for record in stage.records}
    rows = [
        point
        for row in with_curves(conclusion)
        for trial in row.trials[:SEEDS]
        if trial in records
        for point in _curve_points(records[trial], stage.knowledge.train_samples, label(row))
    ]
    return pd.DataFrame(rows, columns=["epoch", "loss", "part", "seed", "candidate"])


def cost_frame(run: Run) -> pd.DataFrame:
    """Cost by stage: columns stage, trials, short_runs (equivalents of one short run), samples, seconds.

    A trial that several stages planned is counted in the first; trials that no stage planned are full trainings by `hptune train`.
    """
    seen: set[str] = set()
    rows = []
    for stage in run.stages:
        own = [record for record in stage.records if record.trial_id not in seen]
        seen |= {record.trial_id for record in own}
        per_run = stage.knowledge.short_epochs * stage.knowledge.train_samples
        rows.append(_cost(stage.name, own, per_run))
    others = [record for record in run.records if record.trial_id not in seen]
    if others and run.stages:
        last = run.stages[-1].knowledge
        rows.append(_cost("not in a plan", others, last.short_epochs * last.train_samples))
    return pd.DataFrame(rows, columns=["stage", "trials", "short_runs", "samples", "seconds"])


def upper_limit(losses: Iterable[float]) -> float:
    """Where a chart of `losses` ends: far-off candidates must not press the others into a line. Infinite for none."""
    values = sorted(losses)
    if not values:
        return math.inf
    best, middle = values[0], median(values)
    return max(middle + 3 * (middle - best), best + abs(best) / 2)


def range_limit(losses: Iterable[float]) -> float:
    """Where the chart of a range test ends: half as far again above its start (the first loss) as its lowest point is below."""
    values = list(losses)
    if not values:
        return math.inf
    start, lowest = values[0], min(values)
    return start + max((start - lowest) / 2, abs(start) / 10)


def label(row: Row) -> str:
    """A candidate in a few words: its value, or all values where several are swept jointly, in the order of the axis' title."""
    values = row.values if len(row.values) > 2 else row.values[:1]
    return SEPARATOR.join(format_number(value).replace("_", " ") for _, value in values)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


_CANDIDATE = ("label", "value", "val_loss", "low", "high", "shown", "beyond", "verdict", "chosen", "seeds", "settings", "interval")


def _candidate(row: Row, limit: float) -> Mapping[str, Any]:
    shown = min(row.val_loss, limit)
    has_interval = math.isfinite(row.val_loss_low) and math.isfinite(row.val_loss_high)
    low, high = (row.val_loss_low, row.val_loss_high) if has_interval else (shown, shown)
    return {
        "label": _label(row),
        "value": _value(row),
        "val_loss": row.val_loss,
        "low": min(low, limit),
        "high": min(high, limit),
        "shown": shown,
        "beyond": f"▲ {format_number(row.val_loss)}" if row.val_loss > limit else "",
        "verdict": row.verdict,
        "chosen": "goes on" if row.chosen else "",
        "seeds": row.seeds,
        "settings": ", ".join(f"{name} {format_number(value)}" for name, value in row.values),
        "interval": f"{format_number(low)} to {format_number(high)}" if has_interval else "none",
    }


def _label(row: Row) -> str:
    """What stands at the axis: `label`, and below a weight decay the epochs over which it forgets."""
    epochs = dict(row.values).get("timescale_epochs")
    if epochs is None:
        return label(row)
    return f"{label(row)}{SECOND_LINE}{epochs if isinstance(epochs, str) else f'{_short(epochs)} epochs'}"


def _short(epochs: float) -> str:
    """Two digits, or all before the point."""
    return f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"


def _limit(rows: Sequence[Row]) -> float:
    """The upper limit of a chart of these rows: intervals of losses in sight are whole, and the baseline is always in sight."""
    limit = upper_limit(row.val_loss for row in rows)
    in_sight = [row for row in rows if row.val_loss <= limit or ("candidate", "baseline") in row.values]
    return max([limit, *(high for row in in_sight if math.isfinite(high := max(row.val_loss, row.val_loss_high)))])


def _value(row: Row) -> float | None:
    value = row.values[0][1]
    return float(value) if is_number(value) else None


def _curve_points(record: TrialRecord, train_samples: int, candidate: str) -> list[dict[str, Any]]:
    curve, h = record.curve, record.spec.hyperparameters
    return [
        {
            "epoch": step * h.batch_size / max(1, train_samples),
            "loss": loss,
            "part": part,
            "seed": str(record.spec.repetition),
            "candidate": candidate,
        }
        for part, losses in (("training", curve.train_loss), ("validation", curve.val_loss))
        for step, loss in zip(curve.step, losses, strict=False)
        if is_number(loss)
    ]


def _cost(stage: str, records: list[TrialRecord], per_run: float) -> dict[str, Any]:
    samples = sum(record.samples for record in records)
    return {
        "stage": stage,
        "trials": len(records),
        "short_runs": samples / per_run if per_run else 0.0,
        "samples": samples,
        "seconds": sum(record.seconds for record in records),
    }
