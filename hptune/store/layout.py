"""Where everything lies in a run directory, how whole files are written, and who may write.

Every path is made here and nowhere else. A file is written whole to a unique temporary name beside its place, fsynced, renamed
into it, and the directory is fsynced: after a crash one finds the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from hptune.errors import LockedError, RunDirectoryError
from hptune.trial import Curve

TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""Names under which files are written before they take their places: here, and for checkpoints in the engine."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Every path of the run directory `root`. Nothing is made by asking for a path.

    Stages, trials and figures name files; whatever in a name is no letter, digit, `.`, `_`, `+` or `-` becomes `_`.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device, git commit, seed and command lines."""
        return self.root / "environment.json"

    @property
    def journal(self) -> Path:
        """The append-only truth."""
        return self.root / "journal.jsonl"

    def damaged_journal(self) -> Path:
        """A name that is still free for a journal with damaged lines, from which another one was made."""
        numbers = itertools.count(1)
        return next(path for n in numbers if not os.path.lexists(path := self.root / f"journal.damaged-{n}.jsonl"))

    @property
    def curves(self) -> Path:
        """The directory of the trials' curves."""
        return self.root / "curves"

    def curve(self, trial_id: str) -> Path:
        """The per-step series of one trial."""
        return self.curves / f"{file_name(trial_id)}.csv"

    @property
    def tables(self) -> Path:
        """The directory of the tables."""
        return self.root / "tables"

    def table(self, stage: str, suffix: Literal["csv", "md"]) -> Path:
        """The ranked table of one stage; the stage of a key sweep is its key, e.g. `model.args.width`."""
        return self.tables / f"{file_name(stage)}.{suffix}"

    @property
    def recommendation_csv(self) -> Path:
        """The recommendation as a table."""
        return self.tables / "recommendation.csv"

    @property
    def recommended(self) -> Path:
        """The complete config with the recommended hyper-parameters."""
        return self.root / "recommended.yaml"

    @property
    def report(self) -> Path:
        """The report, one file that needs no other."""
        return self.root / "report.html"

    @property
    def figures(self) -> Path:
        """The directory of the figures."""
        return self.root / "figures"

    def figure(self, name: str) -> Path:
        """One figure."""
        return self.figures / f"{file_name(name)}.png"

    @property
    def checkpoints(self) -> Path:
        """The directory of `hptune train`'s checkpoints."""
        return self.root / "checkpoints"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.checkpoints / "weights.pt"

    def tracking(self, tool: str) -> Path:
        """The directory of what one tracker was told, and of its files."""
        return self.root / "tracking" / tool

    @property
    def lock(self) -> Path:
        """The file the operating system's lock is on; it stays when nobody holds it."""
        return self.root / ".lock"

    @property
    def lock_holder(self) -> Path:
        """Who holds the lock, for the message to a second process."""
        return self.root / ".lock-holder.json"


def is_run_directory(path: Path) -> bool:
    """Whether `path` holds a run: a journal, or at least the two files written before it."""
    layout = RunLayout(path)
    try:
        return layout.journal.is_file() or (layout.config.is_file() and layout.environment.is_file())
    except OSError:  # it may not be searched
        return False


def make_directory(path: Path) -> None:
    """Make `path` and its parents where they are missing. Raises RunDirectoryError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        blocking = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), path)
        raise RunDirectoryError(f"cannot make the directory {path}: {blocking} is a file; choose another run directory") from error
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError | ValueError) -> RunDirectoryError:
    """Return the message for a failed write to `path`: what, where, and what helps."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    full = isinstance(error, OSError) and error.errno in FULL
    remedy = "make room, then give the same command again" if full else "choose a run directory that can be written"
    return RunDirectoryError(f"cannot write {path}: {reason}; {remedy}")


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file so that a crash leaves the old one or the new one; missing directories are made.

    Text is UTF-8; what UTF-8 cannot hold is written as a backslash escape. Raises RunDirectoryError on a full or read-only disk;
    the old file is then untouched and no temporary file is left.
    """
    make_directory(path.parent)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename or a new file in `path` survive a power cut, where the platform can fsync directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_curve(layout: RunLayout, trial_id: str, curve: Curve) -> None:
    """Write a trial's curve as CSV: a header, one row a step, nothing where nothing was measured.

    Floats are written with all their digits (`nan` and `inf` included), so that reading gives the same floats.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(curve.columns)
    writer.writerows(zip(*curve.columns.values(), strict=True))
    write_atomic(layout.curve(trial_id), text.getvalue())


@contextlib.contextmanager
def hold_lock(layout: RunLayout) -> Iterator[None]:
    """Be the one process that writes the run directory, which is made where it is missing.

    The lock is the operating system's and ends with its process, however that ends. What a process that was killed had half written is
    removed. Raises LockedError, naming the holder, where another process (or this one) has it.
    """
    make_directory(layout.root)
    lock = FileLock(layout.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(_locked_message(layout)) from error
    except OSError as error:
        raise cannot_write(layout.lock, error) from error
    try:
        _remove_temporary_files(layout)
        started = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        write_atomic(layout.lock_holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
        yield
    finally:
        with contextlib.suppress(OSError):
            layout.lock_holder.unlink(missing_ok=True)
        lock.release()


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that writes a run directory, as it noted itself; `here`: on this host."""

    pid: int
    host: str
    started: str
    here: bool

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.started}"


def holder_of(layout: RunLayout) -> Holder | None:
    """Who writes the run directory; the lock is not touched. A note that a killed process of this host left counts for nothing."""
    holder = _noted_holder(layout)
    return None if holder is None or (holder.here and not _lives(holder.pid)) else holder


def retire(layout: RunLayout) -> Path | None:
    """Rename the run directory to `<name>.old-1` (-2, … where that is taken) and return the new path; None where there is no run yet.

    Nothing is deleted. Raises LockedError while a process writes it, RunDirectoryError for a directory that holds other things.
    """
    root = layout.root.absolute()
    if not is_run_directory(root):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise RunDirectoryError(f"{root} is not a run directory, so it is not renamed to start over; choose another run directory")
        return None
    with hold_lock(layout):
        pass
    number = 1
    while os.path.lexists(old := root.with_name(f"{root.name}.old-{number}")):
        number += 1
    try:
        root.rename(old)
    except OSError as error:
        raise cannot_write(old, error) from error
    sync_directory(old.parent)
    return old


def _remove_temporary_files(layout: RunLayout) -> None:
    """Nobody else writes here now, so that a temporary file is one that was left; those of checkpoints can be large."""
    for folder in (layout.root, layout.curves, layout.tables, layout.figures, layout.checkpoints):
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether there is such a process; taken for granted where asking would end it."""
    if os.name != "posix" or pid <= 0:
        return os.name != "posix"
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def file_name(name: str) -> str:
    """Return `name` as a file or folder can bear it; two names that differ only in what cannot are taken for one."""
    return re.sub(r"[^\w.+-]", "_", name)


def _locked_message(layout: RunLayout) -> str:
    who = _noted_holder(layout) or "another process"
    return f"run directory {layout.root} is being written by {who}; wait for it to end, or choose another run directory"


def _noted_holder(layout: RunLayout) -> Holder | None:
    try:
        noted = json.loads(layout.lock_holder.read_text(encoding="utf-8"))
        host = str(noted["host"])
        return Holder(pid=int(noted["pid"]), host=host, started=str(noted["started"]), here=host == socket.gethostname())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
