"""What another tool has been told already: a line for each thing, appended once it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PLACE = "place "


class Ledger:
    """Use as a context manager. Where the process is killed between telling and noting, one thing is told again.

    `place`: where the things went, of which it keeps account; empty for a new ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
        self._torn = bool(lines) and not lines[-1].endswith("\n")
        whole = [line.rstrip("\n") for line in lines if line.endswith("\n")]
        self.place = whole[0].removeprefix(PLACE) if whole and whole[0].startswith(PLACE) else ""
        self._told = set(whole[1:]) if self.place else set()

    def __enter__(self) -> Self:
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        if self._torn:
            self._write("")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def begin(self, place: str) -> None:
        """Go on with what went to `place`; what went to another one is forgotten."""
        if place != self.place:
            self.place, self._told = place, set()
            self._file.truncate(0)
            self._write(PLACE + place)

    def once(self, key: str, tell: Callable[[], None]) -> None:
        """Do what tells of `key`, unless that was done before."""
        if key not in self._told:
            tell()
            self._told.add(key)
            self._write(key)

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()
