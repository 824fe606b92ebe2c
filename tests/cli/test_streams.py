"""Streams that go away while something is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hptune.cli.streams import _Terminal

openpty = getattr(os, "openpty", None)


@pytest.mark.skipif(openpty is None, reason="no pseudo-terminals here")
def test_a_terminal_that_is_closed_swallows_what_is_said() -> None:
    master, slave = os.openpty()
    terminal = _Terminal(slave, "w")
    assert terminal.write(b"seen") == 4
    assert os.read(master, 4) == b"seen"
    os.close(master)
    assert terminal.write(b"lost") == 4
    assert terminal.write(b"more") == 4
    assert not os.isatty(slave), "it leads nowhere now"
    terminal.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_any_other_error_is_one() -> None:
    with _Terminal("/dev/full", "w") as full, pytest.raises(OSError, match="No space left"):
        full.write(b"x")


@pytest.mark.skipif(openpty is None, reason="no pseudo-terminals here")
def test_a_command_outlives_its_terminal(run_dir: Path, project: Path) -> None:
    """It is told late: the terminal is closed before anything is said."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "hptune", "recommend", run_dir]
    process = subprocess.Popen(command, cwd=project, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL, start_new_session=True)
    os.close(slave)
    os.close(master)
    assert process.wait(timeout=60) == 0
    assert (project / run_dir / "recommended.yaml").exists()
