"""Paths and file targets of a config: absolute while in use, relative to wherever the config is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePath

from hptune.config.expansion import escape, expand_text, has_variable
from hptune.config.fields import is_file_target, suggestion
from hptune.config.tree import COMPONENTS, Tree, get, replaced
from hptune.errors import ConfigError, abridged

FILES = ("data.root", "data.path", "model.pretrained")
TARGETS = ("data.target", "data.collate.target", *(f"{block}.target" for block in (*COMPONENTS, "step")))
TEXT_KEYS = (*FILES, *TARGETS)
LONGEST_SHOWN = 500


def resolve(tree: Tree, directory: Path) -> Tree:
    """Return `tree` with every path and file target absolute; relative ones refer to `directory`, `~` is the home folder."""
    for key in TEXT_KEYS:
        value = get(tree, key)
        if isinstance(value, str) and value and "\0" not in value and not (key in TARGETS and not is_file_target(value)):
            tree = replaced(tree, key, os.path.normpath(directory / _at_home(value)))
    return tree


def relocate(written: Tree, raw: Tree, directory: Path, destination: Path) -> Tree:
    """Return the resolved config `written` with the paths the user gave relative to `directory` made relative to `destination`.

    `raw` holds them as the user wrote them: absolute ones, `~` and variables stay so.
    """
    for key in TEXT_KEYS:
        given = get(raw, key)
        if isinstance(given, str) and get(written, key) is not None:
            written = replaced(written, key, _moved(key, given, directory, destination))
    return written


def as_written_in(folder: Path, given: str) -> str:
    """A path given on the command line as a config in `folder` names it; absolute ones and `~` stay as they are."""
    return escape(given if _at_home(given).is_absolute() else _relative(Path(given).absolute(), folder.absolute()))


def check_files(tree: Tree, locate: Callable[[str], str | None], shown: Tree) -> None:
    """Raise ConfigError where a target's file does not exist; `shown` holds the targets as the user wrote them."""
    for key in TARGETS:
        target = get(tree, key)
        if not isinstance(target, str) or not is_file_target(target):
            continue
        file = Path(target.rpartition(":")[0])
        given = get(shown, key).rpartition(":")[0]
        try:
            found = file.is_file()
        except OSError as error:
            message = f"{abridged(given, LONGEST_SHOWN)} cannot be read: {error.strerror}"
            raise ConfigError(message, where=locate(key), key=key) from None
        if not found:
            near = [path.name for path in sorted(file.parent.glob("*.py"))]
            place = "" if Path(given).is_absolute() else f" in {abridged(str(file.parent), LONGEST_SHOWN)}"
            message = f"there is no file {abridged(given, LONGEST_SHOWN)}{place}{suggestion(file.name, near)}"
            raise ConfigError(message, where=locate(key), key=key)


def _moved(key: str, given: str, directory: Path, destination: Path) -> str:
    text = expand_text(given, os.environ)
    if (key in TARGETS and not is_file_target(text)) or _at_home(text).is_absolute():
        return given
    if has_variable(given):
        return f"{escape(_relative(directory, destination))}/{given}"
    return escape(_relative(directory / text, destination))


def _at_home(text: str) -> Path:
    """`text` as a path, a leading `~` replaced by the home folder where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, or absolute where no relative path leads there (another drive)."""
    try:
        text = PurePath(os.path.relpath(path, start)).as_posix()
    except ValueError:
        return path.as_posix()
    return f"./{text}" if text.startswith("~") else text
