"""Every error hptune raises on purpose, and the exit status each ends in.

    HptuneError                 1   it ran and failed
    ├── InputError              2   what the user gave is wrong
    │   ├── ConfigError         2   a key or value of the config, or an option of the command line
    │   ├── DataError           2   the data set cannot be used as it is
    │   └── UserCodeError       2   the user's own code raised, or is not where `target:` says
    ├── RunDirectoryError       1   the run directory cannot be read or written
    │   ├── JournalError        1   no journal, or one from a newer hptune
    │   │   └── DamagedLineError 1  a line of it is damaged; `hptune recommend --salvage` goes on without
    │   └── LockedError         1   another process is writing the run directory
    ├── DeviceLostError         1   the device can no longer be used from this process
    └── StageError              1   no trial of a stage ended with a usable loss

A message says what is wrong, where, and what would be right. It never needs a traceback to be understood.
"""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What breaks a line or drives a terminal, and halves of characters: never printed as they are."""
LONGEST_KEY_SHOWN = 200
LONGEST_PLACE_SHOWN = 500
LONGEST_SAID = 300  # characters; a damaged file can make a library quote thousands


class HptuneError(Exception):
    """Base of all errors meant for the user; `str(error)` is the whole message."""

    exit_status = 1


class InputError(HptuneError):
    """What the user gave is wrong; nothing was run and nothing was written over."""

    exit_status = 2


class ConfigError(InputError):
    """A config key or value, or a command-line option, is wrong.

    `where` is `file:line` (or `--set`), `key` the dotted key path; both stand in front of the message, on one line with it.
    """

    def __init__(self, message: str, *, where: str | None = None, key: str | None = None) -> None:
        self.message, self.where, self.key = message, where, key
        parts = (abridged(where or "", LONGEST_PLACE_SHOWN), abridged(key or "", LONGEST_KEY_SHOWN), message)
        super().__init__(printable(": ".join(part for part in parts if part)))


class DataError(InputError):
    """The data set is missing, empty, or of a form that cannot be trained on."""


class UserCodeError(InputError):
    """The user's own code raised or does not fit; `where` is its `file:line`."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.message, self.where = message, where
        super().__init__(f"{where}: {message}" if where else message)


class RunDirectoryError(HptuneError):
    """The run directory cannot be read or written."""


class JournalError(RunDirectoryError):
    """The journal is none, or of a format this version cannot read."""


class DamagedLineError(JournalError):
    """A line of the journal is damaged; the message names it."""


class LockedError(RunDirectoryError):
    """Another process is writing this run directory."""


class DeviceLostError(HptuneError):
    """An error of the device after which nothing more can be computed on it in this process, though in another one it can."""


class StageError(HptuneError):
    """Every trial of a stage failed or diverged."""


def abridged(text: str, longest: int) -> str:
    """Return `text`, the middle left out where it has more than `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-(longest // 2) :]}"


def printable(text: str) -> str:
    """Return `text` with line breaks, control characters and halves of characters as backslash escapes."""
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def said_by(error: Exception) -> str:
    """What a library's exception says, for use inside a message: one line, cut short; the exception's name where it says nothing."""
    return " ".join(str(error).split())[:LONGEST_SAID] or type(error).__name__
