"""Going on with a journal of which some lines are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptune.errors import DamagedLineError, JournalError
from hptune.store.journal import HEADER, JournalState, complete_lines, line_of
from hptune.store.layout import RunLayout, hold_lock, write_atomic

ASSUMED = {**HEADER, "minor": 0}
"""The header where the first line is damaged: checksums must hold where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What `salvage` left out: the `lines` by number, and where the file with them is `kept`; no lines, nothing done."""

    lines: tuple[int, ...] = ()
    kept: Path | None = None


def salvage(layout: RunLayout) -> Salvage:
    """Leave the damaged lines out of the run directory's journal, so that the run reads and continues without them.

    The damaged file is kept beside it under another name. Raises LockedError while a process writes the run, RunDirectoryError
    where that is not possible, JournalError where no line is intact or the format is newer.
    """
    with hold_lock(layout):
        path = layout.journal
        lines = list(complete_lines(path))
        header: dict[str, Any] = {}
        intact, lost = [], []
        for number, line in enumerate(lines, start=1):
            alone = JournalState(path, header=header or ({} if number == 1 else ASSUMED))
            try:
                alone.add(line)
                list(alone.records.values())
            except DamagedLineError:
                lost.append(number)
                continue
            header = alone.header
            intact.append(line)
        if not lost:
            return Salvage()
        if not intact:
            raise JournalError(f"{path}: no line of it is intact; start over with --fresh")
        if lost[0] == 1:
            intact.insert(0, line_of({"kind": "header", **ASSUMED}))
        kept = layout.damaged_journal()
        write_atomic(kept, path.read_bytes())
        write_atomic(path, b"".join(intact))
        return Salvage(lines=tuple(lost), kept=kept)
