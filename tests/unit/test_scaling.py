"""What is done with many trials grows with their number and no faster: calls are counted, since clocks say something else each time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from surfaces import Surface, go, knowledge

from hptune import report
from hptune.cli.following import Follower
from hptune.cli.progress import Tracker
from hptune.report import tables
from hptune.report.page_tables import best_trials, clue_table
from hptune.report.trial_data import trial_data
from hptune.running import StageStarted, TrialDone
from hptune.stages import stage_named
from hptune.stages.base import Knowledge
from hptune.stages.rounds import leading
from hptune.store.journal import HEADER, line_of
from hptune.store.layout import RunLayout
from hptune.trial import TrialRecord

KEY = "baseline.weight_decay"
FEW, TIMES = 15, 4  # candidates on two seeds, and how many times as many
NEARLY = 1.15  # times as much as in proportion: a logarithm is no matter


def made(values: int) -> tuple[Knowledge, list[TrialRecord]]:
    """A sweep of so many values that cannot be told apart, and its trials on two seeds."""
    k = knowledge()
    variants = [
        {
            "value": i,
            "task": k.task,
            "train_samples": k.train_samples,
            "hyperparameters": asdict(k.start.but(weight_decay=1e-3 * (1 + i / values))),
            "schedule": asdict(k.schedule),
            "numerics": asdict(k.numerics),
        }
        for i in range(values)
    ]
    k = replace(k, settings={"variants": variants})
    records, rounds = go(stage_named(KEY), k, Surface(noise=0.1))
    assert rounds == [values, values]
    return k, records


def run_of(k: Knowledge, records: Sequence[TrialRecord]) -> report.Run:
    found = stage_named(KEY).conclude(k, records)
    stage = report.StageResult(
        name=KEY, knowledge=k, planned=len(records), records=tuple(records), conclusion=found, finished=True, counts=True
    )
    return report.Run(
        name="made up", layout=RunLayout(Path("nowhere")), config_text="", loaded=None, environment={}, task=None, stages=(stage,),
        records=tuple(records), recommendation=None,
    )  # fmt: skip


def watched(k: Knowledge, records: Sequence[TrialRecord]) -> Callable[[], object]:
    plan = {"kind": "plan", "stage": KEY, "knowledge": k.to_json(), "trials": [record.trial_id for record in records]}
    lines = [line_of(payload) for payload in ({"kind": "header", **HEADER}, plan)]
    lines += [line_of({"kind": "trial", **record.to_json()}) for record in records]
    return lambda: list(Follower(Path("journal.jsonl")).take(lines))


def page(run: report.Run) -> Callable[[], object]:
    return lambda: (trial_data(run), best_trials(run), clue_table(run), tables.stage_rows(run.stages[0].conclusion))


OPERATIONS: dict[str, Callable[[Knowledge, list[TrialRecord]], Callable[[], object]]] = {
    "plan the first round": lambda k, _: lambda: stage_named(KEY).plan(k, []),
    "plan the next round": lambda k, records: lambda: stage_named(KEY).plan(k, records[: len(records) // 2]),
    "conclude": lambda k, records: lambda: stage_named(KEY).conclude(k, records),
    "who leads": lambda k, records: lambda: leading(k, records),
    "watch": watched,
    "the page": lambda k, records: page(run_of(k, records)),
}


def calls(function: Callable[[], object]) -> int:
    """How many functions are called, Python's own included, once what is remembered has been filled."""
    function()
    count = 0

    def counted(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(scope="module")
def sweeps() -> list[tuple[Knowledge, list[TrialRecord]]]:
    return [made(FEW), made(TIMES * FEW)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_calls_grow_with_trials_and_no_faster(sweeps: list[tuple[Knowledge, list[TrialRecord]]], name: str) -> None:
    few, many = (calls(OPERATIONS[name](k, records)) for k, records in sweeps)
    assert few > FEW, "something is done with every trial"
    assert many <= NEARLY * TIMES * few


def test_a_terminal_seeks_the_best_of_many_trials_less_often(
    sweeps: list[tuple[Knowledge, list[TrialRecord]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hptune.cli.progress.PACE", 30.0)

    def sought(k: Knowledge, records: Sequence[TrialRecord]) -> int:
        asked: list[int] = []
        monkeypatch.setattr("hptune.cli.progress.leading", lambda _, done: asked.append(len(done)))
        tracker = Tracker()
        tracker.take(StageStarted(stage=KEY, knowledge=k), 0.0)
        for now, record in enumerate(records):
            tracker.take(TrialDone(stage=KEY, record=record), float(now))
            tracker.lines(float(now), 80)
        return len(asked)

    few, many = (sought(k, records) for k, records in sweeps)
    assert few == 2 * FEW, "after each trial"
    assert 2 * FEW < many < 2 * TIMES * FEW * 2 / 3
