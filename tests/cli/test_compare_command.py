"""`hptune compare`: runs side by side."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Hptune
from rich.console import Console as Terminal
from test_search_commands import strict

from hptune.cli.comparison import comparison_tables, run_titles
from hptune.cli.console import Console
from hptune.report import load
from hptune.report.run import StageResult
from hptune.report.versus import versus
from hptune.store.journal import line_of
from hptune.trial import TrialRecord, TrialSpec

OTHER = "runs/other run"
IDENTITY = {"data": "f1", "loss": {"name": "cross_entropy"}, "step": None, "metric": {"name": "accuracy"}}


@pytest.fixture
def two(run_dir: Path) -> tuple[Path, Path]:
    """The finished run, and the same with other settings."""
    other = Path(OTHER)
    shutil.copytree(run_dir, other)
    config = (other / "config.yaml").read_text()
    changed = (
        config.replace("name: made up", "name: other run").replace("lr: 0.05", "lr: 0.0625").replace("search_epochs: 1", "search_epochs: 2")
    )
    assert changed.count("0.0625") == 1
    (other / "config.yaml").write_text(changed)
    return run_dir, other


def edit(run: Path, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the journal's records of a kind, checksums included."""
    lines = []
    for text in (run / "journal.jsonl").read_bytes().splitlines():
        record = json.loads(text)
        del record["crc"]
        if record["kind"] == kind:
            change(record)
        lines.append(line_of(record))
    (run / "journal.jsonl").write_bytes(b"".join(lines))


def of_task(run: Path, task_id: str, **changes: Any) -> None:
    edit(run, "task", lambda task: task.update(task_id=task_id, identity={**IDENTITY, **changes}))
    edit(run, "plan", lambda plan: plan["knowledge"].update(task=task_id))


def rows(text: str) -> dict[str, str]:
    """Label -> cells of each line of the piped tables."""
    return {line[:22].strip(): line[22:].strip() for line in text.splitlines()}


def test_what_differs_stands_side_by_side(hptune: Hptune, two: tuple[Path, Path]) -> None:
    answer = hptune("compare", *two)
    assert (answer.status, answer.err) == (0, "")
    found = rows(answer.out)
    assert found["baseline.lr"].split() == ["0.05", "0.0625"]
    assert found["budget.search_epochs"].split() == ["1.0", "2.0"]
    assert "name" not in found, "a run's name is no setting"
    assert "baseline.batch_size" not in found, "what is equal is not shown"
    assert found["state"].split() == ["finished", "finished"]
    assert found["confirmed"].split() == ["yes", "yes"]
    assert "note:" not in answer.out


def test_costs_and_recommendations_are_those_of_show(hptune: Hptune, two: tuple[Path, Path]) -> None:
    run = load(two[0])
    first = strict(hptune("compare", *two, "--json").out)["runs"][0]
    shown = strict(hptune("show", two[0], "--json").out)["recommendation"]
    assert first["trials"] == len(run.records) > 40
    assert first["samples"] == sum(record.samples for record in run.records)
    assert first["seconds"] == pytest.approx(sum(record.seconds for record in run.records))
    assert first["recommendation"] == {**shown["hyperparameters"], "epochs": shown["epochs"]}
    assert (first["gain"], first["better"]) == (shown["gain"], shown["better"])
    chosen = next(row for row in run.stage("confirm").conclusion.rows if row.chosen)  # type: ignore[union-attr]
    assert first["confirm"]["val_loss"] == chosen.val_loss
    assert first["confirm"]["test_loss"] is None, "there is no test part"


def test_the_document_has_one_value_a_run(hptune: Hptune, two: tuple[Path, Path]) -> None:
    document = strict(hptune("compare", *two, "--json").out)
    assert document["settings"] == {"baseline.lr": [0.05, 0.0625], "budget.search_epochs": [1.0, 2.0]}
    assert [run["run_dir"] for run in document["runs"]] == list(map(str, two))


def test_losses_on_the_test_part(hptune: Hptune, two: tuple[Path, Path]) -> None:
    chosen = next(row for row in load(two[1]).stage("confirm").conclusion.rows if row.chosen)  # type: ignore[union-attr]
    losses = iter((0.125, 0.25, 0.75))
    edit(two[1], "trial", lambda trial: trial.update(test_loss=next(losses)) if trial["trial_id"] in chosen.trials else None)
    assert strict(hptune("compare", *two, "--json").out)["runs"][1]["confirm"]["test_loss"] == 0.375
    assert rows(hptune("compare", *two).out)["test loss"].split() == ["–", "0.375"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": "f2"}, "their losses cannot be compared: other data"),
        ({"loss": {"name": "mse"}, "data": "f2"}, "their losses cannot be compared: other data, loss"),
        ({"metric": {"name": "f1"}}, "their metrics cannot be compared: other metric"),
        ({"model": "larger"}, None),
    ],
)
def test_what_cannot_be_compared_is_said(hptune: Hptune, two: tuple[Path, Path], changes: dict[str, Any], expected: str | None) -> None:
    of_task(two[0], "one")
    of_task(two[1], "other", **changes)
    notes = [line for line in hptune("compare", *two).out.splitlines() if line.startswith("note:")]
    assert notes == ([] if expected is None else [f"note: made up and other run: {expected}"])


