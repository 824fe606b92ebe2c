"""The program from outside, with real trainings: what a user types and what is on disk afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from outside import hold, hptune, lasting, rows, start, trials, wait_for_trials

from hptune.errors import LockedError
from hptune.store.layout import RunLayout, hold_lock


def test_a_run_leaves_what_the_readme_says(tiny_run: Path) -> None:
    run = tiny_run / "runs" / "tiny"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    stages = ("lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm")
    assert {"config.yaml", "environment.json", "journal.jsonl", "recommended.yaml", "report.html"} <= names
    assert {f"tables/{stage}.{suffix}" for stage in stages for suffix in ("csv", "md")} <= names
    assert {f"curves/{trial['trial_id']}.csv" for trial in trials(run)} <= names
    assert "figures/lr_range.png" in names


def test_the_same_command_again_trains_nothing(tiny_run: Path) -> None:
    run = tiny_run / "runs" / "tiny"
    before, journal = lasting(run), (run / "journal.jsonl").read_bytes()
    hptune(tiny_run, "run", "c.yaml")
    assert (run / "journal.jsonl").read_bytes() == journal
    assert lasting(run) == before


def test_what_was_recommended_can_be_trained_and_says_where_its_weights_are(tiny_run: Path) -> None:
    out, err = hptune(tiny_run, "train", "runs/tiny/recommended.yaml", "--json")
    weights = tiny_run / "runs" / "tiny-recommended" / "checkpoints" / "weights.pt"
    assert weights.stat().st_size > 0
    assert hold(out, "training")["weights"] == str(weights)
    assert "weights.pt" in err
    out, err = hptune(tiny_run, "train", "runs/tiny/recommended.yaml")
    assert "done already" in out + err


def test_training_in_the_directory_of_a_search_leaves_its_conclusions_alone(tiny_run: Path) -> None:
    shutil.copytree(tiny_run / "runs" / "tiny", tiny_run / "both")
    before = {name: (tiny_run / "both" / name).read_text() for name in ("config.yaml", "recommended.yaml")}
    hptune(tiny_run, "train", "both/recommended.yaml", "--run-dir", "both", "--quiet")
    hptune(tiny_run, "recommend", "both")
    assert {name: (tiny_run / "both" / name).read_text() for name in before} == before
    assert (tiny_run / "both" / "checkpoints" / "weights.pt").exists()


def test_one_process_writes_a_run_directory_and_says_how_to_continue_when_stopped(tiny_run: Path) -> None:
    process = start(tiny_run, "run", "c.yaml", "--run-dir", "a held one")
    wait_for_trials(tiny_run / "a held one", 1, process)
    with pytest.raises(LockedError, match=f"process {process.pid} "), hold_lock(RunLayout(tiny_run / "a held one")):
        pass
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run c.yaml --run-dir 'a held one'" in err


def test_a_stage_alone_and_then_any_other_key(tiny_run: Path) -> None:
    hptune(tiny_run, "lr-range", "c.yaml", "--run-dir", "stages", "--quiet")
    out, _ = hptune(tiny_run, "sweep", "model.args.dropout", "c.yaml", "--values", "0,0.2", "--run-dir", "stages", "--json")
    hold(out, "run")
    table = rows(tiny_run / "stages" / "tables" / "model.args.dropout.csv")
    assert {row["dropout"] for row in table} == {"0", "0.2"}


@pytest.mark.parametrize("key", ["executor.workers", "data.workers"])
def test_sweeping_what_changes_no_training_is_refused(tiny_run: Path, key: str) -> None:
    _, err = hptune(tiny_run, "sweep", key, "c.yaml", "--values", "1,2", "--run-dir", "none", status=2)
    assert "changes no single training" in err


def test_check_estimates_and_writes_nothing(tiny_run: Path) -> None:
    before = set(tiny_run.iterdir())
    out, _ = hptune(tiny_run, "check", "c.yaml", "--json")
    found = hold(out, "check")
    assert [stage["stage"] for stage in found["stages"]] == ["lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm"]
    assert all(stage["trials"] > 0 and stage["seconds"] > 0 for stage in found["stages"][:1])
    assert found["seconds"] > 0
    assert set(tiny_run.iterdir()) == before


def test_check_shows_how_long_the_runs_are_that_a_budget_buys(tiny_run: Path) -> None:
    longest = []
    for budget in ("8", "60"):
        out, _ = hptune(
            tiny_run, "check", "c.yaml", "--json", "--budget", budget, "--set", "budget.search_epochs=1", "--set", "budget.epochs=5"
        )
        longest.append({stage["stage"]: stage["longest"] for stage in json.loads(out)["stages"]})
    assert longest[0]["refine"] <= 1
    assert 1.9 <= longest[1]["refine"] <= 5
    assert longest[1]["confirm"] == pytest.approx(5, rel=0.1)


def test_check_says_what_a_run_would_do_for_nothing(tiny_run: Path) -> None:
    sets = [
        word for text in ("batch_size.values=[64,2048]", "momentum.values=[0.9]", "confirm=off") for word in ("--set", f"stages.{text}")
    ]
    notes = json.loads(hptune(tiny_run, "check", "c.yaml", "--json", *sets)[0])["notes"]
    for text in ("leaves out 2048: more than the 240", "momentum has one value, 0.9", "confirm is off"):
        assert any(text in note for note in notes), text
