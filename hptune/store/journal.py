r"""The journal: one JSON object a line, appended and fsynced record by record, replayed to know what is done.

Each line is `{"kind": KIND, ...payload, "crc": CHECKSUM}`; the first is a `header` with `format`, `minor` and the version of `hptune`.
A newer `format` is refused; what a newer `minor` adds (kinds, fields) is kept and left alone. A last line without its newline is what a
crash in mid-write leaves: it is dropped. Any other line that is no such object, or whose checksum (CRC-32 of the line up to it) does
not hold, is an error that names the line; `hptune.store.salvage` goes on without such lines. Minor version 0 had no checksums; how a
newer one makes them is not ours to say, so that its lines are taken as they parse.

Losses may be NaN or infinite, which JSON lacks: they stand as `NaN`, `Infinity` and `-Infinity`, as Python's `json` reads and
writes them. Lines are UTF-8; one that holds a lone surrogate or a Unicode line separator is escaped to ASCII, so that every
reader splits the file where we do.

A stage's `plan` holds what the stage knows and the trials of its first round; each later `round` the trials `after` so many, so
that many rounds take no more room than one. Minor version 1 wrote the whole plan again for each.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hptune.errors import DamagedLineError, JournalError, RunDirectoryError
from hptune.store.layout import cannot_write, make_directory, sync_directory
from hptune.trial import TrialRecord
from hptune.version import __version__

FORMAT = 1
MINOR = 2
KINDS = frozenset({"header", "trial", "plan", "round", "conclusion", "calibration", "task", "clock", "concurrency", "weights"})
"""What this version writes, always with a checksum."""
HEADER = {"format": FORMAT, "minor": MINOR, "hptune": __version__}
_TRIAL = re.compile(rb'\{"kind": "trial", "trial_id": "([0-9a-f]{16})", ')
_CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"\}\n\Z')
_NEEDS_ASCII = re.compile("[\u0085\u2028\u2029\ud800-\udfff]")


class Records(Mapping[str, TrialRecord]):
    """Trial records by trial id, in journal order; each is decoded when it is first asked for.

    The id is the one that was stored with the record: fields that a later version adds to a spec must not orphan old records.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, tuple[int, bytes] | TrialRecord] = {}

    def keep(self, trial_id: str, line: bytes, number: int) -> None:
        """Keep the journal's line `number` as the record of `trial_id`, unless there is one already."""
        self._entries.setdefault(trial_id, (number, line))

    def __getitem__(self, trial_id: str) -> TrialRecord:
        entry = self._entries[trial_id]
        if isinstance(entry, TrialRecord):
            return entry
        number, line = entry
        try:
            record = TrialRecord.from_json(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedLineError(f"{self._path}, line {number}: this is no complete trial record ({error!r})") from error
        self._entries[trial_id] = record
        return record

    def __contains__(self, trial_id: object) -> bool:
        return trial_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(slots=True)
class JournalState:
    """What a journal says.

    `records`: by trial id, the first of an id counts. `plans` and `conclusions`: the latest of each stage, stages in the order
    they were first planned or concluded; a plan's `trials` are those of all its rounds. `calibrations` by `key`, `tasks` by
    `task_id`: the latest, and the task a command named last stands last. `others`: the payloads of every other kind, in order.
    Payloads are plain JSON values, without their `kind` and checksum. `header` is empty for an empty journal.
    """

    path: Path
    records: Records = field(init=False)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    conclusions: dict[str, dict[str, Any]] = field(default_factory=dict)
    calibrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    lines: int = 0
    size: int = 0
    """Bytes up to the end of the last complete line."""

    def __post_init__(self) -> None:
        self.records = Records(self.path)

    def add(self, line: bytes) -> None:
        """Take in the next complete line, its newline included. Raises DamagedLineError, naming the line, where it is damaged."""
        self.lines += 1
        self.size += len(line)
        where = f"{self.path}, line {self.lines}"
        holds = _checksum_holds(line)
        if holds and self.understood and (begins := _TRIAL.match(line)):
            self.records.keep(begins[1].decode(), line, self.lines)  # parsing takes the time of a long journal: only when asked for
            return
        try:
            payload = json.loads(line.decode("utf-8"))
            kind = _text(payload.pop("kind"))
            payload.pop("crc", None)
            if kind == "header":
                self.header = _readable(payload, where)
            elif not self.header:
                raise JournalError(f"{where}: this is not an hptune journal: it does not begin with a header")
            if self.understood and (holds is False or (holds is None and kind in KINDS and self.header.get("minor", 0) > 0)):
                raise ValueError("the checksum does not hold")
            if kind == "trial":
                self.records.keep(_text(payload["trial_id"]), line, self.lines)
            elif kind != "header":
                self._keep(kind, payload)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            command = shlex.join(["hptune", "recommend", str(self.path.parent), "--salvage"])
            remedy = f"restore the file from a copy, or go on with the lines that are intact: {command}"
            raise DamagedLineError(f"{where}: the line is damaged; {remedy}") from error

    @property
    def understood(self) -> bool:
        """Whether this version knows all that the journal's own may have written: how its checksums are made, above all."""
        return bool(self.header) and self.header["format"] == FORMAT and self.header.get("minor", 0) <= MINOR

    def _keep(self, kind: str, payload: dict[str, Any]) -> None:
        if kind == "plan":
            self.plans[_text(payload["stage"])] = payload
        elif kind == "round":
            after, trials = int(payload["after"]), list(payload["trials"])
            if plan := self.plans.get(_text(payload["stage"])):  # none where that line was damaged and left out
                plan["trials"][after:] = trials
        elif kind == "conclusion":
            self.conclusions[_text(payload["stage"])] = payload
        elif kind == "calibration":
            self.calibrations[_text(payload["key"])] = payload
        elif kind == "task":
            self.tasks.pop(_text(payload["task_id"]), None)  # the latest task stands last
            self.tasks[payload["task_id"]] = payload
        else:
            self.others.setdefault(kind, []).append(payload)


def replay(path: Path) -> JournalState:
    """Read a journal without changing it; a torn last line is passed over.

    Raises RunDirectoryError where there is none or it cannot be read, DamagedLineError for a damaged line, JournalError for a newer
    format.
    """
    state = JournalState(path)
    for line in complete_lines(path):
        state.add(line)
    return state


def complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a journal, newlines included, but for a torn last one."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path.parent} is not a run directory: it holds no {path.name}") from error
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from error


