"""The program called from inside the tests' process, in a folder of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import made_up
import pytest

from hptune.__main__ import main


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command line was answered with."""

    status: int
    out: str
    err: str


Hptune = Callable[..., Answer]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, its name with a space, holding c.yaml."""
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "c.yaml").write_text(made_up.CONFIG)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    return folder


@pytest.fixture
def hptune(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hptune:
    def call(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hptune", *map(str, words)])
        capsys.readouterr()
        status = main()
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return call


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are made up; torch is not needed."""
    for name, module in made_up.engine().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing figures takes seconds; one test of it is enough."""
    monkeypatch.setattr("hptune.report.write_report", lambda run: None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with every stage done."""
    from hptune.config.loader import load_config
    from hptune.session import open_session

    folder = tmp_path_factory.mktemp("finished run")
    (folder / "c.yaml").write_text(made_up.CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in made_up.engine().items():
            patch.setitem(sys.modules, name, module)
        with open_session(load_config(folder / "c.yaml"), run_dir=folder / "run") as session:
            for _ in session.run():
                pass
    return folder / "run"


@pytest.fixture
def run_dir(finished: Path, project: Path) -> Path:
    """A copy of the finished run at runs/<name>."""
    return Path(shutil.copytree(finished, project / "runs" / "made up")).relative_to(project)
