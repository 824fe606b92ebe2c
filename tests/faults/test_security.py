"""A config, a run directory or an exception from anywhere runs nothing by itself and gives nothing away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from outside import TINY, hold, hptune, start, trials

from hptune.cli.console import harmless

MARKING = """
from pathlib import Path
import torch
import helper

Path("code was run").touch()

def load(**args):
    return ((torch.randn(64, 4), torch.randint(0, 2, (64,))), (torch.randn(32, 4), torch.randint(0, 2, (32,))))
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a config that names code of its own."""
    (tmp_path / "own.py").write_text(MARKING)
    (tmp_path / "helper.py").write_text("from pathlib import Path\nPath('code was run').touch()\n")
    (tmp_path / "untouched.py").write_text("")
    (tmp_path / "c.yaml").write_text(
        TINY.replace("{name: digits, limit: 400}", '{name: custom, target: "own.py:load", args: {token: "${MY_TOKEN}"}}').replace(
            "device: cpu", "metric: {target: 'metrics_of_somebody.fine:score'}\ndevice: cpu"
        )
    )
    return tmp_path


def test_without_code_a_config_is_read_and_nothing_is_run(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "a-very-secret-value")
    out, _ = hptune(elsewhere, "check", "c.yaml", "--no-code")
    for name in ("own.py", "helper.py"):
        assert str(elsewhere / name) in out
    assert "untouched.py" not in out
    assert "metrics_of_somebody.fine" in out
    assert "takes from the environment: MY_TOKEN" in out
    assert "a-very-secret-value" not in out
    found = hold(hptune(elsewhere, "check", "c.yaml", "--no-code", "--json")[0], "outline")
    assert found["code"] == [
        str(elsewhere / "helper.py"),
        str(elsewhere / "own.py"),
        "metrics_of_somebody.fine (a module found by its name)",
    ]
    assert found["variables"] == ["MY_TOKEN"]
    assert sorted(path.name for path in elsewhere.iterdir()) == ["c.yaml", "helper.py", "own.py", "untouched.py"]


def test_reading_a_config_without_code_does_not_even_load_torch(elsewhere: Path) -> None:
    script = "import sys; from hptune.__main__ import main; sys.argv = ['hptune', 'check', 'c.yaml', '--no-code']; "
    script += "main(); assert 'torch' not in sys.modules"
    environment = {**os.environ, "MY_TOKEN": "x"}
    subprocess.run([sys.executable, "-c", script], cwd=elsewhere, env=environment, check=True, capture_output=True)


def test_check_names_every_file_that_is_executed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    text = (elsewhere / "c.yaml").read_text().replace("metric: {target: 'metrics_of_somebody.fine:score'}\n", "")
    (elsewhere / "c.yaml").write_text(text)
    out, _ = hptune(elsewhere, "check", "c.yaml")
    assert f"{elsewhere / 'helper.py'}, {elsewhere / 'own.py'}" in out
    assert (elsewhere / "code was run").exists()


QUOTING = """
import os
import torch

class Net(torch.nn.Module):
    def __init__(self, token="", password=""):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        if self.training and self.steps > 5:
            raise RuntimeError("refused: https://example.org/?key=" + os.environ["MY_API_KEY"])
        return self.layer(x.flatten(1))
"""

MODEL = '{target: "net.py:Net", args: {token: "${MY_TOKEN}"}}'


def test_secrets_of_the_environment_reach_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(QUOTING)
    (tmp_path / "c.yaml").write_text(TINY.replace("{name: mlp, args: {hidden: [16]}}", MODEL))
    secrets = {"MY_API_KEY": "sk-0123456789", "MY_TOKEN": "hf-9876543210", "MY_PASSWORD": "correct horse"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    words = ("--set", f"model.args.password={secrets['MY_PASSWORD']}", "--seeds", 1)
    process = start(tmp_path, "lr-range", "c.yaml", *words)
    _, err = process.communicate(timeout=240)
    run = tmp_path / "runs" / "tiny"
    assert any(trial["status"] == "failed" and "refused: https://example.org/?key=***" in str(trial["error"]) for trial in trials(run)), err
    hptune(tmp_path, "report", run)
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [name for name, value in secrets.items() if value.encode() in content]
            assert not found, f"{path.name} holds the value of {found}"
    config = (run / "config.yaml").read_text()
    assert "${MY_TOKEN}" in config
    assert "${MY_PASSWORD}" in config
    hptune(tmp_path, "check", run / "config.yaml", "--no-code")


def test_text_from_elsewhere_steers_no_terminal() -> None:
    assert harmless("a\x1b]52;c;aGk=\x07b\x9b1m\tc\nd é 🙂") == "a\\x1b]52;c;aGk=\\x07b\\x9b1m\\tc\nd é 🙂"
