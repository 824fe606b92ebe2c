"""What --json prints, as plain JSON values; `schemas` says what is in them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hptune.cli.progress import samples_per_second
from hptune.report.tables import stage_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hptune.cli.following import Follower
    from hptune.engine.bench import Speed
    from hptune.report.run import Run, StageResult
    from hptune.trial import Task, TrialRecord


OUTCOME = (
    "status",
    "val_loss",
    "metric",
    "best_val_loss",
    "best_metric",
    "train_loss",
    "test_loss",
    "test_metric",
    "steps",
    "samples",
    "seconds",
    "device",
    "error",
)
"""What --json says of a full training, as in its record."""
LED_BY = ("val_loss", "val_loss_low", "val_loss_high")


def run_document(run: Run, stages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything the terminal shows of a run, or of some of its `stages`; tables have the columns of `tables/<stage>.csv`."""
    shown = [stage for stage in run.stages if not stages or stage.name in stages]
    return {
        "name": run.name,
        "run_dir": str(run.layout.root),
        "state": run.state,
        "stages": {stage.name: _stage(stage) for stage in shown},
        "recommendation": recommendation_document(run),
        "notes": list(run.notes),
    }


def recommendation_document(run: Run) -> dict[str, Any] | None:
    """The recommendation with where it is written; None before there is one."""
    if run.recommendation is None:
        return None
    found = asdict(run.recommendation)
    return {**found, "sources": dict(run.recommendation.sources), "file": str(run.layout.recommended)}


def run_summary(run: Run) -> dict[str, Any]:
    """One run of a list; `best_loss` is the lowest validation loss in the tables of its stages, `best_metric` the best metric there.

    `seconds`: of all its trials. A metric's direction is the config's: where that cannot be read, no metric is called the best.
    """
    rows = [row for stage in run.stages if stage.conclusion for row in stage.conclusion.rows]
    losses = [row.val_loss for row in rows if row.val_loss == row.val_loss]
    metrics = [row.metric for row in rows if row.metric == row.metric] if run.loaded else []
    best = max if run.loaded and run.loaded.experiment.metric.larger_is_better else min
    return {
        "run_dir": str(run.layout.root),
        "name": run.name,
        "state": run.state,
        "stages_done": [stage.name for stage in run.stages if stage.finished],
        "confirmed": run.recommendation is not None and run.recommendation.confirmed,
        "trials": len(run.records),
        "seconds": sum(record.seconds for record in run.records),
        "best_loss": min(losses, default=None),
        "metric": run.loaded.experiment.metric.name if run.loaded else None,
        "best_metric": best(metrics, default=None),
        "recommendation": asdict(run.recommendation.hyperparameters) if run.recommendation else None,
    }


def standing_document(run_dir: str, follower: Follower, holder: str, silence: float | None) -> dict[str, Any]:
    """Where a run stands; `silence`: seconds since its journal was last written."""
    best = follower.best
    return {
        "run_dir": run_dir,
        "held_by": holder or None,
        "seconds_since_record": silence,
        "trials": len(follower.state.records),
        "stages_concluded": follower.concluded,
        "stage": follower.stage or None,
        "planned": len(follower.planned),
        "done": follower.done,
        "samples_per_second": samples_per_second(follower.records) or None,
        "best": {**asdict(best.hyperparameters), **{name: getattr(best, name) for name in LED_BY}} if best else None,
        "findings": follower.findings(),
    }


def training_document(record: TrialRecord, run_dir: str, weights: str) -> dict[str, Any]:
    """The outcome of a full training."""
    outcome = {name: getattr(record, name) for name in OUTCOME}
    return {"run_dir": run_dir, "weights": weights, **outcome, "hyperparameters": asdict(record.spec.hyperparameters)}


def bench_document(name: str, task: Task, rows: Sequence[Speed], sentences: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
    """Speeds by batch size: times in seconds of one step, memory in bytes, shares from 0 to 1."""
    derived = ("samples_per_second", "outside_compute", "outside", "flops_per_second", "peak_share")
    return {
        "name": name,
        **asdict(task.numerics),
        "train_samples": task.train_samples,
        "parameters": task.parameters,
        "rows": [{**asdict(row), **{key: getattr(row, key) for key in derived}} for row in rows],
        "sentences": list(sentences),
        "notes": [*task.notes, *notes],
    }


def _stage(stage: StageResult) -> dict[str, Any]:
    found = stage.conclusion
    return {
        "state": stage.state,
        "trials": len(stage.records),
        "planned": stage.planned,
        "sentence": found.sentence if found else None,
        "notes": list(found.notes) if found else [],
        "chosen": asdict(found.chosen) if found and found.chosen else None,
        "samples": found.samples if found else 0,
        "seconds": found.seconds if found else 0.0,
        "table": stage_rows(found),
    }