def test_tasks_that_do_not_say_their_data_are_not_known_to_compare(hptune: Hptune, two: tuple[Path, Path]) -> None:
    edit(two[1], "task", lambda task: task.update(task_id="other"))
    assert "whether their losses can be compared is not known" in hptune("compare", *two).out


def test_an_unfinished_run_has_no_losses_at_full_length(hptune: Hptune, two: tuple[Path, Path]) -> None:
    lines = (two[1] / "journal.jsonl").read_bytes().splitlines(keepends=True)
    end = next(i for i, line in enumerate(lines) if b'"kind": "conclusion", "stage": "momentum"' in line)
    (two[1] / "journal.jsonl").write_bytes(b"".join(lines[: end + 1]))
    found = rows(hptune("compare", *two).out)
    assert found["state"].split() == ["finished", "finished"]
    assert found["confirmed"].split() == ["yes", "no"]
    assert found["val loss"].endswith("–")


def test_a_test_loss_that_is_no_result_is_none(hptune: Hptune, two: tuple[Path, Path]) -> None:
    losses = iter((0.125, 0.25, 1e300) * 50)
    edit(two[1], "trial", lambda trial: trial.update(test_loss=next(losses)))
    assert "test loss" not in rows(hptune("compare", *two).out)


def test_a_confirmation_that_the_config_no_longer_has_does_not_count(hptune: Hptune, two: tuple[Path, Path]) -> None:
    path = two[1] / "config.yaml"
    path.write_text(path.read_text().replace("confirm: {seeds: 3, finalists: 3}", "confirm: off"))
    first, second = strict(hptune("compare", *two, "--json").out)["runs"]
    assert (first["confirmed"], second["confirmed"]) == (True, False)
    assert (first["confirm"] is None, second["confirm"] is None) == (False, True)
    assert "stages.confirm" in rows(hptune("compare", *two).out)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_eighty_columns_hold_every_run(hptune: Hptune, two: tuple[Path, Path], count: int) -> None:
    paths = [*two, *(Path(shutil.copytree(two[1], f"runs/a copy {i}")) for i in range(count - 2))]
    config = paths[0] / "config.yaml"
    config.write_text(config.read_text().replace("values: [0.001, 0.0001]", "values: [0.001, 0.0001, 0.00001]"))
    runs = [load(path) for path in paths]
    console = Console()
    console.terminal = Terminal(file=io.StringIO(), width=80, force_terminal=True, color_system=None, highlight=False, markup=False)
    for _, table in comparison_tables(runs, console.width):
        console.table(table)
    text = console.terminal.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert all(title in text for title in run_titles(runs))
    assert "…" not in text, "what does not fit wraps"


def test_a_long_setting_is_whole_when_piped(hptune: Hptune, two: tuple[Path, Path]) -> None:
    path = two[1] / "config.yaml"
    values = [float(f"1e-{i}") for i in range(1, 10)]
    path.write_text(path.read_text().replace("values: [0.001, 0.0001]", f"values: {values}"))
    assert json.dumps(values) in hptune("compare", *two).out


def test_what_a_variable_holds_is_not_shown(hptune: Hptune, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "a-secret-value")
    path = two[1] / "config.yaml"
    path.write_text(path.read_text().replace("  name: small_cnn", "  name: ${MY_TOKEN}").replace("model: small_cnn", "model: ${MY_TOKEN}"))
    answer = hptune("compare", *two)
    assert "${MY_TOKEN}" in answer.out
    assert "a-secret-value" not in answer.out


def test_names_that_are_the_same_become_paths(hptune: Hptune, two: tuple[Path, Path]) -> None:
    shutil.copytree(two[0], "elsewhere/made up")
    header = hptune("compare", two[0], "elsewhere/made up").out.splitlines()[1]
    assert header.split("  ")[-2:] != ["made up", "made up"]
    assert "elsewhere/made up" in header


