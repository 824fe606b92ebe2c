"""Commands that read a run directory, and those that write and check a config."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Hptune
from test_search_commands import strict

from hptune.cli import words
from hptune.cli.documents import run_summary
from hptune.cli.results import runs_table
from hptune.report import load


def test_show_prints_every_table_and_the_recommendation(hptune: Hptune, run_dir: Path) -> None:
    answer = hptune("show", run_dir)
    assert (answer.status, answer.err) == (0, "")
    for text in ("LR range test", "weight decay 0.001 goes on", "joint refinement", "baseline", "recommended"):
        assert text in answer.out


@pytest.mark.parametrize("given", ["weight_decay", "weight-decay", "wd"])
def test_show_of_one_stage(hptune: Hptune, run_dir: Path, given: str) -> None:
    answer = hptune("show", run_dir, "--stage", given)
    assert "weight decay 0.001 goes on" in answer.out
    assert "joint refinement" not in answer.out


def test_show_as_json_is_strict_and_matches_the_tables_on_disk(hptune: Hptune, run_dir: Path) -> None:
    document = strict(hptune("show", run_dir, "--json").out)
    header, first = (run_dir / "tables" / "momentum.csv").read_text().splitlines()[:2]
    table = document["stages"]["momentum"]["table"]
    assert list(table[0]) == header.split(",")
    assert str(table[0]["val_loss"]) in first
    assert document["state"] == "finished"


def test_nothing_is_written_by_showing(hptune: Hptune, run_dir: Path, project: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*"))
    for command in (["show", run_dir], ["runs"], ["export", run_dir, "--to", "optuna"]):
        assert hptune(*command).status == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in project.rglob("*")) == before


def test_runs_lists_good_and_damaged_runs(hptune: Hptune, run_dir: Path, project: Path) -> None:
    broken = project / "runs" / "broken"
    shutil.copytree(run_dir, broken)
    lines = (broken / "journal.jsonl").read_text().splitlines()
    (broken / "journal.jsonl").write_text("\n".join([lines[0], "damaged", *lines[1:]]) + "\n")
    rows = {row["name"]: row for row in strict(hptune("runs", "--json").out)}
    assert (rows["made up"]["state"], rows["made up"]["confirmed"], len(rows["made up"]["stages_done"])) == ("finished", True, 6)
    assert (rows["broken"]["state"], "line 2" in rows["broken"]["error"]) == ("unreadable", True)
    table = hptune("runs").out
    assert "finished" in table
    assert "unreadable" in table


def test_runs_tells_cost_and_the_best_metric_in_eighty_columns(hptune: Hptune, run_dir: Path) -> None:
    (row,) = strict(hptune("runs", "--json").out)
    run = load(run_dir)
    assert row["seconds"] == pytest.approx(sum(record.seconds for record in run.records))
    assert (row["metric"], row["best_metric"]) == ("accuracy", pytest.approx(0.9))
    table = runs_table([row])
    cells = dict(zip([c.title for c in table.columns], table.rows[0], strict=True))
    assert (cells["trials"], cells["time"], cells["best metric"]) == (str(len(run.records)), words.duration(row["seconds"]), "0.9")
    fitted = table.fitted(78)
    assert {"run", "state", "trials", "time", "best loss", "best metric"} <= {column.title for column in fitted.columns}
    assert max(map(len, fitted.lines())) <= 78


@pytest.mark.parametrize(("mode", "best"), [("min", 0.1), ("max", 0.9)])
def test_the_best_metric_is_the_lowest_where_lower_is_better(hptune: Hptune, run_dir: Path, mode: str, best: float) -> None:
    config = run_dir / "config.yaml"
    config.write_text(config.read_text().replace("metric: accuracy", f"metric: {{name: accuracy, mode: {mode}}}"))
    run = load(run_dir)
    assert run.loaded is not None
    assert run.loaded.experiment.metric.mode == mode
    stage = run.stages[0]
    assert stage.conclusion is not None
    first, *rest = stage.conclusion.rows
    changed = replace(stage, conclusion=replace(stage.conclusion, rows=(replace(first, metric=0.1), *rest)))
    assert run_summary(replace(run, stages=(changed, *run.stages[1:])))["best_metric"] == pytest.approx(best)
    assert run_summary(replace(run, loaded=None))["best_metric"] is None


def test_runs_where_there_are_none(hptune: Hptune) -> None:
    answer = hptune("runs")
    assert (answer.status, answer.out) == (0, "no run directories in runs\nnext:\n  hptune init\n")
    assert strict(hptune("runs", "--json").out) == []


@pytest.mark.parametrize("by", ["config", "directory"])
def test_recommend_rebuilds_what_can_be_rebuilt(hptune: Hptune, run_dir: Path, by: str) -> None:
    shutil.rmtree(run_dir / "tables")
    answer = hptune("recommend", "c.yaml" if by == "config" else run_dir)
    assert (answer.status, answer.err) == (0, "")
    assert (run_dir / "recommended.yaml").exists()
    assert (run_dir / "tables" / "recommendation.csv").exists()
    assert "differs" not in answer.out


def test_recommend_says_where_the_config_has_moved_on(hptune: Hptune, run_dir: Path, project: Path) -> None:
    text = (project / "c.yaml").read_text()
    (project / "c.yaml").write_text(text.replace("trials: 2", "trials: 3") + "seeds: 4\n")
    answer = hptune("recommend", "c.yaml")
    assert "note: c.yaml differs from what was run in seeds, stages.refine.trials;" in answer.out


def test_recommend_before_any_stage_is_finished_fails(hptune: Hptune, run_dir: Path) -> None:
    journal = run_dir / "journal.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(keepends=True) if '"conclusion"' not in line))
    answer = hptune("recommend", run_dir)
    assert answer.status == 1
    assert "nothing to recommend yet" in answer.err


def test_report_is_written_from_the_directory_alone(hptune: Hptune, run_dir: Path) -> None:
    assert hptune("report", run_dir).status == 0
    assert (run_dir / "report.html").exists()
    assert list((run_dir / "figures").glob("*.png"))


def test_export_prints_the_text_alone(hptune: Hptune, run_dir: Path) -> None:
    answer = hptune("export", run_dir, "--to", "pytorch")
    assert (answer.status, answer.err) == (0, "")
    compile(answer.out, "export.py", "exec")


def test_init_writes_a_commented_config_that_loads(hptune: Hptune, project: Path) -> None:
    from hptune.config.loader import load_config

    answer = hptune("init", "new.yaml", "--preset", "mnist")
    assert "hptune check new.yaml" in answer.out
    assert "#" in (project / "new.yaml").read_text()
    assert load_config(project / "new.yaml").experiment.data.name == "mnist"


def test_init_writes_a_presets_companion_and_spares_what_is_there(hptune: Hptune, project: Path) -> None:
    assert hptune("init", "own.yaml", "--preset", "custom").status == 0
    companion = next(project.glob("*.py"))
    companion.write_text("mine")
    answer = hptune("init", "other.yaml", "--preset", "custom")
    assert (answer.status, companion.read_text(), (project / "other.yaml").exists()) == (2, "mine", False)


def test_the_schema_needs_no_config(hptune: Hptune) -> None:
    schema = strict(hptune("check", "--schema").out)
    assert {"data", "model", "stages"} <= set(schema["properties"])


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from hptune.estimate import Check, StageEstimate
    from hptune.trial import Numerics

    stage = StageEstimate(stage="lr_range", trials=12, steps=1200, samples=76800, longest=2.0, seconds=90.0)
    found = Check(
        name="made up", run_dir="runs/made up", device="cpu", device_model="made-up device", precision="fp32",
        numerics=Numerics(device_model="made-up device", channels_last=True, threads=2), train_samples=1280,
        val_samples=320, test_samples=0, classes=0, parameters=1, workers=2, seconds_per_step=float("nan"), stages=(stage,), seconds=90.0,
        memory=2**29, user_code=("mine.py:load",), code_files=("mine.py",), notes=("a note",),
    )  # fmt: skip
    monkeypatch.setattr("hptune.estimate.check", lambda loaded: found)


@pytest.mark.usefixtures("checked")
def test_check_tells_cost_and_whose_code_runs(hptune: Hptune) -> None:
    out = hptune("check", "c.yaml", "--set", "seed=1", "--seeds", "3").out
    for text in (
        "regression",
        "1 parameter;",
        "fp32, channels-last, 2 CPU threads a trial",
        "mine.py:load",
        "note: a note",
        "LR range test",
        "1,200",
        "90 s",
        "2 workers",
        "memory: 512 MiB a process",
    ):
        assert text in out
    assert "hptune run c.yaml --set seed=1 --seeds 3" in out, "what to type next keeps the options"


@pytest.mark.usefixtures("checked")
def test_check_as_json(hptune: Hptune) -> None:
    document: dict[str, Any] = json.loads(hptune("check", "c.yaml", "--json", "--run-dir", "there").out)
    assert (document["seconds_per_step"], document["run_dir"], document["stages"][0]["trials"]) == (None, "there", 12)


def flip_a_byte(journal: Path, word: bytes) -> int:
    """Damage a digit in the first line that holds `word`; return the line's number."""
    content = bytearray(journal.read_bytes())
    at = content.index(word)
    digit = next(i for i in range(content.index(b": ", at), len(content)) if chr(content[i]).isdigit())
    content[digit] ^= 1
    journal.write_bytes(content)
    return content.count(b"\n", 0, at) + 1


