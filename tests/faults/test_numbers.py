"""Numbers that are not finite, or hardly are: no stage falls over them, none wins by them, no table or report shows them as a result."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate, sweep_key
from faulty import NUMBERS, ODD, SERIES, STATUSES, Faulty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.text import Text
from surfaces import START, Surface, go, knowledge

from hptune import report
from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion, Longer, recommend
from hptune.cli import documents, plots
from hptune.cli.console import json_text
from hptune.cli.progress import trial_line
from hptune.cli.results import finding, gain_sentence, stage_table
from hptune.errors import InputError, StageError
from hptune.report import charts, frames, html, recommended, tables
from hptune.report.export import export
from hptune.sampler import TpeSampler
from hptune.stages import Knowledge, stage_named
from hptune.stages.refine import Space
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec, is_result

LOST = {"diverged", "out_of_memory", "failed"}
STAGES: dict[str, dict[str, Any]] = {
    "lr_range": {"min_lr": 1e-4, "max_lr": 10.0, "ramp": "exponential"},
    "batch_size": {"values": [32, 64, 128], "compare": "samples"},
    "momentum": {"values": [0.97, 0.95, 0.9], "minimum": 0.85},
    "weight_decay": {"values": [1e-2, 1e-3, 1e-4, 0.0], "bisect": True},
    "refine": {"trials": 5},
    "confirm": {"seeds": 3, "finalists": [("baseline", asdict(START)), ("recommended", asdict(START.but(lr=0.2)))]},
    "model.args.width": {
        "variants": [
            {
                "value": value,
                "task": f"t-{value}",
                "train_samples": 1280,
                "hyperparameters": asdict(START),
                "schedule": {"kind": "one_cycle", "milestones": ()},
                "numerics": {},
            }
            for value in (4, 8, 16)
        ]
    },
}


@st.composite
def faults(draw: st.DrawFn) -> Faulty:
    """Any numbers of a part of the records, or of all, are odd ones."""
    return Faulty(
        seed=draw(st.integers(0, 2**20)),
        share=draw(st.sampled_from([0.1, 0.3, 0.6, 0.9, 1.0])),
        fields=draw(st.lists(st.sampled_from([*NUMBERS, *SERIES]), unique=True, min_size=1)),
        values=draw(st.lists(st.sampled_from(ODD), unique=True, min_size=1, max_size=6)),
        statuses=draw(st.lists(st.sampled_from(STATUSES), unique=True, min_size=1)),
        surface=Surface(diverges_above=draw(st.sampled_from([3.0, 0.15, 0.01])), level=draw(st.sampled_from([0.3, 1e-300, 1e90]))),
    )


def suggest(start: Hyperparameters, space: Space, done: Sequence[TrialRecord], count: int, seed: int, /) -> list[Hyperparameters]:
    return [start.but(lr=round(start.lr * (1.1 + 0.1 * ((seed + i) % 7)), 3)) for i in range(count)]


def is_usable(record: TrialRecord, k: Knowledge) -> bool:
    return record.usable and (k.rank_by == "val_loss" or is_result(record.metric))


def check(k: Knowledge, done: Sequence[TrialRecord], found: Conclusion) -> None:
    """What holds of every conclusion, whatever the records were."""
    of = {record.trial_id: record for record in done}
    ranked = [row for row in found.rows if row.verdict not in LOST]
    assert list(found.rows[: len(ranked)]) == ranked, "what has no result comes last"
    for row in found.rows:
        own = [of[trial] for trial in row.trials]
        assert (row in ranked) == all(is_usable(record, k) for record in own)
        check_row(row, row in ranked)
    assert [row.verdict for row in ranked].count("best") == bool(ranked)
    check_order(ranked, k, [of[trial] for row in ranked for trial in row.trials])
    chosen = [row for row in found.rows if row.chosen]
    assert all(row in ranked for row in chosen)
    assert [row.hyperparameters for row in chosen] == [found.chosen][: len(chosen)]
    assert found.chosen is None or all(math.isfinite(value) for value in asdict(found.chosen).values())
    if found.rows:
        assert (found.chosen is not None) == bool(ranked) == bool(chosen)
    assert found.detail.get("better") is not True or len(ranked) > 1
    for text in (found.sentence, *found.notes):
        assert not re.search(r"\bnan\b", text), text
        assert not re.search(r"\d{30}", text), text
    json.dumps(found.to_json())
    finding(found), stage_table(found).lines()


def check_row(row: Row, is_ranked: bool) -> None:
    assert math.isfinite(row.val_loss) is is_ranked
    assert not math.isinf(row.metric)
    low, high = row.val_loss_low, row.val_loss_high
    assert (math.isnan(low) and math.isnan(high)) or low * (1 - 1e-6) - 1e-6 * abs(low) <= row.val_loss <= high + 1e-6 * abs(high)


def check_order(ranked: Sequence[Row], k: Knowledge, records: Sequence[TrialRecord]) -> None:
    """Rows get worse; what lies within rounding of the largest number counts as equal."""
    by_metric, sign = k.rank_by == "metric", -1 if k.rank_by == "metric" and k.larger_is_better else 1
    values = [sign * (row.metric if by_metric else row.val_loss) for row in ranked]
    slack = 2e-9 * max((abs(r.metric if by_metric else r.val_loss) for r in records), default=0.0) or 2e-9
    assert all(a <= b + slack for a, b in pairwise(values))


@pytest.mark.parametrize("name", list(STAGES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    faulty=faults(),
    rank_by=st.sampled_from(["val_loss", "metric"]),
    larger=st.booleans(),
    allowance=st.sampled_from([None, 3.0, 6.0, 30.0]),
)
def test_every_stage_plans_and_concludes_whatever_the_numbers(
    name: str, faulty: Faulty, rank_by: str, larger: bool, allowance: float | None
) -> None:
    short = {"trials": 2} if name == "refine" and faulty.seed % 2 else {}  # too few for longer runs
    k = knowledge(
        settings={**STAGES[name], **short}, rank_by=rank_by, larger_is_better=larger, allowance=allowance, speeds=((32, 0.8), (64, 1.0))
    )
    stage = stage_named(name, suggest)
    done, _ = go(stage, k, faulty)
    for record in done:
        assert all(math.isfinite(value) for value in asdict(record.spec.hyperparameters).values())
        trial_line("LR 0.1", record)
    for part in (done, done[: len(done) // 2], []):
        found = stage.conclude(k, part)
        check(k, part, found)
        check_shown(found)


def check_shown(found: Conclusion) -> None:
    """Tables hold no NaN; what a chart draws is finite; JSON has no words that JSON does not know."""
    columns, rows = tables.stage_columns(found), tables.stage_rows(found)
    assert not any(isinstance(cell, float) and math.isnan(cell) for row in rows for cell in row.values())
    shown = list(csv.reader(io.StringIO(tables.to_csv(columns, rows))))
    assert not {"nan", "NaN"} & {cell for line in shown for cell in line}
    tables.to_markdown(columns, rows)
    for frame in (frames.range_frame(found), frames.candidate_frame(found)):
        drawn = frame.select_dtypes("number").to_numpy(dtype=float)
        assert not (drawn == math.inf).any()
    for line in (*plots.range_plot(found, 80), *plots.candidates_plot(found, {}, 80)):
        assert len(Text.from_ansi(line).plain) <= 80
    json.loads(json_text(found.to_json()), parse_constant=pytest.fail)


def conclusions_of(train: Callable[[TrialSpec], TrialRecord], **changes: Any) -> list[Conclusion]:
    found = []
    for name in list(STAGES)[:6]:
        k = knowledge(settings=STAGES[name], **changes)
        stage = stage_named(name, suggest)
        found.append(stage.conclude(k, go(stage, k, train)[0]))
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(faulty=faults(), rank_by=st.sampled_from(["val_loss", "metric"]))
def test_a_recommendation_adds_up_what_was_found(faulty: Faulty, rank_by: str) -> None:
    found = conclusions_of(faulty, rank_by=rank_by)
    to = Longer(ratio=5.0, samples=12800.0, optimizer="sgd")
    result = recommend(found, baseline=START, to=to, epochs={0: 10.0})
    if result is None:
        assert not any(conclusion.chosen for conclusion in found)
        return
    assert all(math.isfinite(value) for value in asdict(result.hyperparameters).values())
    text = [recommended.verdict(result), gain_sentence(result), *recommended.comments(result)]
    assert not any(re.search(r"\bnan\b|\d{30}", line) for line in text)
    json.loads(json_text(asdict(result)), parse_constant=pytest.fail)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(faulty=faults())
def test_the_sampler_proposes_finite_numbers_inside_its_box(faulty: Faulty) -> None:
    k = knowledge()
    box = Space(lr=(0.025, 0.4), weight_decay=(1e-5, 1e-3), slack=(0.05, 0.2), batch_sizes=(32, 64))
    seen = [faulty(k.short_run(START.but(lr=round(0.03 * 1.24**i, 4)))) for i in range(10)]
    for h in TpeSampler(seen)(START, box, [], 3, seed=1):
        assert 0.025 <= h.lr <= 0.4
        assert 1e-5 <= h.weight_decay <= 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_a_run_full_of_odd_numbers_is_read_tabled_drawn_and_exported(tmp_path: Path, seed: int) -> None:
    rank_by = ("val_loss", "metric")[seed % 4 // 3]
    faulty = Faulty(
        seed=seed,
        share=(0.2, 0.5)[seed % 2],
        fields=[*NUMBERS, *SERIES],
        values=ODD if seed % 3 else [v for v in ODD if not v <= 0],
        statuses=STATUSES if seed % 2 else ("completed",),
        surface=Surface(level=(0.3, 1e-300, 1e90)[seed % 3]),
    )
    folder = tmp_path / "run"
    with contextlib.suppress(StageError):
        fabricate(folder, surface=faulty, rank_by=rank_by)  # type: ignore[arg-type]
        sweep_key(folder, "model.args.width", [4, 8])
    run = report.load(folder)
    for stage in run.stages:
        assert stage.conclusion is not None
        check(stage.knowledge, stage.records, stage.conclusion)
        check_shown(stage.conclusion)
    tables.write_tables(run)
    for file in run.layout.tables.glob("*.csv"):
        assert not {"nan", "NaN"} & {cell for line in csv.reader(io.StringIO(file.read_text())) for cell in line}
    figures = charts.make_figures(run)
    shown = html.context(run, figures)
    json.loads(str(shown["specs"]), parse_constant=pytest.fail)
    assert html.render(run, figures)
    if seed == 1:  # a second each
        charts.write_figures(run, figures)
    json.loads(json_text(documents.run_document(run)), parse_constant=pytest.fail)
    json.loads(json_text(documents.run_summary(run)), parse_constant=pytest.fail)
    recommended.write_recommended(run)
    for tool in ("pytorch", "optuna"):
        try:
            exec(compile(export(run, tool), tool, "exec"), {"__name__": "exported"})
        except InputError:
            assert run.recommendation is None
