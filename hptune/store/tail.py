"""Reading a journal that another process writes: only what is new each time, and nothing is changed or locked."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from hptune.errors import RunDirectoryError


@dataclass(slots=True)
class Tail:
    """Where reading stands in the journal at `path`."""

    path: Path
    offset: int = 0
    written: float | None = None
    """When the journal was last written, in seconds of the system's clock; None before there is one."""
    _file: tuple[int, int] | None = field(default=None, repr=False)

    def read(self) -> tuple[bool, list[bytes]]:
        """Whether the journal was replaced or cut since the last call, and its new complete lines (all of them, if so).

        A last line without its newline waits until it is whole. A journal that is missing, as it is for a moment while a run
        starts over, has no lines. Raises RunDirectoryError where it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                now = (status.st_dev, status.st_ino)
                replaced = self._file is not None and (now != self._file or status.st_size < self.offset)
                if replaced:
                    self.offset = 0
                self._file, self.written = now, status.st_mtime
                file.seek(self.offset)
                content = file.read()
        except FileNotFoundError:
            return False, []
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self.path}: {error.strerror or error}") from error
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        return replaced, list(io.BytesIO(whole))  # splitlines would end lines elsewhere too
