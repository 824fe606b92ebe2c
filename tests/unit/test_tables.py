"""Tables: what stands in which column, exact in CSV, aligned in Markdown."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import fabricate, sweep_key
from surfaces import START, Surface

from hptune import report
from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion, Recommendation
from hptune.report.tables import (
    RECOMMENDATION_COLUMNS,
    format_cell,
    recommendation_rows,
    stage_columns,
    stage_rows,
    to_csv,
    to_markdown,
    trial_rows,
)

RESULTS = [
    "val_loss", "val_loss_low", "val_loss_high", "metric", "train_loss", "seeds", "chosen", "verdict", "clue", "steps", "samples",
    "samples_per_second", "seconds",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    folder = fabricate(tmp_path_factory.mktemp("tables") / "run", surface=Surface(diverges_above=0.3))
    sweep_key(folder, "model.args.width", [4, 8])
    loaded = report.load(folder)
    report.write_tables(loaded)
    return loaded


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("stage", "swept"),
    [
        ("lr_range", ["lr"]),
        ("batch_size", ["batch_size", "lr"]),
        ("momentum", ["momentum", "momentum_min"]),
        ("weight_decay", ["weight_decay", "timescale_epochs"]),
        ("refine", ["lr", "batch_size", "momentum", "weight_decay"]),
        ("confirm", ["candidate"]),
        ("model.args.width", ["width"]),
    ],
)
def test_a_stage_has_its_swept_values_between_rank_and_results(run: report.Run, stage: str, swept: list[str]) -> None:
    rows = read(run.layout.table(stage, "csv"))
    assert list(rows[0]) == ["rank", *swept, *RESULTS]
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(rows))]
    assert [row["chosen"] for row in rows].count("yes") == 1
    assert {row["chosen"] for row in rows} <= {"yes", ""}
    losses = [float(row["val_loss"] or "inf") for row in rows]
    assert losses == sorted(losses)


def test_a_candidate_without_a_loss_comes_last_with_empty_cells(run: report.Run) -> None:
    last = read(run.layout.table("lr_range", "csv"))[-1]
    assert last["verdict"] == "diverged"
    assert {last[name] for name in ("val_loss", "val_loss_low", "val_loss_high", "metric", "train_loss", "chosen")} == {""}


def test_csv_gives_the_same_floats_back(run: report.Run) -> None:
    conclusion = run.stage("refine").conclusion
    assert conclusion is not None
    for row, line in zip(conclusion.rows, read(run.layout.table("refine", "csv")), strict=True):
        assert float(line["val_loss"] or "nan") == pytest.approx(row.val_loss, rel=0, abs=0, nan_ok=True)
        assert float(line["lr"]) == row.hyperparameters.lr


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-4, 1e-300, 5e-324, 123456789.125, math.inf, 1 / 3])
def test_any_float_survives_the_csv(value: float) -> None:
    (line,) = csv.DictReader(io.StringIO(to_csv(["x", "y"], [{"x": value, "y": None}])))
    assert float(line["x"]) == value
    assert line["y"] == ""


def test_the_same_run_gives_the_same_bytes_timing_aside(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        again = report.load(fabricate(tmp_path / name, only=["lr_range", "momentum"]))
        report.write_results(again)
        texts.append([path.read_bytes() for path in sorted(again.layout.tables.iterdir())])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 5


def test_a_swept_value_named_like_a_result_keeps_a_column_of_its_own() -> None:
    row = Row(values=(("steps", 7),), hyperparameters=START, val_loss=1.0, steps=40)
    conclusion = Conclusion(stage="model.args.steps", sentence="", rows=(row,))
    assert stage_columns(conclusion)[:2] == ("rank", "swept_steps")
    assert (stage_rows(conclusion)[0]["swept_steps"], stage_rows(conclusion)[0]["steps"]) == (7, 40)


def test_no_rows_leave_a_table_of_headings() -> None:
    empty = Conclusion(stage="momentum", sentence="")
    assert to_csv(stage_columns(empty), stage_rows(empty)).splitlines() == [",".join(["rank", *RESULTS])]
    assert len(to_markdown(stage_columns(None), stage_rows(None)).splitlines()) == 2


def test_markdown_is_aligned_rounded_and_escaped() -> None:
    text = to_markdown(["name", "loss"], [{"name": "a|b\nc", "loss": 0.123456}, {"name": "d", "loss": None}])
    assert text.splitlines() == [
        "| name   |   loss |",
        "| ------ | -----: |",
        "| a\\|b c | 0.1235 |",
        "| d      |        |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.30001234, "0.3"), (1e-4, "0.0001"), (12345.678, "1.235e+04"), (7, "7"), (None, ""), (True, "True")]
)
def test_cells_are_short(value: float | None, text: str) -> None:
    assert format_cell(value) == text


def test_the_recommendation_says_for_each_value_where_it_came_from() -> None:
    sentences = {name: Conclusion(stage=name, sentence=f"{name} says so") for name in ("lr_range", "momentum", "confirm")}
    recommendation = Recommendation(
        hyperparameters=replace(START, lr=0.25, momentum=0.95, weight_decay=1e-3),
        baseline=START,
        short=START,
        epochs=30.0,
        sources=(
            ("lr", "0.4 in short runs, 0.25 at 5 times their length"),
            ("batch_size", "baseline"),
            ("momentum", "momentum"),
            ("momentum_min", "momentum"),
            ("weight_decay", "confirm: the candidate regularized"),
        ),
    )
    rows = recommendation_rows(recommendation, list(sentences.values()))
    assert [row["hyperparameter"] for row in rows] == ["lr", "batch_size", "momentum", "momentum_min", "weight_decay", "epochs"]
    assert [row["evidence"] for row in rows] == ["lr_range says so", None, "momentum says so", "momentum says so", "confirm says so", None]
    assert (rows[0]["baseline"], rows[0]["recommended"], rows[5]["recommended"]) == (0.1, 0.25, 30.0)


def test_the_recommendation_is_written_with_its_columns(run: report.Run) -> None:
    rows = read(run.layout.recommendation_csv)
    assert tuple(rows[0]) == RECOMMENDATION_COLUMNS
    assert run.recommendation is not None
    assert float(rows[0]["recommended"]) == run.recommendation.hyperparameters.lr


def test_a_trial_belongs_to_the_first_stage_that_planned_it(run: report.Run) -> None:
    rows = {row["trial_id"]: row for row in trial_rows(run)}
    shared = {r.trial_id for r in run.stage("lr_range").records} & {r.trial_id for r in run.stage("batch_size").records}
    assert shared
    assert {rows[trial]["stage"] for trial in shared} == {"lr_range"}
    assert len(rows) == len(run.records)
    diverged = next(row for row in rows.values() if row["status"] == "diverged")
    assert diverged["val_loss"] is None
