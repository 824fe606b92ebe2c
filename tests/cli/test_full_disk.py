"""A disk that is full, or cannot be written, wherever it happens: one message, nothing lost, and the same command goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Hptune
from outside import lasting

from hptune.store.journal import replay

STEP = 8  # KiB that are added each time
MOUNTABLE = sys.platform == "linux" and os.geteuid() == 0
Resize = Callable[[str], None]


@pytest.fixture
def small_disk(project: Path) -> Iterator[Resize]:
    """A file system of its own at `runs`; call it with mount options such as `size=64k` to change it."""
    mounted = project / "runs"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STEP}k", "tmpfs", mounted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def resize(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", mounted], check=True)

    yield resize
    subprocess.run(["umount", "-l", mounted], check=True)


def kind(path: str) -> str:
    """What sort of file a message is about."""
    name = path.rpartition("/")[2]
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return folder if folder in ("curves", "tables", "figures", "checkpoints") else name


@pytest.mark.skipif(not MOUNTABLE, reason="needs root on Linux, to mount a small file system")
def test_a_run_on_a_full_disk_goes_on_with_every_piece_of_room_it_gets(
    hptune: Hptune, engine: None, no_report: None, project: Path, small_disk: Resize, finished: Path
) -> None:
    run, size, full = project / "runs" / "made up", STEP, []
    while (answer := hptune("run", "c.yaml", "--quiet")).status:
        assert answer.status == 1
        message = re.search(r"error: cannot (?:write|make the directory) (.*): No space left on device; make room, then give", answer.err)
        assert message is not None, answer.err
        assert "Traceback" not in answer.err
        full.append(kind(message[1]))
        if (run / "journal.jsonl").exists():
            replay(run / "journal.jsonl")
        assert not list(run.rglob(".*.tmp")), "temporary files stay"
        size += STEP
        small_disk(f"size={size}k")
    print(f"{len(full)} times no room, for {', '.join(sorted(set(full)))}")
    assert {"journal.jsonl", "curves", "tables"} <= set(full), "some kinds of files were never the ones that did not fit"
    hptune("recommend", finished)
    assert lasting(run) == lasting(finished)


@pytest.mark.skipif(not MOUNTABLE, reason="needs root on Linux, to mount a small file system")
@pytest.mark.parametrize("taken", range(0, 48, 4))
def test_whichever_small_file_does_not_fit_is_named(hptune: Hptune, engine: None, small_disk: Resize, project: Path, taken: int) -> None:
    """Before the first trial a run writes but a few files."""
    small_disk("size=48k")
    (project / "runs" / "ballast").write_bytes(b"\0" * 1024 * (48 - taken))
    answer = hptune("run", "c.yaml", "--quiet")
    assert answer.status == 1
    assert re.search(r"cannot (?:write|make the directory) .*: No space left on device", answer.err), answer.err
    (project / "runs" / "ballast").unlink()
    small_disk("size=4m")
    assert hptune("lr-range", "c.yaml", "--quiet").status == 0


@pytest.mark.skipif(not MOUNTABLE, reason="needs root on Linux, to mount a small file system")
def test_a_disk_that_can_only_be_read_is_said_to_be_and_reading_works(
    hptune: Hptune, engine: None, no_report: None, small_disk: Resize, project: Path
) -> None:
    small_disk("size=4m")
    assert hptune("lr-range", "c.yaml", "--quiet").status == 0
    small_disk("ro")
    for command in (["run", "c.yaml"], ["recommend", "c.yaml"], ["run", "c.yaml", "--fresh"]):
        answer = hptune(*command)
        assert answer.status == 1, command
        assert re.search(r"cannot write .*: Read-only file system; choose a run directory that can be written", answer.err), answer.err
    for command in (["show", project / "runs" / "made up"], ["runs"], ["export", project / "runs" / "made up", "--to", "timm"]):
        assert hptune(*command).status == 0, command
    small_disk("rw")
    assert hptune("run", "c.yaml", "--quiet").status == 0


@pytest.mark.slow
@pytest.mark.skipif(not MOUNTABLE, reason="needs root on Linux, to mount a small file system")
def test_figures_and_the_report_need_room_too(hptune: Hptune, small_disk: Resize, project: Path, finished: Path) -> None:
    small_disk("size=64m")
    run = project / "runs" / "made up"
    shutil.copytree(finished, run)
    taken = size(run)
    assert hptune("report", run).status == 0
    figures = size(run / "figures")
    for room, named in ((16, "figures"), (figures + 64, "report.html")):
        shutil.rmtree(run / "figures", ignore_errors=True)
        (run / "report.html").unlink(missing_ok=True)
        small_disk(f"size={taken + room}k")
        answer = hptune("report", run)
        assert answer.status == 1
        message = re.search(r"error: cannot write (.*): No space left on device; make room", answer.err)
        assert message is not None, answer.err
        assert kind(message[1]) == named


def size(folder: Path) -> int:
    """KiB that a folder takes on its disk."""
    return int(subprocess.run(["du", "-sk", folder], check=True, capture_output=True, text=True).stdout.split()[0])


def outside(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", f'"{sys.executable}" -m hptune {command}'], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["show 'runs/made up'", "show 'runs/made up' --json", "export 'runs/made up' --to timm"])
def test_output_that_cannot_be_written_is_one_message(run_dir: Path, project: Path, command: str) -> None:
    done = outside(f"{command} > /dev/full", project)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write standard output: No space left on device; what was done is saved\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_error(run_dir: Path, project: Path, closed: str) -> None:
    done = outside(f"show 'runs/made up' {closed}", project)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("weight decay" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
