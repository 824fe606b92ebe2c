"""`hptune watch`: a journal that grows while it is read."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Hptune
from rich.console import Console as Terminal

from hptune.cli.console import Console
from hptune.cli.following import QUIET, Follower, Happening
from hptune.cli.watch import follow_journal
from hptune.errors import DamagedLineError
from hptune.store.journal import HEADER, line_of, replay
from hptune.store.layout import RunLayout, hold_lock, holder_of
from hptune.store.tail import Tail


def lines_of(run: Path) -> list[bytes]:
    return (run / "journal.jsonl").read_bytes().splitlines(keepends=True)


def kind(line: bytes) -> str:
    return str(json.loads(line)["kind"])


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def watched(run: Path, steps: Iterator[object], console: Console) -> None:
    """Watch, and take a step between every two looks; more looks than steps and quiet ones fail."""
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks = 0 if next(steps, self_ended) is not self_ended else looks + 1
        assert looks <= QUIET, "watching does not end"

    follow_journal(run, console, sleep=sleep)


self_ended = object()


# the tail


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "j"
    tail = Tail(path)
    assert tail.read() == (False, [])
    assert tail.written is None
    path.write_bytes(b"one\ntwo\n")
    assert tail.read() == (False, [b"one\n", b"two\n"])
    assert tail.read() == (False, [])
    append(path, b"three\n")
    assert tail.read() == (False, [b"three\n"])
    assert tail.written == path.stat().st_mtime


def test_a_torn_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "j"
    tail = Tail(path)
    path.write_bytes("one\ntwö".encode()[:-1])
    assert tail.read() == (False, [b"one\n"])
    append(path, "ö".encode()[1:])
    assert tail.read() == (False, [])
    append(path, b"\n")
    assert tail.read() == (False, ["twö\n".encode()])


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"a\rb\x0cc\n")
    assert Tail(tmp_path / "j").read() == (False, [b"a\rb\x0cc\n"])


@pytest.mark.parametrize("how", ["renamed over", "directory renamed", "cut"])
def test_a_journal_that_was_replaced_is_read_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run" / "j"
    path.parent.mkdir()
    path.write_bytes(b"one\ntwo\n")
    tail = Tail(path)
    tail.read()
    if how == "renamed over":
        (path.parent / "new").write_bytes(b"one\nnew\nmore\n")
        (path.parent / "new").replace(path)
    elif how == "directory renamed":
        path.parent.rename(tmp_path / "run.old-1")
        assert tail.read() == (False, []), "for a moment there is none"
        path.parent.mkdir()
        path.write_bytes(b"one\nnew\nmore\n")
    else:
        path.write_bytes(b"one\n")
    expected = [b"one\n"] if how == "cut" else [b"one\n", b"new\n", b"more\n"]
    assert tail.read() == (True, expected)
    assert tail.read() == (False, [])


# what the lines say


def test_each_line_says_one_thing(finished: Path) -> None:
    follower = Follower(Path("j"))
    for line in lines_of(finished):
        events = list(follower.take([line]))
        expected = {"plan": ["plan"], "round": ["plan"], "trial": ["trial"], "conclusion": ["conclusion"]}.get(kind(line), [])
        assert [event.kind for event in events] == expected
    assert follower.state.size == (finished / "journal.jsonl").stat().st_size


def test_a_stage_from_plan_to_conclusion(finished: Path) -> None:
    lines = lines_of(finished)
    start = next(i for i, line in enumerate(lines) if kind(line) == "plan" and json.loads(line)["stage"] == "momentum")
    follower = Follower(Path("j"))
    list(follower.take(lines[:start]))
    assert "batch size" not in follower.standing(), "a stage that is finished is not one under way"
    plan = json.loads(lines[start])
    (planned,) = follower.take(lines[start : start + 1])
    known = sum(trial in follower.state.records for trial in plan["trials"])
    assert planned == Happening("plan", f"momentum: {len(plan['trials'])} trials planned, {known} of them done")
    (tried,) = follower.take(lines[start + 1 : start + 2])
    assert tried.text.startswith(f"momentum {known + 1}/{len(plan['trials'])}  LR ")
    assert f"momentum at {known + 1} of {len(plan['trials'])} planned trials" in follower.standing()
    losses = [follower.state.records[trial].val_loss for trial in plan["trials"] if trial in follower.state.records]
    assert follower.best is not None
    assert follower.best.val_loss == pytest.approx(min(losses))
    end = next(i for i, line in enumerate(lines) if kind(line) == "conclusion" and json.loads(line)["stage"] == "momentum")
    *_, concluded = follower.take(lines[start + 2 : end + 1])
    assert concluded.kind == "conclusion"
    assert concluded.text.startswith("momentum 0.9")


def test_a_trial_of_no_plan_is_a_full_training(finished: Path) -> None:
    lines = lines_of(finished)
    trial = next(line for line in lines if kind(line) == "trial")
    follower = Follower(Path("j"))
    assert [event.text[:15] for event in follower.take([lines[0], trial, trial])] == ["full training: "], "an id counts once"
    weights = line_of({"kind": "weights", "trial_id": "x"})
    assert [event.kind for event in follower.take([weights])] == ["weights"]


def test_a_damaged_line_is_named(finished: Path) -> None:
    lines = lines_of(finished)
    follower = Follower(Path("j"))
    with pytest.raises(DamagedLineError, match="j, line 3"):
        list(follower.take([*lines[:2], lines[2].replace(b"1", b"2", 1)]))


def test_the_line_holds_what_matters_most_first(finished: Path) -> None:
    follower = Follower(Path("j"))
    list(follower.take(lines_of(finished)))
    first, second = (line.split("  ") for line in follower.lines(200, "process 12", 62).split("\n"))
    count = len(replay(finished / "journal.jsonl").plans["confirm"]["trials"])
    assert first == [
        "confirm",
        f"{'━' * 10} {count}/{count} trials",
        "last record 1:02 ago",
        "process 12",
        first[4],
        "cpu (made-up device)",
    ]
    assert first[4].endswith(" samples/s")
    assert second[0].startswith("best loss 0.2")
    assert " [0.2" in second[0]
    assert second[1].startswith("LR 0.")
    narrow = follower.lines(79, "process 12345", 62).split("\n")
    assert "process 12345" in narrow[0], "all of it fits a usual terminal"
    assert max(map(len, narrow)) <= 79
    assert follower.lines(35, "process 12", 62).split("\n")[0] == f"confirm  {'━' * 10} {count}/{count} trials"
    assert Follower(Path("j")).lines(79, "", None) == "no process writes it"


def test_a_run_has_ended_when_nobody_holds_it_and_nothing_is_new_for_a_while() -> None:
    follower = Follower(Path("j"))
    looks = [(False, False)] * (QUIET - 1) + [(True, False)] + [(False, True)] * 9 + [(False, False)] * QUIET
    assert [follower.ended(*look) for look in looks] == [False] * (len(looks) - 1) + [True]


# who holds the lock


def test_the_holder_is_who_has_the_lock(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    assert holder_of(layout) is None
    with hold_lock(layout):
        holder = holder_of(layout)
        assert holder is not None
        assert (holder.pid, holder.here) == (os.getpid(), True)
        assert f"process {os.getpid()} on host {socket.gethostname()} since 2" in str(holder)
    assert holder_of(layout) is None


@pytest.mark.skipif(os.name != "posix", reason="there the note is taken as it is")
def test_what_a_killed_process_noted_counts_on_its_own_host_for_nothing(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note = {"pid": gone.pid, "host": socket.gethostname(), "started": "then"}
    layout.lock_holder.write_text(json.dumps(note))
    assert holder_of(layout) is None
    layout.lock_holder.write_text(json.dumps({**note, "host": "another"}))
    assert str(holder_of(layout)) == f"process {gone.pid} on host another since then"
    for damaged in ("", "[]", "{}", '{"pid": "x", "host": "h", "started": ""}'):
        layout.lock_holder.write_text(damaged)
        assert holder_of(layout) is None


# the command


@pytest.fixture
def begun(run_dir: Path) -> tuple[Path, list[bytes]]:
    """The run directory at the moment its second stage begins, and the lines still to come."""
    lines = lines_of(run_dir)
    end = next(i for i, line in enumerate(lines) if kind(line) == "conclusion") + 1
    (run_dir / "journal.jsonl").write_bytes(b"".join(lines[:end]))
    return run_dir, lines[end:]


def test_once_shows_where_the_run_stands(hptune: Hptune, begun: tuple[Path, list[bytes]]) -> None:
    before = {path: path.stat().st_mtime_ns for path in begun[0].rglob("*")}
    answer = hptune("watch", begun[0], "--once")
    assert (answer.status, answer.err) == (0, "")
    first, finding, line, best = answer.out.splitlines()
    assert first.startswith("runs/made up: ")
    assert first.endswith(" trials, 1 stage concluded")
    assert finding.startswith("LR range test: ")
    assert "lr range  " in line
    assert "no process writes it" in line
    assert best.startswith("best loss ")
    assert {path: path.stat().st_mtime_ns for path in begun[0].rglob("*")} == before, "nothing is written"


def test_a_run_is_followed_until_it_ends(begun: tuple[Path, list[bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    run, rest = begun

    def written() -> Iterator[object]:
        with hold_lock(RunLayout(run)):
            for _ in range(2 * QUIET):
                yield "silent, but held"
            for line in rest:
                append(run / "journal.jsonl", line[:20])
                yield "torn"
                append(run / "journal.jsonl", line[20:])
                yield "whole"

    watched(run, written(), Console())
    lines = capsys.readouterr().out.splitlines()
    said = {name: sum(kind(line) == name for line in rest) for name in ("plan", "round", "trial", "conclusion")}
    assert len(lines) == 2 + sum(said.values()) + 3, "one line an event"
    assert lines[-3].endswith(", 6 stages concluded")
    assert lines[-2:] == ["next:", "  hptune show 'runs/made up'"]
    assert sum(" trials planned" in line for line in lines) == said["plan"] + said["round"]
    assert [line for line in lines if line.startswith("weight decay 0.001 goes on")]


def test_a_run_that_starts_over_is_followed_too(begun: tuple[Path, list[bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    run = begun[0]

    def fresh() -> Iterator[object]:
        run.rename(run.with_name("made up.old-1"))
        yield "nothing there"
        shutil.copytree(run.with_name("made up.old-1"), run)
        (run / "journal.jsonl").write_bytes(line_of({"kind": "header", **HEADER}))
        yield "begun anew"

    watched(run, fresh(), Console())
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:-2] == ["the journal was replaced: reading it anew", "no process writes runs/made up: 0 trials, 0 stages concluded"]


def test_on_a_terminal_trials_are_in_the_live_line_alone(begun: tuple[Path, list[bytes]]) -> None:
    run, rest = begun

    def written() -> Iterator[object]:
        for line in rest:
            append(run / "journal.jsonl", line)
            yield "whole"

    console = Console()
    console.terminal = Terminal(file=io.StringIO(), width=80, force_terminal=True, color_system=None, highlight=False, markup=False)
    watched(run, written(), console)
    text = console.terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "weight decay 0.001 goes on" in text
    assert " planned, " not in text
    assert "fresh seed" not in text
    assert "no process writes runs/made up" in text


def test_ctrl_c_ends_watching_and_nothing_else(hptune: Hptune, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hptune.cli.watch.follow_journal", interrupted)
    answer = hptune("watch", run_dir)
    assert (answer.status, answer.out, answer.err) == (130, "no longer watching; the run itself is not touched\n", "")


def test_a_damaged_journal_is_one_message(hptune: Hptune, run_dir: Path) -> None:
    lines = lines_of(run_dir)
    (run_dir / "journal.jsonl").write_bytes(b"".join([lines[0], b"damaged\n", *lines[1:]]))
    answer = hptune("watch", run_dir)
    assert (answer.status, answer.out, len(answer.err.splitlines())) == (1, "", 1)
    assert "journal.jsonl, line 2: the line is damaged" in answer.err


@pytest.mark.parametrize(("given", "said"), [("runs/mode up", "did you mean"), ("c.yaml", "is a file")])
def test_no_run_directory_is_one_message(hptune: Hptune, run_dir: Path, given: str, said: str) -> None:
    answer = hptune("watch", given)
    assert (answer.status, len(answer.err.splitlines())) == (2, 1)
    assert said in answer.err


def test_a_run_without_a_journal_yet_can_be_watched(hptune: Hptune, run_dir: Path) -> None:
    (run_dir / "journal.jsonl").unlink()
    assert hptune("watch", run_dir, "--once").out.splitlines()[0] == "runs/made up: 0 trials, 0 stages concluded"
