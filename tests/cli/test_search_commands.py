"""Commands that train, with a made-up training in place of the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import pytest
from conftest import Hptune

from hptune.cli.console import output_reserved
from hptune.store.journal import replay

pytestmark = pytest.mark.usefixtures("engine")


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def test_run_tells_each_stage_and_ends_with_the_recommendation(hptune: Hptune, project: Path) -> None:
    answer = hptune("run", "c.yaml")
    assert (answer.status, answer.err) == (0, "")
    for stage, heading in enumerate(("LR range test", "batch size", "momentum", "weight decay", "joint refinement", "confirmation"), 1):
        assert f"stage {stage} of 6: {heading}" in answer.out
    assert "from LR 0.05, batch size 64, momentum 0.9 to 0.85, weight decay 1e-04 (the config's baseline)" in answer.out
    assert "(LR range test)" in answer.out, "later stages say what they owe to earlier ones"
    assert "note: this training is made up" in answer.out
    end = answer.out.split("\nrecommendation\n")[1]
    assert "better than the baseline" in end
    assert "hptune train 'runs/made up/recommended.yaml'" in end, "what to type next is quoted for a shell"
    assert (project / "runs" / "made up" / "report.html").exists()


@pytest.mark.usefixtures("no_report")
def test_quiet_leaves_conclusions_and_the_recommendation(hptune: Hptune) -> None:
    answer = hptune("run", "c.yaml", "--quiet")
    assert answer.status == 0
    assert "seed 1" not in answer.out
    assert "stage 1 of 6" not in answer.out
    assert "weight decay 0.001 goes on" in answer.out
    assert "recommended" in answer.out


@pytest.mark.usefixtures("no_report")
def test_json_is_one_document_and_the_rest_goes_to_standard_error(hptune: Hptune, project: Path) -> None:
    answer = hptune("run", "c.yaml", "--json")
    document = strict(answer.out)
    assert list(document["stages"]) == ["lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm"]
    assert document["recommendation"]["confirmed"] is True
    assert document["stages"]["weight_decay"]["table"][0]["verdict"] == "best"
    assert "stage 1 of 6" in answer.err
    assert document["run_dir"] == str(project / "runs" / "made up")


def test_what_user_code_prints_does_not_spoil_the_json(capfd: pytest.CaptureFixture[str]) -> None:
    with output_reserved(True):
        print("from python")
        sys.stderr.flush()
        subprocess.run(["echo", "from a child"], check=True)
    print("{}")
    captured = capfd.readouterr()
    assert captured.out == "{}\n"
    assert "from a child" in captured.err


def test_a_stage_alone_then_another(hptune: Hptune, project: Path) -> None:
    first = hptune("lr-range", "c.yaml")
    assert (first.status, "hptune recommend 'runs/made up'" in first.out) == (0, True)
    assert "stage 1 of" not in first.out, "one stage is not counted"
    second = hptune("sweep", "wd", "c.yaml", "--values", "1e-2,1e-3")
    assert (second.status, "(LR range test)" in second.out) == (0, True)
    plan = replay(project / "runs" / "made up" / "journal.jsonl").plans["weight_decay"]
    assert plan["knowledge"]["settings"]["values"] == [1e-2, 1e-3]
    assert (project / "runs" / "made up" / "tables" / "weight_decay.csv").exists()


@pytest.mark.parametrize("values", [[], ["--values", "0.8"]])
def test_a_stage_that_the_config_leaves_out_runs_when_asked_for(hptune: Hptune, values: list[str]) -> None:
    answer = hptune("sweep", "momentum", "c.yaml", "--set", "stages.momentum=off", *values)
    assert (answer.status, "goes on" in answer.out) == (0, True)


def test_another_key_is_swept_by_the_same_machinery(hptune: Hptune) -> None:
    answer = hptune("sweep", "schedule.lr_ratio", "c.yaml", "--values", "5,20")
    assert answer.status == 0
    assert "schedule.lr_ratio 5, LR 0.05" in answer.out, "a trial's line says which value it had"


def test_options_reach_the_config(hptune: Hptune, project: Path) -> None:
    from hptune.config.loader import load_config

    options = ["--device", "cpu", "--executor", "serial", "--workers", "3", "--seeds", "1", "--budget", "4"]
    assert hptune("lr-range", "c.yaml", *options, "--run-dir", "elsewhere").status == 0
    found = load_config(project / "elsewhere" / "config.yaml").experiment
    assert (found.device, found.executor.name, found.executor.workers, found.seeds, found.budget.search) == ("cpu", "serial", 3, 1, 4)


def test_fresh_starts_over_and_keeps_the_old_directory(hptune: Hptune, project: Path) -> None:
    hptune("lr-range", "c.yaml")
    old = (project / "runs" / "made up" / "journal.jsonl").read_bytes()
    answer = hptune("lr-range", "c.yaml", "--fresh")
    assert answer.status == 0
    kept = [path for path in (project / "runs").iterdir() if path.name != "made up"]
    assert [(path / "journal.jsonl").read_bytes() for path in kept] == [old]


def stopping_after(trials: int, stop: Callable[[], None]) -> Callable[[Any], Any]:
    """A training that calls `stop` in place of the trial after `trials`."""
    done = 0

    def work(item: Any) -> Any:
        nonlocal done
        done += 1
        if done > trials:
            stop()
        return made_up.perform(item)

    return work


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.sigtimedwait([], 0)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("stop", [interrupt, terminate])
def test_an_interrupted_run_says_how_to_continue_and_does(
    hptune: Hptune, project: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]
) -> None:
    for name, module in made_up.engine(stopping_after(5, stop)).items():
        monkeypatch.setitem(sys.modules, name, module)
    answer = hptune("run", "c.yaml", "--run-dir", "my run", "--fresh")
    assert answer.status == 130
    assert answer.err.splitlines()[-1].strip() == "hptune run c.yaml --run-dir 'my run'", "--fresh would start over"
    run = project / "my run"
    kept = [line for line in journal(run) if line["kind"] == "trial"]
    assert len(kept) == 5
    for name, module in made_up.engine().items():
        monkeypatch.setitem(sys.modules, name, module)
    assert hptune("run", "c.yaml", "--run-dir", "my run").status == 0
    assert [line for line in journal(run) if line["kind"] == "trial"][:5] == kept


def test_a_stage_in_which_nothing_works_ends_in_exit_1(hptune: Hptune, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(item: Any) -> Any:
        raise RuntimeError("out of luck")

    for name, module in made_up.engine(work).items():
        monkeypatch.setitem(sys.modules, name, module)
    answer = hptune("sweep", "momentum", "c.yaml")
    assert answer.status == 1
    assert answer.err.startswith("error: stage momentum: ")
    assert "out of luck" in answer.out
    assert "Traceback" not in answer.out + answer.err


def test_an_error_found_while_opening_is_placed_in_the_config(hptune: Hptune, monkeypatch: pytest.MonkeyPatch) -> None:
    from hptune.errors import ConfigError

    def refuse(experiment: Any) -> Any:
        raise ConfigError("no such network", key="model.name")

    monkeypatch.setattr(sys.modules["hptune.engine.problem"], "open_problem", refuse)
    answer = hptune("run", "c.yaml")
    assert (answer.status, answer.err) == (2, "error: c.yaml:3: model.name: no such network\n")
    answer = hptune("run", "c.yaml", "--set", "model.name=other")
    assert answer.err == "error: --set: model.name: no such network\n"


def test_a_second_process_is_told_who_writes(hptune: Hptune, project: Path) -> None:
    from hptune.store.layout import RunLayout, hold_lock

    with hold_lock(RunLayout(project / "runs" / "made up")):
        answer = hptune("run", "c.yaml")
    assert answer.status == 1
    assert str(os.getpid()) in answer.err
