"""All trials and their curves as compact columns of plain JSON values, for the page's own table and charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hptune.analysis.diagnosis import clue
from hptune.analysis.wording import format_number
from hptune.report.frames import is_number, with_curves
from hptune.report.run import Run
from hptune.report.tables import Cell, Rows, trial_rows
from hptune.report.titles import title_of
from hptune.trial import TrialRecord

ROWS = 20_000  # trials on the page, at most
CURVE_POINTS = 150_000  # of all curves together, about: five megabytes
POINTS = (8, 60)  # of one curve, at least and at most
FIGURES = 5  # significant, of numbers on the page
COLUMNS = {
    "number": "#",
    "stage": "stage",
    "repetition": "seed",
    "lr": "LR",
    "batch_size": "batch",
    "momentum": "momentum",
    "momentum_min": "lowest momentum",
    "weight_decay": "weight decay",
    "val_loss": "val loss",
    "metric": "metric",
    "train_loss": "train loss",
    "test_loss": "test loss",
    "test_metric": "test metric",
    "clue": "clue",
    "status": "status",
    "schedule": "schedule",
    "steps": "steps",
    "samples_per_second": "samples/s",
    "seconds": "seconds",
    "best_val_loss": "lowest val loss",
    "best_metric": "best metric",
    "device": "device",
    "error": "error",
    "trial_id": "id",
}
SCREEN_ONLY = (
    "momentum_min", "test_loss", "test_metric", "schedule", "steps", "samples_per_second", "seconds", "best_val_loss", "best_metric",
    "device", "error", "trial_id",
)  # fmt: skip
"""Columns for which paper has no room."""
SAID_ONCE = ("lr", "batch_size", "momentum", "momentum_min", "weight_decay", "status", "schedule", "device", "clue")


def trial_data(run: Run) -> dict[str, Any]:
    """The first `ROWS` trials in journal order.

    `columns`: of {title, numeric, paper, values}, `paper` for those that are printed; text columns have `texts`, and their `values` number
    them. By row: `names`, in a few words; `clues`, sentences or None; `curves`, [epochs, training losses, validation losses] or None,
    all thinned to the `points` at most. `same`: what is the same in all trials and so has no column; `chosen`: the rows whose curves
    are shown at first.
    """
    records = run.records[:ROWS]
    rows = _rows(run, records)
    points = max(POINTS[0], min(POINTS[1], CURVE_POINTS // max(1, len(records))))
    samples = run.stages[-1].knowledge.train_samples if run.stages else run.task.train_samples if run.task else 0
    clues = [clue(record) for record in records]
    return {
        "rows": len(rows),
        "columns": [
            {"title": title, "paper": name not in SCREEN_ONLY, **_values([row[name] for row in rows])}
            for name, title in COLUMNS.items()
            if _varies(name, rows)
        ],
        "same": _same(rows),
        "names": [_name(record) for record in records],
        "clues": [f"Clue: {found.word}, {found.sentence}." if found else None for found in clues],
        "curves": [_curve(record, samples, points) for record in records],
        "points": points,
        "chosen": _first_shown(run, records),
    }


def thinned(length: int, points: int) -> list[int]:
    """Places of at most `points` (two or more) of `length` entries, evenly spaced, the first and the last among them."""
    if length <= points:
        return list(range(length))
    return sorted({round(i * (length - 1) / (points - 1)) for i in range(points)})


def best_rows(run: Run, count: int) -> tuple[tuple[str, ...], Rows]:
    """Titles, and the `count` trials of lowest validation loss by title: for a page that runs no script."""
    rows = _rows(run, run.records)
    rows.sort(key=lambda row: row["val_loss"] if is_number(row["val_loss"]) else math.inf)
    kept = [name for name in COLUMNS if _varies(name, rows)]
    return tuple(COLUMNS[name] for name in kept), [{COLUMNS[name]: row[name] for name in kept} for row in rows[:count]]


def _rows(run: Run, records: Sequence[TrialRecord]) -> Rows:
    clues = ((found.word if (found := clue(record)) else None) for record in records)
    rows = trial_rows(run)[: len(records)]
    return [
        {**row, "number": i, "clue": word, "stage": title_of(str(row["stage"])) if row["stage"] else None}
        for i, (row, word) in enumerate(zip(rows, clues, strict=True), start=1)
    ]


def _varies(name: str, rows: Rows) -> bool:
    """Whether a column is worth its room."""
    values = {row[name] for row in rows}
    return values != {None} and not (name in SAID_ONCE and len(values) == 1 and len(rows) > 1)


def _same(rows: Rows) -> str:
    """What is the same in all of several trials, in words."""
    if len(rows) < 2:
        return ""
    constant = [name for name in SAID_ONCE if rows[0][name] is not None and not _varies(name, rows)]
    return ", ".join(f"{COLUMNS[name]} {_word(rows[0][name])}" for name in constant)


def _word(value: Cell) -> str:
    return "" if value is None else format_number(value)


def _values(values: list[Cell]) -> dict[str, Any]:
    if all(isinstance(value, int | float | None) for value in values):
        return {"numeric": True, "values": [_rounded(value) for value in values]}
    texts = list(dict.fromkeys(str(value) for value in values if value is not None))
    place = {text: i for i, text in enumerate(texts)}
    return {
        "numeric": False,
        "texts": [*texts, None],
        "values": [len(texts) if value is None else place[str(value)] for value in values],
    }


def _rounded(value: Any) -> float | int | str | None:
    """A number JSON can hold; infinity as a word."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{FIGURES}g}") if math.isfinite(value) else str(value)


def _name(record: TrialRecord) -> str:
    h = record.spec.hyperparameters
    values = {"LR": h.lr, "batch": h.batch_size, "momentum": h.momentum, "decay": h.weight_decay, "seed": record.spec.repetition}
    return ", ".join(f"{name} {format_number(value)}" for name, value in values.items())


def _curve(record: TrialRecord, train_samples: int, points: int) -> list[list[float | None]] | None:
    curve = record.curve
    places = thinned(min(len(curve.step), len(curve.train_loss), len(curve.val_loss)), points)
    if not any(is_number(loss) for losses in (curve.train_loss, curve.val_loss) for loss in losses):
        return None
    per_epoch = max(1, train_samples) / record.spec.hyperparameters.batch_size
    return [
        _numbers(curve.step[i] / per_epoch for i in places),
        _numbers(curve.train_loss[i] for i in places),
        _numbers(curve.val_loss[i] for i in places),
    ]


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.{FIGURES}g}") if is_number(value) else None for value in values]


def _first_shown(run: Run, records: Sequence[TrialRecord]) -> list[int]:
    """What goes on from the last stage, and the baseline where it was one of the candidates: the first seed of each."""
    places = {record.trial_id: i for i, record in enumerate(records) if record.curve.step}
    for stage in reversed(run.stages):
        rows = with_curves(stage.conclusion) if stage.conclusion else []
        if shown := [places[row.trials[0]] for row in rows if row.trials and row.trials[0] in places]:
            return shown
    return []
