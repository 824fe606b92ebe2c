"""`hptune init`: by options, from code, and by asking on a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Hptune

from hptune.config.loader import load_config

pty = pytest.importorskip("pty")

CODE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, hidden=8): ...
def load_data():
    return (1, 2), (3, 4)
def more_data():
    return (1, 2), (3, 4)
"""


def test_a_file_alone_lists_what_it_holds_and_writes_nothing(hptune: Hptune, project: Path) -> None:
    (project / "own.py").write_text(CODE)
    answer = hptune("init", "new.yaml", "--from", "own.py")
    assert answer.status == 0
    assert [line.split() for line in answer.out.splitlines()[1:4]] == [
        ["model", "own.py:Net"],
        ["data", "own.py:load_data"],
        ["data", "own.py:more_data"],
    ]
    assert "hptune init new.yaml --from own.py:Net --data own.py:load_data" in answer.out
    assert not (project / "new.yaml").exists()


def test_a_model_and_its_data_become_a_config(hptune: Hptune, project: Path) -> None:
    (project / "own.py").write_text(CODE)
    answer = hptune("init", "new.yaml", "--from", "own.py:Net", "--data", "own.py:more_data", "--lr", "0.3", "--budget", "20m")
    assert (answer.status, answer.err) == (0, "")
    assert "hptune check new.yaml" in answer.out
    experiment = load_config(project / "new.yaml").experiment
    assert (experiment.baseline.lr, experiment.budget.search_seconds) == (0.3, 1200)
    assert experiment.data.target == f"{project / 'own.py'}:more_data"


def test_what_is_to_be_filled_in_or_written_is_said(hptune: Hptune, project: Path) -> None:
    (project / "own.py").write_text("from torch import nn\nclass Net(nn.Module):\n    def __init__(self, hidden): ...\n")
    answer = hptune("init", "new.yaml", "--from", "own.py:Net")
    assert "fill in before the next command: path: FILL_IN, hidden: FILL_IN" in answer.out
    assert (project / "own_data.py").exists()
    refused = hptune("check", "new.yaml")
    assert refused.status == 2
    assert "data.args.path: still says FILL_IN: give a value; so do model.args.hidden" in refused.err
    again = hptune("init", "other.yaml", "--from", "own.py:Net")
    assert (again.status, "own_data.py exists" in again.err) == (2, True)
    assert not (project / "other.yaml").exists(), "nothing is written where not all can be"


PATIENCE = 30  # seconds for which nothing new is said
ON_ITS_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C interrupts
from hptune.__main__ import main
sys.exit(main())
"""
STYLE = re.compile(r"\x1b\[[0-9;]*m")
MISTAKES = {
    "preset and more": (["--preset", "digits", "--lr", "0.1", "--from", "c.py:f"], ["leave out --from, --lr"]),
    "no such name": (["--from", "own.py:Nett"], ["did you mean 'Net'"]),
    "no such file": (["--from", "won.py:Net"], ["won.py", "did you mean 'own.py'"]),
    "two models": (["--from", "own.py:Net", "--model", "mlp"], ["not both"]),
    "no name": (["--from", "own:"], ["FILE.py:NAME"]),
    "unclear data": (["--from", "own.py:Net"], ["--data own.py:load_data or --data own.py:more_data"]),
    "wrong number": (["--data", "digits", "--lr", "0"], ["--lr", "above 0"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(hptune: Hptune, project: Path, mistake: str) -> None:
    (project / "own.py").write_text(CODE)
    words, expected = MISTAKES[mistake]
    answer = hptune("init", "new.yaml", *words)
    assert (answer.status, len(answer.err.splitlines())) == (2, 1)
    assert [word for word in expected if word not in answer.err] == []
    assert not (project / "new.yaml").exists()


class Conversation:
    """`hptune init` on a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.screen, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        command = [sys.executable, "-c", ON_ITS_TERMINAL, "init", *words]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self.text = ""

    def expect(self, words: str, answer: str) -> None:
        """Wait for words, then type the answer."""
        while words not in self.text:
            read = self._read()
            assert read, f"{words!r} did not come: {self.text}"
            self.text += read
        self.text = self.text.partition(words)[2]
        os.write(self.screen, answer.encode())

    def leave(self, key: str) -> int:
        """Press a key until the program has ended: between a question and the reading of its answer Python can miss the first Ctrl-C."""
        for _ in range(PATIENCE):
            os.write(self.screen, key.encode())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                break
        return self.end()

    def end(self) -> int:
        while read := self._read():
            self.text += read
        os.close(self.screen)
        return self.process.wait(PATIENCE)

    def _read(self) -> str:
        """What is on the screen besides, without its style; nothing once the program has ended, or does not go on."""
        if not select.select([self.screen], [], [], PATIENCE)[0]:
            self.process.kill()
            return ""
        try:
            return STYLE.sub("", os.read(self.screen, 4096).decode())
        except OSError:  # Linux's way to say that nobody holds the other end
            return ""


def test_it_asks_on_a_terminal_and_asks_again_where_an_answer_is_wrong(project: Path) -> None:
    (project / "own.py").write_text(CODE)
    talk = Conversation(project, "asked.yaml")
    talk.expect("number or word (digits):", "9\n")
    talk.expect("there is no 9", "")
    talk.expect("number or word (digits):", "6\n")
    talk.expect("where is it", "own.py\n")
    talk.expect("which name (Net, load_data, more_data):", "more_data\n")
    talk.expect("number or word (code):", "\n")
    talk.expect("where is it", "own.py:Net\n")
    talk.expect("how many epochs does a full training have (20):", "12\n")
    talk.expect("which optimizer", "\n")
    talk.expect("which learning rate (0.001):", "fast\n")
    talk.expect("fast is no number", "")
    talk.expect("which learning rate (0.001):", "0.02\n")
    talk.expect("which batch size", "\n")
    talk.expect("which weight decay", "\n")
    talk.expect("(no limit):", "\n")
    assert talk.end() == 0
    assert "hptune check asked.yaml" in talk.text
    experiment = load_config(project / "asked.yaml").experiment
    assert (experiment.data.target, experiment.model.target) == (f"{project / 'own.py'}:more_data", f"{project / 'own.py'}:Net")
    assert (experiment.budget.epochs, experiment.baseline.lr, experiment.budget.search) == (12, 0.02, None)


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_leaving_leaves_nothing_behind(project: Path, key: str) -> None:
    before = sorted(project.iterdir())
    talk = Conversation(project, "asked.yaml")
    talk.expect("number or word (digits):", "\n")
    talk.expect("number or word (small_cnn):", "")
    assert talk.leave(key) == 130
    assert "Traceback" not in talk.text
    assert sorted(project.iterdir()) == before
