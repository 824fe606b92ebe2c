"""What a command says to type next: it ends with it, and it can be typed as it stands."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import Answer, Hptune

from hptune.cli.summary import shown
from hptune.store.journal import line_of


def following(answer: Answer) -> list[list[str]]:
    """The commands at the end of what was printed, as words."""
    text, _, commands = answer.out.rpartition("next:\n")
    assert text or answer.out.startswith("next:\n"), "it names no command"
    return [shlex.split(line) for line in commands.splitlines()]


def shortened(run: Path, name: str, keep: int, *more: bytes) -> Path:
    """A copy of the run whose journal has its first `keep` lines and `more`."""
    copy = Path(shutil.copytree(run, run.with_name(name)))
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "journal.jsonl").write_bytes(b"".join([*lines[:keep], *more]))
    shutil.rmtree(copy / "tables", ignore_errors=True)
    return copy


def test_a_finished_run_is_recommended_then_used(hptune: Hptune, run_dir: Path) -> None:
    (run_dir / "recommended.yaml").unlink(missing_ok=True)  # the run that is copied serves other tests too
    assert following(hptune("show", run_dir)) == [["hptune", "recommend", "runs/made up"]]
    use = [["hptune", "train", "runs/made up/recommended.yaml"], ["hptune", "export", "runs/made up", "--to", "pytorch"]]
    assert following(hptune("recommend", run_dir)) == use
    assert following(hptune("show", run_dir)) == use
    assert following(hptune("report", run_dir)) == use
    assert following(hptune("show", run_dir, "--stage", "momentum")) == [["hptune", "show", "runs/made up"]]


@pytest.mark.usefixtures("engine", "no_report")
@pytest.mark.parametrize("keep", [1, 9, 20])
def test_an_unfinished_run_is_gone_on_with_from_its_directory_alone(hptune: Hptune, run_dir: Path, project: Path, keep: int) -> None:
    cut = shortened(run_dir, "cut short", keep)
    command = ["hptune", "run", "runs/cut short/config.yaml", "--run-dir", "runs/cut short"]
    assert following(hptune("show", cut))[0] == command
    (project / "c.yaml").unlink()
    answer = hptune(*command[1:])
    assert (answer.status, following(answer)[0][:2]) == (0, ["hptune", "train"])
    trials = [json.loads(line)["trial_id"] for line in (cut / "journal.jsonl").read_text().splitlines() if '"kind": "trial"' in line]
    whole = [json.loads(line)["trial_id"] for line in (run_dir / "journal.jsonl").read_text().splitlines() if '"kind": "trial"' in line]
    assert sorted(trials) == sorted(whole), "nothing is run twice, and nothing else"


def test_where_nothing_can_be_recommended_yet(hptune: Hptune, run_dir: Path) -> None:
    answer = hptune("recommend", shortened(run_dir, "begun", 9))
    assert answer.status == 1
    assert answer.err.strip().endswith("go on with: hptune run runs/begun/config.yaml --run-dir runs/begun")


def test_a_full_training_alone(hptune: Hptune, run_dir: Path) -> None:
    lines = (run_dir / "journal.jsonl").read_bytes().splitlines(keepends=True)
    trial = next(line for line in lines if b'"kind": "trial"' in line)
    answer = hptune("show", shortened(run_dir, "trained", 1, trial, line_of({"kind": "weights", "trial_id": "x"})))
    assert "a full training alone: there is nothing to recommend before a stage is run" in answer.out
    assert following(answer)[0][:2] == ["hptune", "run"]


def test_lists_and_comparisons_lead_to_what_they_list(hptune: Hptune, run_dir: Path, project: Path) -> None:
    assert following(hptune("runs")) == [["hptune", "show", "runs/made up"]]
    shutil.copytree(run_dir, project / "runs" / "again")
    assert following(hptune("runs")) == [["hptune", "show", "runs/again"], ["hptune", "compare", "runs/again", "runs/made up"]]
    assert following(hptune("compare", run_dir, "runs/again")) == [["hptune", "show", "runs/made up"], ["hptune", "show", "runs/again"]]


def test_a_check_without_code_leads_to_one_with(hptune: Hptune) -> None:
    answer = hptune("check", "c.yaml", "--no-code", "--set", "seed=1")
    assert following(answer) == [["hptune", "check", "c.yaml", "--set", "seed=1"]]


@pytest.mark.usefixtures("engine")
def test_a_stage_that_fails_leads_to_what_was_seen(hptune: Hptune) -> None:
    answer = hptune("sweep", "momentum", "c.yaml", "--set", "baseline.lr=9")
    if answer.status == 0:
        pytest.fail("the stage was to fail")
    assert following(answer) == [["hptune", "show", "runs/made up"], ["hptune", "explain", "clues"]]


def test_paths_are_said_where_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shown(tmp_path / "run") == str(tmp_path / "run")
