"""Ranked tables: rows built purely from conclusions, then written as CSV (exact) and Markdown (for reading)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import SETTLES, Conclusion, Recommendation
from hptune.store.layout import write_atomic
from hptune.trial import TrialRecord

if TYPE_CHECKING:
    from hptune.report.run import Run

Cell = str | int | float | None
"""None is an empty cell; floats in tables are never NaN."""
Rows = list[dict[str, Cell]]

RESULT_COLUMNS = (
    "val_loss",
    "val_loss_low",
    "val_loss_high",
    "metric",
    "train_loss",
    "seeds",
    "chosen",
    "verdict",
    "clue",
    "steps",
    "samples",
    "samples_per_second",
    "seconds",
)
RECOMMENDATION_COLUMNS = ("hyperparameter", "baseline", "recommended", "source", "evidence")
TRIAL_COLUMNS = (
    "trial_id",
    "stage",
    "status",
    "repetition",
    "schedule",
    "lr",
    "batch_size",
    "momentum",
    "momentum_min",
    "weight_decay",
    "val_loss",
    "best_val_loss",
    "metric",
    "best_metric",
    "train_loss",
    "test_loss",
    "test_metric",
    "steps",
    "samples",
    "samples_per_second",
    "seconds",
    "device",
    "worker",
    "error",
)
DIGITS = 4  # significant, in Markdown


def stage_columns(conclusion: Conclusion | None) -> tuple[str, ...]:
    """Column names of a stage's table: `rank`, the swept values, the results."""
    swept = dict.fromkeys(swept_column(name) for row in (conclusion.rows if conclusion else ()) for name, _ in row.values)
    return ("rank", *swept, *RESULT_COLUMNS)


def swept_column(name: str) -> str:
    """The column of a swept value: its own name, unless a result has it (a sweep of `model.args.steps`, say)."""
    return f"swept_{name}" if name in ("rank", *RESULT_COLUMNS) else name


def stage_rows(conclusion: Conclusion | None) -> Rows:
    """Rows of a stage's table in ranked order."""
    return [_stage_row(rank, row) for rank, row in enumerate(conclusion.rows if conclusion else (), start=1)]


def recommendation_rows(recommendation: Recommendation, conclusions: Sequence[Conclusion]) -> Rows:
    """One row a hyper-parameter, then the length: baseline, recommended, where the value came from, and that stage's sentence."""
    baseline, recommended = asdict(recommendation.baseline), asdict(recommendation.hyperparameters)
    sources = dict(recommendation.sources)
    rows: Rows = [
        {
            "hyperparameter": name,
            "baseline": baseline[name],
            "recommended": recommended[name],
            "source": sources.get(name, "baseline"),
            "evidence": _evidence(name, sources.get(name, "baseline"), conclusions),
        }
        for name in recommended
    ]
    length: dict[str, Cell] = {"hyperparameter": "epochs", "baseline": None, "recommended": recommendation.epochs}
    return [*rows, {**length, "source": "config: budget.epochs, at the speed of the batch size", "evidence": None}]


def trial_rows(run: Run) -> Rows:
    """One row a trial in journal order; `stage` is the first that planned it, empty for a full training by `hptune train`."""
    stages: dict[str, str] = {}
    for stage in run.stages:
        for record in stage.records:
            stages.setdefault(record.trial_id, stage.name)
    return [_trial_row(record, stages.get(record.trial_id)) for record in run.records]


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> str:
    """CSV text; floats in the shortest form that reads back as the same float, None as an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row[name] is None else row[name] for name in columns] for row in rows])
    return text.getvalue()


def to_markdown(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> str:
    """A Markdown table, its columns aligned in the source too; floats to four significant digits, numbers to the right."""
    cells = [[format_cell(row[name]).replace("|", "\\|").replace("\n", " ") for name in columns] for row in rows]
    right = [all(isinstance(row[name], int | float | None) for row in rows) and bool(rows) for name in columns]
    widths = [max(3, len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(columns)]
    rule = [("-" * (width - 1) + ":") if is_right else "-" * width for width, is_right in zip(widths, right, strict=True)]
    lines = [list(columns), *cells]
    padded = [
        [cell.rjust(w) if is_right else cell.ljust(w) for cell, w, is_right in zip(line, widths, right, strict=True)] for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (padded[0], rule, *padded[1:]))


def format_cell(value: Cell) -> str:
    """A cell for reading: floats to four significant digits, None as nothing."""
    if value is None:
        return ""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def write_tables(run: Run) -> None:
    """Write `tables/<stage>.csv` and `.md` of every stage, and `tables/recommendation.csv` where there is a recommendation."""
    for stage in run.stages:
        columns, rows = stage_columns(stage.conclusion), stage_rows(stage.conclusion)
        write_atomic(run.layout.table(stage.name, "csv"), to_csv(columns, rows))
        write_atomic(run.layout.table(stage.name, "md"), to_markdown(columns, rows))
    if run.recommendation is not None:
        rows = recommendation_rows(run.recommendation, run.conclusions)
        write_atomic(run.layout.recommendation_csv, to_csv(RECOMMENDATION_COLUMNS, rows))


def _stage_row(rank: int, row: Row) -> dict[str, Cell]:
    results = {name: getattr(row, name) for name in RESULT_COLUMNS}
    swept = {swept_column(name): value for name, value in row.values}
    cells = {"rank": rank, **swept, **results, "chosen": "yes" if row.chosen else None, "clue": row.clue or None}
    return {name: _cell(value) for name, value in cells.items()}


def _trial_row(record: TrialRecord, stage: str | None) -> dict[str, Cell]:
    known = {
        "trial_id": record.trial_id,
        "stage": stage,
        "repetition": record.spec.repetition,
        "schedule": record.spec.schedule.kind,
        **asdict(record.spec.hyperparameters),
    }
    return {name: _cell(known[name] if name in known else getattr(record, name)) for name in TRIAL_COLUMNS}


def _cell(value: Cell) -> Cell:
    return None if isinstance(value, float) and math.isnan(value) else value


def _evidence(name: str, source: str, conclusions: Sequence[Conclusion]) -> str | None:
    """The sentence of the stage a value came from; for one carried over or chosen in confirm, of the last stage about it."""
    sentences = {conclusion.stage: conclusion.sentence for conclusion in conclusions}
    if source == "baseline" or source in sentences:
        return sentences.get(source)
    if source.startswith("confirm:"):
        return sentences.get("confirm")
    about = [stage for stage, (own, moved) in SETTLES.items() if name in (*own, *moved) and stage in sentences]
    return sentences[about[-1]] if about else None