def test_a_damaged_journal_is_one_message(hptune: Hptune, two: tuple[Path, Path]) -> None:
    lines = (two[1] / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (two[1] / "journal.jsonl").write_bytes(b"".join([lines[0], b"damaged\n", *lines[1:]]))
    answer = hptune("compare", *two)
    assert (answer.status, answer.out, len(answer.err.splitlines())) == (1, "", 1)
    assert f"{os.path.join(OTHER, 'journal.jsonl')}, line 2: the line is damaged" in answer.err  # noqa: PTH118


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["runs/made up"], "two run directories"),
        (["runs/made up", "runs/made up/"], "twice"),
        (["runs/made up", "runs/othr run"], "did you mean runs/other run?"),
        (["c.yaml", "runs/made up"], "is a file"),
    ],
)
def test_mistakes_are_one_message(hptune: Hptune, two: tuple[Path, Path], given: list[str], said: str) -> None:
    answer = hptune("compare", *given)
    assert (answer.status, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert said in answer.err


def test_a_run_that_is_being_written_can_be_compared(hptune: Hptune, two: tuple[Path, Path]) -> None:
    from hptune.store.layout import RunLayout, hold_lock

    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert hptune("compare", *two).status == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before, "nothing is written"
    with hold_lock(RunLayout(two[0])):
        assert hptune("compare", *two).status == 0


def difference(hptune: Hptune, runs: tuple[Path, Path]) -> tuple[str, dict[str, Any]]:
    """The sentence about the two recommendations, and what the document says of it."""
    (said,) = (line for line in hptune("compare", *runs).out.splitlines() if " against " in line)
    return said, strict(hptune("compare", *runs, "--json").out)["differences"][0]


def with_losses(run: Path, factor: float) -> None:
    """Give all finalists of a run other learning rates, and losses `factor` times as high."""
    stage = load(run).stage("confirm")
    full = {trial for row in stage.conclusion.rows for trial in row.trials}  # type: ignore[union-attr]
    renamed: dict[str, str] = {}

    def moved(trial: dict[str, Any]) -> None:
        if trial["trial_id"] in full:
            trial["spec"]["hyperparameters"]["lr"] *= 1.5
            trial["val_loss"] *= factor
            renamed[trial["trial_id"]] = trial["trial_id"] = TrialRecord.from_json(trial).trial_id

    def planned(plan: dict[str, Any]) -> None:
        plan["trials"] = [renamed.get(trial, trial) for trial in plan["trials"]]
        for _, settings in plan["knowledge"]["settings"].get("finalists", ()):
            settings["lr"] *= 1.5

    edit(run, "trial", moved)
    edit(run, "plan", planned)


def test_the_same_recommendation_is_called_so(hptune: Hptune, two: tuple[Path, Path]) -> None:
    sentence, found = difference(hptune, two)
    assert sentence == "other run against made up: the same recommendation"
    assert (found["same"], found["claim"], found["why_not"]) == (True, False, None)


@pytest.mark.parametrize(
    ("factor", "claim", "said"), [(1.6, True, "worse beyond noise"), (0.6, True, "better beyond noise"), (1.0, False, "is not shown")]
)
def test_a_difference_is_claimed_only_beyond_noise(hptune: Hptune, two: tuple[Path, Path], factor: float, claim: bool, said: str) -> None:
    with_losses(two[1], factor)
    assert load(two[1]).recommendation != load(two[0]).recommendation
    sentence, found = difference(hptune, two)
    assert said in sentence
    assert "shared seeds" in sentence
    assert (found["claim"], found["same"]) == (claim, False)
    assert found["ratio"] == pytest.approx(factor)
    assert found["low"] < factor < found["high"]


def test_why_nothing_can_be_said_is_said(hptune: Hptune, two: tuple[Path, Path]) -> None:
    edit(two[1], "round", lambda plan: plan["trials"].append("0" * 16) if plan["stage"] == "confirm" else None)
    assert difference(hptune, two)[0].endswith("cannot be said: not both are confirmed at full length")
    of_task(two[0], "one")
    of_task(two[1], "other", data="f2")
    sentence, found = difference(hptune, two)
    assert sentence.endswith("cannot be said: their losses cannot be compared: other data")
    assert (found["claim"], found["ratio"]) == (None, None)
    assert found["why_not"].startswith("their losses")


@pytest.mark.parametrize(
    ("changes", "why_not"),
    [
        ({"full_epochs": 9.0}, "they are confirmed at different lengths, 5 and 9 epochs"),
        ({"rank_by": "metric"}, "one ranks by val_loss, the other by metric"),
        ({}, ""),
    ],
)
def test_confirmations_that_are_not_alike_are_not_compared(run_dir: Path, changes: dict[str, Any], why_not: str) -> None:
    run = load(run_dir)
    stages = tuple(replace(stage, knowledge=replace(stage.knowledge, **changes)) for stage in run.stages)
    assert versus(run, replace(run, stages=stages)).why_not == why_not


def test_confirmations_on_other_seeds_are_not_compared(run_dir: Path) -> None:
    run = load(run_dir)

    def moved(stage: StageResult) -> StageResult:
        specs = [replace(record.spec, seed=record.spec.seed + 1) for record in stage.records]
        return replace(stage, records=tuple(FakeRecord(record.trial_id, spec) for record, spec in zip(stage.records, specs, strict=True)))  # type: ignore[misc]

    assert versus(run, replace(run, stages=tuple(map(moved, run.stages)))).why_not == "they were confirmed on different seeds"


class FakeRecord(NamedTuple):
    """As much of a record as tells its seed; the seed would change the id."""

    trial_id: str
    spec: TrialSpec
