"""What shells get when Tab is pressed, asked as they ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hptune.cli import completion

HEAVY = ("torch", "numpy", "pandas", "scipy", "optuna", "altair", "sklearn")


def ask(folder: Path, **variables: str) -> str:
    """Run the program as a completion script does."""
    done = subprocess.run(
        [sys.executable, "-m", "hptune"],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(folder: Path, line: str) -> list[str]:
    words = line.split(" ")
    return ask(folder, _HPTUNE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)).split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("digits", "mnist", "not_a_run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "not_a_run":
            (tmp_path / "runs" / name / "journal.jsonl").touch()
    (tmp_path / "c.yaml").touch()
    (tmp_path / "notes.txt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hptune show ", ["runs/digits", "runs/mnist"]),
        ("hptune compare runs/digits runs/m", ["runs/mnist"]),
        ("hptune export --to p", ["pytorch"]),
        ("hptune run ", ["c.yaml", "runs/"]),
        ("hptune swe", ["sweep"]),
    ],
)
def test_bash_is_offered(folder: Path, line: str, offered: list[str]) -> None:
    assert bash(folder, line) == offered


def test_zsh_and_fish_are_offered(folder: Path) -> None:
    zsh = ask(folder, _HPTUNE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="hptune sweep ")
    assert [word in zsh for word in completion.SWEEPS] == [True, True, True]
    fish = ask(folder, _HPTUNE_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS="hptune watch r", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert fish.split() == ["runs/digits", "runs/mnist"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_for_bash_completes_in_bash(folder: Path) -> None:
    script = ask(folder, _HPTUNE_COMPLETE="source_bash")
    program = folder / "hptune"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hptune "$@"\n')
    program.chmod(0o755)
    asked = (
        f"{script}\nCOMP_WORDS=(hptune report runs/d)\nCOMP_CWORD=2\n_hptune_completion ./hptune\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(["bash", "--norc", "-c", asked], cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("runs/digits\n", "")


def test_every_completion_is_of_what_begins_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "train.py").write_text("class Net(nn.Module): ...\ndef load_data(): return 1, 2\n")
    (folder / "runs" / "c.yaml").touch()
    assert completion.run_directories("") == ["runs/digits", "runs/mnist"]
    assert completion.run_directories("nowhere/") == []
    assert completion.run_directories(f"{folder}/runs/d") == [f"{folder}/runs/digits"]
    assert completion.configs("runs/c") == ["runs/c.yaml"]
    assert completion.sources("runs/") == ["runs/digits", "runs/mnist", "runs/c.yaml", "runs/not_a_run/"]
    assert completion.python_files("t") == ["train.py"]
    assert completion.python_files("train.py:") == ["train.py:Net", "train.py:load_data"]
    assert completion.python_files("trian.py:") == []
    assert completion.data("d") == ["digits"]
    assert completion.models("res") == ["resnet20", "resnet56"]


def test_the_names_are_those_that_the_commands_take() -> None:
    from hptune.config.presets import preset_names
    from hptune.config.schema import DATA_NAMES
    from hptune.engine.nets import BUILT_IN
    from hptune.report.export import TARGETS
    from hptune.stages import STAGES
    from hptune.store.layout import RunLayout

    assert preset_names() == completion.PRESETS
    assert set(completion.DATA) < set(DATA_NAMES)
    assert set(completion.MODELS) <= set(BUILT_IN)
    assert completion.TOOLS == TARGETS
    assert tuple(STAGES) == completion.STAGES
    assert RunLayout(Path("r")).journal.name == completion.JOURNAL


def test_nothing_heavy_is_imported_to_complete(folder: Path) -> None:
    code = f"""
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules]))
from hptune.__main__ import main
main()
"""
    variables = {"_HPTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "hptune recommend ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split()[:2] == ["runs/digits", "runs/mnist"]
    assert done.stdout.splitlines()[-1] == "[]"
