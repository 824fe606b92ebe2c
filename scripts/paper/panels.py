"""The points of figures, from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hptune.trial import TrialRecord

Row = dict[str, Any]
HIGHEST = 2.0  # times the first loss of a ramp: what lies above would hide where the loss falls


def ends(settings: Mapping[tuple[str, Any], Sequence[TrialRecord]], value: Callable[[TrialRecord], float]) -> list[Row]:
    """A point for each training that completed. Settings are named by a series and a place on the x axis."""
    return [
        _row(place, value(record), series, record) for (series, place), records in settings.items() for record in records if record.usable
    ]


def courses(settings: Mapping[str, Sequence[TrialRecord]], place: Callable[[TrialRecord, int], float]) -> list[Row]:
    """A point for each evaluation of validation loss, where `place` has it on the x axis, from record and number of the evaluation."""
    return [
        _row(place(record, at), loss, series, record)
        for series, records in settings.items()
        for record in records
        for at, loss in enumerate(record.curve.val_loss)
        if math.isfinite(loss)
    ]


def ramps(settings: Mapping[str, Sequence[TrialRecord]]) -> list[Row]:
    """Validation loss over the LR of range tests, as far as the loss is no higher than where it began."""
    first = {record.spec.repetition: record.curve.val_loss[0] for record in _all(settings)}
    return [row for row in courses(settings, lambda record, at: record.curve.lr[at]) if row["y"] < HIGHEST * first[row["seed"]]]


def test_loss(record: TrialRecord) -> float:
    """The loss on the test images."""
    return record.test_loss


def _all(settings: Mapping[str, Sequence[TrialRecord]]) -> Iterator[TrialRecord]:
    return (record for records in settings.values() for record in records)


def _row(x: Any, y: float, series: str, record: TrialRecord) -> Row:
    return {"x": x, "y": y, "series": series, "seed": record.spec.repetition}
