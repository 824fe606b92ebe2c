"""Checkpoints: written whole or not at all, the last two kept, a damaged one passed over."""

from __future__ import annotations

import contextlib
import os
import secrets
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hptune.errors import RunDirectoryError

KEPT = 2
DOS_FOLDER = 0x10  # the bit of a zip member's attributes that says so


class Checkpoints:
    """The checkpoints of one trial in `directory`, which is made when the first one is saved; other trials' are left alone."""

    def __init__(self, directory: Path, trial_id: str) -> None:
        self._directory, self._trial_id = directory, trial_id

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save `state` (tensors and plain values) as of `step`; drop all but the last two. Raises RunDirectoryError."""
        write_tensors(self._directory / f"{self._trial_id}-{step:09d}.pt", {"trial_id": self._trial_id, **state})
        for path in self._paths()[:-KEPT]:
            path.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Return the newest state that can be read, or None, and a sentence about each one that cannot."""
        warnings: list[str] = []
        for path in reversed(self._paths()):
            state = _read(path)
            if state is not None and state.get("trial_id") == self._trial_id:
                return state, tuple(warnings)
            warnings.append(f"{path} is damaged and was passed over")
        return None, tuple(warnings)

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(f"{self._trial_id}-*.pt"))


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """`torch.save` so that a crash leaves the old file or the new one. Raises RunDirectoryError, leaving the old file."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's writer
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunDirectoryError(f"cannot write {path}: {reason}; make room, then give the same command again") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync(path.parent)


def read_tensors(path: Path) -> Any:
    """What `torch.save` wrote to `path`, on the CPU; nothing but tensors and plain values is unpickled.

    A wrong byte anywhere raises, which `torch.load` alone would not notice (in the form that torch wrote before 1.6, nobody can).
    What it raises can be any Exception: damaged bytes can make the unpickler fail anywhere.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4":
            with zipfile.ZipFile(file) as archive:
                _check_members(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on files of other kinds, which then are refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile for wrong contents, and for what would make torch not read them at all."""
    if archive.testzip() is not None:
        raise zipfile.BadZipFile("a checksum is wrong")
    if any(member.external_attr & DOS_FOLDER for member in archive.infolist()):  # of these torch reads nothing, and takes what memory holds
        raise zipfile.BadZipFile("a member is marked as a folder")


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a checkpoint; None where it is damaged."""
    try:
        content = read_tensors(path)
    except Exception:
        return None
    return content if isinstance(content, dict) else None


def _sync(directory: Path) -> None:
    """Make the rename survive a power cut, where the platform can fsync directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