class Journal:
    """A journal open for appending. Only the process that holds the run directory's lock may have one.

    Opening makes the file where it is missing and cuts off a torn last line. `state` is at every moment what `replay` would give.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        make_directory(path.parent)
        try:
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self.state = replay(path)
            self._drop_torn_line()
            if not self.state.header:
                self.append("header", HEADER)
                sync_directory(path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append one record by a single write and wait until it is on the disk.

        Raises RunDirectoryError where that fails: the file then ends after the record before, and `state` is unchanged.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of record")
        if "kind" in payload or "crc" in payload:
            raise ValueError("a payload has no kind and no checksum of its own")
        line = line_of({"kind": kind, **payload})
        if self._file is None:
            raise RunDirectoryError(f"cannot write {self._path}: the journal is closed")
        try:
            rest = memoryview(line)
            while rest:  # one write, unless the disk is nearly full: then the next one says so
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise cannot_write(self._path, error) from error
        self.state.add(line)

    def close(self) -> None:
        """Close the file; calling it twice is harmless."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_back(self) -> None:
        """Cut off what a failed append left; where even that fails, nothing may be written behind it."""
        try:
            self._cut(self.state.size)
        except OSError:
            self.close()

    def _drop_torn_line(self) -> None:
        try:
            self._cut(self.state.size)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _cut(self, size: int) -> None:
        if self._file is not None and os.fstat(self._file).st_size > size:
            os.ftruncate(self._file, size)
            os.fsync(self._file)


def _checksum_holds(line: bytes) -> bool | None:
    """Whether the line's checksum is that of what stands before it; None for a line without one."""
    found = _CHECKSUM.search(line, max(0, len(line) - 32))
    return None if found is None else zlib.crc32(memoryview(line)[: found.start()]) == int(found[1], 16)


def _readable(header: dict[str, Any], where: str) -> dict[str, Any]:
    if int(header["format"]) > FORMAT:
        raise JournalError(
            f"{where}: the journal was written by hptune {header.get('hptune', '(unknown)')} in format {header['format']}, and this is "
            f"hptune {__version__}, which reads formats up to {FORMAT}; install the newer version"
        )
    return header


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def line_of(record: Mapping[str, Any]) -> bytes:
    """Return a record, its `kind` included, as the journal's line with its checksum."""
    text = json.dumps(record, ensure_ascii=False)
    if _NEEDS_ASCII.search(text):
        text = json.dumps(record)
    content = text.encode("utf-8").removesuffix(b"}")
    return b'%s, "crc": "%08x"}\n' % (content, zlib.crc32(content))
