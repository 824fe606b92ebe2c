"""What a terminal of a given width shows, in a pseudo-terminal, and what a pipe gets instead."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SGR = re.compile(r"\x1b\[([\d;]*)m")
COLOUR = re.compile(r"(3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;.*)")
CONTROL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")


def shown(folder: Path, width: int, *arguments: object, **environment: str) -> str:
    """Everything that a command writes to a terminal of that width."""
    import fcntl
    import pty
    import struct
    import termios

    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "hptune", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=folder, stdin=its, stdout=its, stderr=its, env={**inherited, "TERM": "xterm-256color", **environment}
    )
    os.close(its)
    content = b""
    while True:
        try:
            more = os.read(mine, 2**16)
        except OSError:  # Linux says so once nobody can write any more
            break
        if not more:
            break
        content += more
    os.close(mine)
    assert process.wait() == 0, content.decode()
    return content.decode()


def lines_of(text: str) -> list[str]:
    """Every line that was on the screen, without what steers the terminal: a live one as often as it was drawn."""
    return [CONTROL.sub("", line) for line in re.split(r"\r?\n|\r", text)]


@pytest.fixture(scope="module")
def two_runs(tiny_run: Path) -> Path:
    shutil.copytree(tiny_run / "runs" / "tiny", tiny_run / "compared" / "a")
    shutil.copytree(tiny_run / "runs" / "tiny", tiny_run / "compared" / "b")
    return tiny_run


COMMANDS = {
    "show": (["show", "runs/tiny"], ("→", "val loss", "verdict", "weight decay"), ("samples/s", "train loss")),
    "runs": (["runs", "compared"], ("state", "trials", "best loss"), ("recommended",)),
    "compare": (["compare", "compared/a", "compared/b"], ("trials", "confirmed"), ()),
    "explain": (["explain", "momentum"], ("momentum",), ()),
    "json keys": (["explain", "json"], ("recommendation.epochs",), ("adjusted for common-seed effects",)),
    "watch": (["watch", "runs/tiny", "--once"], ("best loss", "no process writes it"), ("momentum 0.9",)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_width_is_kept_and_more_is_used(two_runs: Path, command: str) -> None:
    arguments, always, wide = COMMANDS[command]
    for width in (80, 140) if wide else (80,):
        text = shown(two_runs, width, *arguments)
        lines = lines_of(text)
        commands = {line for line in lines if line.startswith("  hptune ")}  # to be copied: they stay whole
        assert max(len(line) for line in lines if line not in commands) <= width
        body = "\n".join(lines)
        assert [name for name in always if name not in body] == []
        if width == 140:
            assert [name for name in wide if name not in body] == []
            assert max(map(len, lines)) > 80


def test_show_draws_every_stage(two_runs: Path) -> None:
    body = "\n".join(lines_of(shown(two_runs, 80, "show", "runs/tiny")))
    by = ("maximum learning rate", "batch size", "momentum", "weight decay", "candidate")
    for text in ("loss over LR, 2 ramps", "│ suggested ", *(f"val loss by {name}" for name in by)):
        assert text in body
    assert "●" not in "\n".join(lines_of(shown(two_runs, 20, "show", "runs/tiny"))), "twenty columns hold no plot"


def test_no_color_leaves_no_colour(two_runs: Path) -> None:
    def colours(**environment: str) -> list[str]:
        codes = SGR.findall(shown(two_runs, 80, "show", "runs/tiny", "--stage", "lr_range", **environment))
        assert codes, "stress is not colour"
        return [code for code in codes if COLOUR.search(code)]

    assert colours()
    assert colours(NO_COLOR="1") == []


def test_check_fits_a_terminal(two_runs: Path) -> None:
    lines = lines_of(shown(two_runs, 80, "check", "c.yaml"))
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("  hptune run c.yaml")]


def test_a_run_on_a_terminal_shows_where_it_stands_and_what_it_finds(two_runs: Path) -> None:
    text = shown(two_runs, 80, "lr-range", "c.yaml", "--run-dir", "on a terminal", "--set", "budget.search_epochs=1", NO_COLOR="1")
    lines = lines_of(text)
    assert max(len(line) for line in lines if not line.startswith("  hptune ")) <= 80
    assert re.search(r"LR range test  [━╌]{10} \d+/\d+ trials", text)
    assert "val loss by maximum learning rate" in text
    assert lines[-2] == "  hptune recommend 'on a terminal'"
    assert [code for code in SGR.findall(text) if COLOUR.search(code)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_gets_plain_lines(two_runs: Path, command: str) -> None:
    arguments = [sys.executable, "-m", "hptune", *COMMANDS[command][0]]
    environment = {**os.environ, "TERM": "xterm-256color"}
    done = subprocess.run(arguments, cwd=two_runs, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout
    assert not set("●○│┤┌") & set(done.stdout), "no plot"
