"""Paths, whole-file writes, the lock and starting over."""

from __future__ import annotations

import contextlib
import csv
import errno
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hptune.errors import LockedError, RunDirectoryError
from hptune.store.layout import RunLayout, hold_lock, is_run_directory, make_directory, retire, write_atomic, write_curve
from hptune.trial import Curve

HOLDER = """
import sys
from pathlib import Path
from hptune.store.layout import RunLayout, hold_lock
with hold_lock(RunLayout(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "my runs" / "digits é")


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The nearest thing to a full disk: writes beyond `size` bytes fail, the write that crosses it falls short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_every_path_is_where_the_readme_says() -> None:
    layout = RunLayout(Path("runs/x"))
    paths = {
        "config.yaml": layout.config,
        "environment.json": layout.environment,
        "journal.jsonl": layout.journal,
        "curves/ab12.csv": layout.curve("ab12"),
        "tables/lr_range.csv": layout.table("lr_range", "csv"),
        "tables/model.args.width.md": layout.table("model.args.width", "md"),
        "tables/recommendation.csv": layout.recommendation_csv,
        "recommended.yaml": layout.recommended,
        "report.html": layout.report,
        "figures/lr_range.png": layout.figure("lr_range"),
        "checkpoints": layout.checkpoints,
        "checkpoints/weights.pt": layout.weights,
    }
    for where, path in paths.items():
        assert path == Path("runs/x") / where


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "a\\b", "a\0b", "c:d", ""])
def test_no_name_leads_out_of_the_run_directory(layout: RunLayout, name: str) -> None:
    for path, home in (
        (layout.curve(name), layout.curves),
        (layout.table(name, "csv"), layout.tables),
        (layout.figure(name), layout.figures),
    ):
        assert path.parent == home
        assert path.resolve().parent == home.resolve()


def test_whole_files_are_written_and_replaced(layout: RunLayout) -> None:
    write_atomic(layout.table("lr_range", "md"), "première\n")
    assert layout.table("lr_range", "md").read_bytes() == "première\n".encode()
    write_atomic(layout.table("lr_range", "md"), b"\x00second")
    assert layout.table("lr_range", "md").read_bytes() == b"\x00second"
    assert [p.name for p in layout.tables.iterdir()] == ["lr_range.md"]


def test_a_written_file_has_the_usual_permissions(layout: RunLayout) -> None:
    write_atomic(layout.config, "x")
    plain = layout.root / "plain"
    plain.touch()
    assert layout.config.stat().st_mode == plain.stat().st_mode


def test_a_full_disk_leaves_the_old_file_and_nothing_else(layout: RunLayout) -> None:
    write_atomic(layout.report, "old")
    with file_size_limit(1000), pytest.raises(RunDirectoryError, match=r"report\.html.*make room, then give the same command again"):
        write_atomic(layout.report, "n" * 5000)
    assert layout.report.read_text() == "old"
    assert [p.name for p in layout.root.iterdir()] == ["report.html"]


def test_an_interrupt_in_mid_write_leaves_the_old_file_and_nothing_else(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(layout.report, "old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(layout.report, "new")
    assert layout.report.read_text() == "old"
    assert [p.name for p in layout.root.iterdir()] == ["report.html"]


def test_a_file_is_on_the_disk_before_it_takes_its_name(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    write_atomic(layout.config, "x")
    assert steps == ["fsync", "rename", "fsync"]


def test_a_read_only_place_gets_a_clear_message(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunDirectoryError, match="Read-only file system; choose a run directory that can be written"):
        write_atomic(layout.config, "x")


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(RunDirectoryError, match="taken is a file; choose another run directory"):
        make_directory(tmp_path / "taken" / below)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_an_impossible_directory_name_is_no_traceback(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunDirectoryError, match="cannot write"):
        make_directory(tmp_path / name)


def test_text_that_utf8_cannot_hold_is_escaped(layout: RunLayout) -> None:
    write_atomic(layout.report, "file \udcff name")
    assert layout.report.read_text(encoding="utf-8") == "file \\udcff name"


def test_a_curve_reads_back_to_the_same_floats(layout: RunLayout) -> None:
    losses = [0.1 + 0.2, 1e-323, -1.7976931348623157e308, math.inf, math.nan]
    write_curve(layout, "ab12", Curve({"step": [1, 2, 3, 4, 5], "train_loss": losses, "val_loss": [None, None, 0.5, None, 1.0]}))
    with layout.curve("ab12").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [float(row["train_loss"]).hex() for row in rows] == [x.hex() for x in losses]
    assert [row["val_loss"] for row in rows] == ["", "", "0.5", "", "1.0"]


def test_a_curve_of_nothing_is_a_header(layout: RunLayout) -> None:
    write_curve(layout, "ab12", Curve({"step": [], "lr": []}))
    assert layout.curve("ab12").read_text() == "step,lr\n"


def test_a_curve_with_columns_of_different_length_is_refused(layout: RunLayout) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_curve(layout, "ab12", Curve({"step": [1, 2], "lr": [0.1]}))
    assert not layout.curve("ab12").exists()


def test_a_second_process_is_told_who_writes_and_a_killed_one_holds_nothing(layout: RunLayout) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(layout.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockedError, match=rf"digits é is being written by process {holder.pid} on host \S+ since 2\d\d\d-") as caught,
            hold_lock(layout),
        ):
            pass
        assert caught.value.exit_status == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with hold_lock(layout):
        assert str(os.getpid()) in layout.lock_holder.read_text()
    assert not layout.lock_holder.exists()


def test_the_lock_is_let_go_after_an_error_and_can_be_taken_again(layout: RunLayout) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(layout):
        raise ZeroDivisionError
    with hold_lock(layout):
        layout.lock_holder.write_text("{damaged")
        with pytest.raises(LockedError, match="being written by another process"), hold_lock(layout):
            pass


def test_what_a_killed_process_had_half_written_is_removed_by_the_next_one(layout: RunLayout) -> None:
    kept = [layout.root / "notes.tmp", layout.root / ".mine.tmp", layout.curve("a")]
    left = [folder / f".{n:016x}.tmp" for n, folder in enumerate((layout.root, layout.curves, layout.tables, layout.checkpoints))]
    for path in (*kept, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with hold_lock(layout):
        pass
    assert [path.exists() for path in (*kept, *left)] == [True] * len(kept) + [False] * len(left)


def test_starting_over_renames_and_deletes_nothing(layout: RunLayout) -> None:
    assert retire(layout) is None
    moved = []
    for text in ("first", "second"):
        write_atomic(layout.journal, text)
        moved.append(retire(layout))
        assert not layout.root.exists()
    assert moved == [layout.root.with_name("digits é.old-1"), layout.root.with_name("digits é.old-2")]
    assert [RunLayout(path).journal.read_text() for path in moved if path] == ["first", "second"]


def test_starting_over_spares_what_is_no_run(layout: RunLayout) -> None:
    make_directory(layout.root)
    assert retire(layout) is None
    (layout.root / "thesis.tex").write_text("mine")
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        retire(layout)
    assert (layout.root / "thesis.tex").read_text() == "mine"


def test_starting_over_waits_for_nobody(layout: RunLayout) -> None:
    write_atomic(layout.journal, "x")
    with hold_lock(layout), pytest.raises(LockedError):
        retire(layout)
    assert layout.journal.exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [((), False), (("config.yaml",), False), (("config.yaml", "environment.json"), True), (("journal.jsonl",), True), (("x.yaml",), False)],
)
def test_a_run_directory_is_known_by_its_files(tmp_path: Path, files: tuple[str, ...], expected: bool) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert is_run_directory(tmp_path) is expected


def test_neither_a_file_nor_nothing_is_a_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_run_directory(tmp_path / "file")
    assert not is_run_directory(tmp_path / "nothing")
