"""The tables of the report and of a notebook, ready to show: cells are text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hptune.analysis.diagnosis import clue
from hptune.analysis.ranking import Row
from hptune.analysis.wording import format_number
from hptune.report import frames
from hptune.report.frames import cost_frame
from hptune.report.run import Run, StageResult
from hptune.report.tables import Cell, Rows, format_cell, recommendation_rows
from hptune.report.titles import HYPERPARAMETERS, title_of
from hptune.report.trial_data import best_rows

ROWS_SHOWN = 40  # of a stage's table
MARK = "→"  # the row that goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`rows` of (cells, whether the row is stressed); `numeric` columns stand right; `left_out` says what is not shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], bool], ...]
    numeric: tuple[bool, ...]
    left_out: str = ""


def table(columns: Sequence[str], rows: Rows, *, left_out: str = "") -> Table:
    """Format rows for reading; a row marked in its column "" is stressed, columns without a single value are left out."""
    kept = [name for name in columns if not rows or any(row[name] is not None for row in rows)]
    return Table(
        columns=tuple(kept),
        rows=tuple((tuple(format_cell(row[name]) for name in kept), row.get("") == MARK) for row in rows),
        numeric=tuple(all(isinstance(row[name], int | float | None) for row in rows) for name in kept),
        left_out=left_out,
    )


def recommendation_table(run: Run) -> Table | None:
    """What to train with, and the stage each value comes from; a changed value is stressed. None without a recommendation."""
    if run.recommendation is None:
        return None
    rows = recommendation_rows(run.recommendation, run.conclusions)
    known = {stage.name: title_of(stage.name).lower() for stage in run.stages}
    shown: Rows = []
    for row in rows:
        changed = row["baseline"] is not None and row["baseline"] != row["recommended"]
        name, source = str(row["hyperparameter"]), str(row["source"])
        shown.append(
            {
                "": MARK if changed else None,
                "hyper-parameter": HYPERPARAMETERS.get(name, name),
                "baseline": row["baseline"],
                "recommended": row["recommended"],
                "from": known.get(source, source),
            }
        )
    return table(("", "hyper-parameter", "baseline", "recommended", "from"), shown)


def stage_table(stage: StageResult, metric: str) -> Table:
    """The ranked table of a stage, at most `ROWS_SHOWN` rows."""
    ranked = stage.conclusion.rows if stage.conclusion else ()
    swept = list(dict.fromkeys(_swept(name) for row in ranked for name, _ in row.values))
    results = ("val loss", "95 %", metric, "train loss", "seeds", "verdict", "clue", "steps", "samples/s", "seconds")
    rows = [_stage_row(rank, row, metric) for rank, row in enumerate(ranked[:ROWS_SHOWN], start=1)]
    more = len(ranked) - len(rows)
    left_out = f"the best {len(rows)} of {len(ranked):,}; tables/ beside this file has all" if more > 0 else ""
    return table(("", "rank", *swept, *results), rows, left_out=left_out)


def clue_table(run: Run) -> Table:
    """A row for each candidate whose curves are drawn: the clue most of its seeds agree on, and one seed's numbers."""
    records = {record.trial_id: record for record in run.records}
    rows: Rows = []
    for stage in run.stages:
        for row in frames.with_curves(stage.conclusion) if stage.conclusion else ():
            found = [one for trial in row.trials if trial in records and (one := clue(records[trial])) is not None]
            sentence = next((one.sentence for one in found if one.word == row.clue), None)
            if sentence is not None:
                rows.append({"stage": title_of(stage.name), "settings": frames.label(row), "clue": row.clue, "numbers": sentence})
    return table(("stage", "settings", "clue", "numbers"), rows)


def cost_table(run: Run) -> Table:
    """Cost by stage, and of all."""
    frame = cost_frame(run)
    rows: Rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    total: dict[str, Cell] = {name: sum(row[name] for row in frame.to_dict("records")) for name in frame.columns if name != "stage"}
    named: Rows = [{**row, "stage": title_of(str(row["stage"]))} for row in rows]
    shown: Rows = [
        {name.replace("_", " "): value for name, value in row.items()} for row in ([*named, {"stage": "all", **total}] if rows else [])
    ]
    return table([str(name).replace("_", " ") for name in frame.columns], shown)


def best_trials(run: Run, count: int = ROWS_SHOWN) -> Table:
    """The trials of lowest validation loss."""
    return table(*best_rows(run, count))


def environment_table(environment: Mapping[str, Any]) -> Table:
    """Nested entries with dotted names; the command lines are shown apart."""
    rows: Rows = [{"what": name, "value": value} for name, value in _flat("", environment) if not name.startswith("invocations")]
    return table(("what", "value"), rows)


def _stage_row(rank: int, row: Row, metric: str) -> dict[str, Cell]:
    has_interval = math.isfinite(row.val_loss_low) and math.isfinite(row.val_loss_high)
    cells: dict[str, Cell] = {
        **{_swept(name): value for name, value in row.values},
        "": MARK if row.chosen else None,
        "rank": rank,
        "val loss": row.val_loss,
        "95 %": f"{format_number(row.val_loss_low)} to {format_number(row.val_loss_high)}" if has_interval else None,
        metric: row.metric,
        "train loss": row.train_loss,
        "seeds": row.seeds,
        "verdict": row.verdict.replace("_", " "),
        "clue": row.clue or None,
        "steps": row.steps,
        "samples/s": row.samples_per_second,
        "seconds": row.seconds,
    }
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in cells.items()}


def _swept(name: str) -> str:
    """The column of a swept value: with quotes where a result's column could have that name."""
    own = {**HYPERPARAMETERS, "candidate": "candidate", "timescale_epochs": "forgets over, epochs"}
    return own.get(name, f"“{name}”")


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [entry for key, item in value.items() for entry in _flat(f"{prefix}.{key}" if prefix else str(key), item)]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
