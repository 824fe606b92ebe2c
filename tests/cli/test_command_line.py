"""What is answered before anything is run: help, version, mistakes; and what is imported for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Hptune

COMMANDS = (
    "init",
    "check",
    "bench",
    "lr-range",
    "sweep",
    "run",
    "recommend",
    "train",
    "show",
    "compare",
    "watch",
    "runs",
    "report",
    "export",
    "explain",
)
HEAVY = ("numpy", "scipy", "pandas", "pydantic", "yaml", "optuna", "altair", "sklearn")


def test_help_names_every_command(hptune: Hptune) -> None:
    answer = hptune("--help")
    assert answer.status == 0
    assert [name for name in COMMANDS if name not in answer.out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(hptune: Hptune, command: str) -> None:
    answer = hptune(command, "--help")
    assert answer.status == 0
    assert f"hptune {command}" in answer.out.split("Example:")[1]


def test_version_is_told(hptune: Hptune) -> None:
    from hptune.version import __version__

    assert hptune("--version").out == f"hptune {__version__}\n"


def test_no_command_at_all_shows_the_help_and_fails(hptune: Hptune) -> None:
    answer = hptune()
    assert answer.status == 2
    assert "lr-range" in answer.out + answer.err


MISTAKES = {
    "command": (["rnu", "c.yaml"], ["rnu", "did you mean 'run'"]),
    "option": (["run", "c.yaml", "--seed", "3"], ["--seed", "did you mean", "--seeds"]),
    "top option": (["--versio"], ["--versio", "--version"]),
    "no config": (["run"], ["CONFIG"]),
    "one word too many": (["run", "c.yaml", "more"], ["more"]),
    "missing config": (["run", "d.yaml"], ["d.yaml", "c.yaml"]),
    "run directory for a config": (["run", "runs/made up"], ["run directory", "config.yaml"]),
    "folder for a config": (["train", "."], ["folder"]),
    "seeds": (["run", "c.yaml", "--seeds", "many"], ["--seeds", "whole number", "many"]),
    "no seeds": (["run", "c.yaml", "--seeds", "0"], ["--seeds", "at least 1"]),
    "budget": (["run", "c.yaml", "--budget", "soon"], ["--budget", "20m"]),
    "workers": (["run", "c.yaml", "--workers", "0"], ["--workers", "at least 1"]),
    "device": (["run", "c.yaml", "--device", "tpu"], ["--device", "cuda"]),
    "executor": (["run", "c.yaml", "--executor", "thread"], ["--executor", "serial", "process"]),
    "set without value": (["run", "c.yaml", "--set", "seeds"], ["--set", "key.path=value"]),
    "set of the wrong type": (["run", "c.yaml", "--set", "budget.epochs=zero"], ["--set", "budget.epochs", "number"]),
    "set of an unknown key": (["run", "c.yaml", "--set", "baseline.momentm=0.9"], ["--set", "momentm", "momentum"]),
    "sweep of nothing known": (["sweep", "momentm", "c.yaml"], ["--values", "momentum"]),
    "sweep in the wrong order": (["sweep", "c.yaml", "wd"], ["hptune sweep wd c.yaml"]),
    "sweep without values": (["sweep", "model.args.width", "c.yaml"], ["--values"]),
    "sweep with empty values": (["sweep", "model.args.width", "c.yaml", "--values", ""], ["--values"]),
    "stage with wrong values": (["sweep", "wd", "c.yaml", "--values=-1"], ["--values", "weight_decay", "-1"]),
    "preset": (["init", "x.yaml", "--preset", "digitz"], ["digitz", "digits"]),
    "init over a file": (["init", "c.yaml"], ["c.yaml", "not overwritten"]),
    "init over a folder": (["init", "runs"], ["runs", "folder"]),
    "batch sizes": (["bench", "c.yaml", "--batch-sizes", "32,many"], ["--batch-sizes", "whole numbers", "'many'"]),
    "no batch size": (["bench", "c.yaml", "--batch-sizes", ""], ["--batch-sizes", "32,64,128"]),
    "batch size of nothing": (["bench", "c.yaml", "--batch-sizes", "0"], ["--batch-sizes", "at least 1", "'0'"]),
    "batch larger than the data": (["bench", "c.yaml", "--batch-sizes", "64,2000"], ["--batch-sizes", "2,000", "1,280"]),
    "no time to measure": (["bench", "c.yaml", "--seconds", "0"], ["--seconds", "above 0"]),
    "check of nothing": (["check"], ["CONFIG"]),
    "show of no run": (["show", "runs/mode up"], ["did you mean runs/made up?"]),
    "show of a config": (["show", "c.yaml"], ["run directory"]),
    "unknown stage": (["show", "runs/made up", "--stage", "lr"], ["'lr'", "lr_range"]),
    "runs of no folder": (["runs", "nowhere"], ["nowhere"]),
    "recommend without a run": (["recommend", "c.yaml", "--run-dir", "other"], ["other", "hptune run"]),
    "recommend of two directories": (["recommend", "runs/made up", "--run-dir", "other"], ["--run-dir"]),
    "export to nowhere": (["export", "runs/made up"], ["--to"]),
    "explain an unknown topic": (["explain", "momentun"], ["'momentun'", "did you mean momentum?"]),
    "export to an unknown tool": (["export", "runs/made up", "--to", "pytorhc"], ["did you mean pytorch?"]),
}


@pytest.mark.usefixtures("engine", "run_dir")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_gets_one_line_and_exit_2(hptune: Hptune, project: Path, mistake: str) -> None:
    words, expected = MISTAKES[mistake]
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    answer = hptune(*words)
    assert answer.status == 2
    assert len(answer.err.strip().splitlines()) == 1
    assert [word for word in expected if word not in answer.err] == []
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before, "nothing is written"


def test_a_mistake_in_the_config_is_placed(hptune: Hptune, project: Path) -> None:
    text = (project / "c.yaml").read_text().replace("momentum: 0.9,", "momentm: 0.9,")
    (project / "c.yaml").write_text(text)
    answer = hptune("run", "c.yaml")
    assert answer.status == 2
    assert answer.err.startswith("error: c.yaml:4: baseline.momentm: ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says that there is no such file")
@pytest.mark.parametrize("command", ["run", "check", "recommend", "show", "report", "runs", "init"])
def test_a_name_too_long_for_any_file_is_a_mistake(hptune: Hptune, command: str) -> None:
    answer = hptune(command, "n" * 300)
    assert answer.status == 2
    assert answer.err.splitlines()[-1].endswith(": no file or folder can have a name this long")
    assert len(answer.err) < 400


def test_verbose_adds_the_traceback_of_a_mistake(hptune: Hptune) -> None:
    assert "Traceback" not in hptune("run", "d.yaml").err
    answer = hptune("run", "d.yaml", "--verbose")
    assert "Traceback" in answer.err
    assert answer.err.splitlines()[-1].startswith("error: d.yaml")


def test_a_bug_of_ours_is_called_one(hptune: Hptune, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, overrides: list[str]) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("hptune.config.loader.load_config", broken)
    answer = hptune("run", "c.yaml")
    assert answer.status == 1
    assert answer.err.splitlines() == [
        "error: internal error: ZeroDivisionError: division by zero; run again with --verbose for the traceback, and please report it"
    ]
    assert "Traceback" in hptune("run", "c.yaml", "--verbose").err


@pytest.fixture
def torchless(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing torch ends the program."""
    folder = tmp_path / "no torch"
    folder.mkdir()
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


READING = (
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["bench", "--help"],
    ["show", "runs/made up"],
    ["compare", "runs/made up", "runs/again"],
    ["watch", "runs/made up", "--once"],
    ["runs"],
    ["recommend", "c.yaml"],
    ["report", "runs/made up"],
    ["export", "runs/made up", "--to", "pytorch"],
    ["explain"],
    ["explain", "executors"],
)


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_what_only_reads_imports_no_torch(torchless: dict[str, str], run_dir: Path, project: Path, words: list[str]) -> None:
    shutil.copytree(run_dir, project / "runs" / "again")
    done = subprocess.run(
        [sys.executable, "-m", "hptune", *words], cwd=project, env=torchless, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_program_imports_nothing_heavy_for_its_help(project: Path) -> None:
    code = f"import sys, hptune.__main__, hptune.cli.app; print([m for m in {(*HEAVY, 'torch')!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_output_that_nobody_reads_ends_quietly(run_dir: Path, project: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hptune", "show", str(run_dir), "--json"]
    try:
        done = subprocess.run(command, cwd=project, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    finally:
        os.close(writer)
    assert done.stderr == ""
