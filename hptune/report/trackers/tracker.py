"""What a tracker is told of a run, in plain values that are the same for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hptune.analysis.recommendation import Conclusion
from hptune.report.recommended import verdict
from hptune.report.run import Run
from hptune.trial import TrialRecord

FULL_TRAINING = "train"
"""The stage of a trial that belongs to none: a full training by `hptune train`."""
RESULTS = ("val_loss", "train_loss", "metric", "test_loss", "test_metric", "seconds", "samples", "samples_per_second")
SERIES = ("train_loss", "val_loss", "metric", "lr")


class Tracker(Protocol):
    """A tool that shows many trainings. What it raises ends the tracking by it, and nothing else.

    `place`: where it puts things, in one line; given to the next opening, so that a continued run goes on there.
    """

    place: str

    def trial(self, stage: str, record: TrialRecord, value: Any) -> None:
        """Take a trial that ended: parameters, curve, results. `value`: of the key that is swept; None in other stages."""

    def conclusion(self, conclusion: Conclusion) -> None:
        """Take what a stage found."""

    def result(self, run: Run) -> None:
        """Take the recommendation, the report and the figures, which are written."""

    def close(self) -> None:
        """Send what is held back, and let go."""


def parameters(stage: str, record: TrialRecord, value: Any) -> dict[str, str | int | float]:
    """What a trial was run with; `repetition` names its seed. The key that is swept stands under its own name."""
    spec = record.spec
    swept = {} if value is None else {stage: value if isinstance(value, str | int | float) else str(value)}
    own = {name: value for name, value in asdict(spec.hyperparameters).items() if value is not None}
    return {**own, "steps": spec.steps, "repetition": spec.repetition, "schedule": spec.schedule.kind, "stage": stage, **swept}


def results(record: TrialRecord) -> dict[str, float]:
    """What came of a trial: the finite ones of `RESULTS`."""
    found = {name: float(getattr(record, name)) for name in RESULTS}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def points(record: TrialRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """The trial's curve: (step, finite values by the names of `SERIES`), as the record holds it."""
    curve = record.curve
    for at, step in enumerate(curve.step):
        values = {name: series[at] for name in SERIES if at < len(series := getattr(curve, name))}
        yield step, {name: value for name, value in values.items() if math.isfinite(value)}


def findings(run: Run) -> dict[str, str]:
    """The verdict, and each stage's sentence by its name."""
    said = {"recommendation": verdict(run.recommendation)} if run.recommendation is not None else {}
    return {**said, **{conclusion.stage: conclusion.sentence for conclusion in run.conclusions}}


def recommended(run: Run) -> Mapping[str, float | int]:
    """The recommended hyper-parameters by name; none before there is a recommendation."""
    return asdict(run.recommendation.hyperparameters) if run.recommendation is not None else {}


def files(run: Run) -> list[Path]:
    """What is worth keeping beside the numbers: report, recommended config, and tables."""
    layout = run.layout
    return [path for path in (layout.report, layout.recommended, layout.config, *sorted(layout.tables.glob("*.csv"))) if path.is_file()]


def now() -> float:
    """Seconds since 1970, as trackers date things."""
    return datetime.now(UTC).timestamp()