@pytest.mark.parametrize("given", ["run directory", "config"])
def test_a_damaged_journal_is_salvaged_on_request_and_the_run_continues(
    hptune: Hptune, run_dir: Path, engine: None, no_report: None, given: str
) -> None:
    hptune("recommend", run_dir)
    recommended = (run_dir / "recommended.yaml").read_text()
    trials = (run_dir / "journal.jsonl").read_text().count('"kind": "trial"')
    line = flip_a_byte(run_dir / "journal.jsonl", b'"val_loss"')
    source = run_dir if given == "run directory" else Path("c.yaml")
    for command in (["recommend", source], ["show", run_dir], ["run", "c.yaml"]):
        answer = hptune(*command)
        assert answer.status == 1
        assert f"journal.jsonl, line {line}: the line is damaged" in answer.err
        assert re.search(r"go on with the lines that are intact: hptune recommend '.*runs/made up' --salvage", answer.err)
    answer = hptune("recommend", source, "--salvage")
    assert answer.status == 0
    assert f"left line {line} out of the journal" in answer.out
    assert "journal.damaged-1.jsonl" in answer.out
    assert hptune("show", run_dir).status == 0
    assert hptune("run", "c.yaml").status == 0
    assert (run_dir / "journal.jsonl").read_text().count('"kind": "trial"') == trials
    assert (run_dir / "recommended.yaml").read_text() == recommended


def test_salvaging_what_is_whole_says_so(hptune: Hptune, run_dir: Path) -> None:
    answer = hptune("recommend", run_dir, "--salvage")
    assert answer.status == 0
    assert "no line of the journal is damaged" in answer.out
