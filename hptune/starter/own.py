"""The user's own code as blocks of a config: what each target needs, what it takes besides, and what is still to be written."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptune.config.fields import is_file_target
from hptune.config.schema import folder_name
from hptune.config.tree import FILL_IN
from hptune.errors import InputError
from hptune.starter.code import Code, Definition, Role, read_code
from hptune.starter.data import Found
from hptune.starter.uses import settings_in

SHOWN = 4  # optional parameters that a comment lists
LOADER = '''\
"""The data that {config} trains on. Read yours here, in whatever way they are stored."""

from pathlib import Path

import numpy as np


def load(path):
    """Return (train, val) or (train, val, test): each a pair (x, y) of arrays or tensors, or a map-style torch Dataset.

    Not a DataLoader: hptune forms the batches. Scale x to about unit variance, by the training part alone.
    """
    with np.load(Path(__file__).parent / path) as held:
        return (held["x_train"], held["y_train"]), (held["x_val"], held["y_val"])
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target as given, and, where it is in a file, that file as read and the name's definition."""

    given: str
    code: Code | None = None
    definition: Definition | None = None

    @property
    def name(self) -> str:
        """The word after the colon."""
        return self.given.rpartition(":")[2]

    def args(self) -> dict[str, Any]:
        """What has no default, to be filled in."""
        return {parameter.name: FILL_IN for parameter in self.definition.needed} if self.definition else {}

    def comments(self) -> dict[str, str]:
        """By key of `args`: what is known of each value."""
        if self.definition is None or self.code is None:
            return {}
        place = f"{self.code.file.name}:{self.definition.line} has no default for it"
        return {each.name: f"{each.annotation}; {place}" if each.annotation else place for each in self.definition.needed}

    def takes(self) -> str:
        """The parameters with a default, as a comment."""
        known = [p for p in (self.definition.parameters or () if self.definition else ()) if p.default is not None]
        listed = ", ".join(f"{p.name}={p.default}" for p in known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        return f"args it takes: {listed}" if listed else ""


def is_code(given: str) -> bool:
    """Whether the text names code, `FILE.py:NAME` or `package.module:name`, rather than a path or a word."""
    where, _, name = given.rpartition(":")
    named = name.isidentifier() and (is_file_target(given) or all(part.isidentifier() for part in where.split(".")))
    return named and not Path(given).exists()


def read_target(given: str) -> Target:
    """Read the file of a target, without running it. Raises InputError where it has no such name."""
    if not is_file_target(given):
        return Target(given=given)  # a module: importing it is the only way to find it
    where, _, name = given.rpartition(":")
    code = read_code(Path(where))
    return Target(given=given, code=code, definition=code.named(name))


def data_of(model: Target) -> Target | None:
    """The one function beside the model that looks like its data; None where there is none. Raises InputError where there are several."""
    if model.code is None:
        return None
    found = model.code.of_role("data")
    if len(found) > 1:
        choices = " or ".join(f"--data {model.code.file}:{each.name}" for each in found[:SHOWN])
        raise InputError(f"{model.code.file} has several functions that may return the data: add {choices}")
    return Target(given=f"{model.code.file}:{found[0].name}", code=model.code, definition=found[0]) if found else None


def own_data(target: Target) -> Found:
    """The data block for a function of the user's own."""
    where = target.given.rpartition(":")[0]
    line = f" (line {target.definition.line})" if target.definition else ""
    needed = {"args": target.args()} if target.args() else {}
    return Found(
        name=folder_name(Path(where).stem) if target.code else folder_name(where.rpartition(".")[2]),
        block={"target": target.given, **needed},
        path="target",
        sentences=(f"data: {target.given}{line}",),
        comments={"target": target.takes() or "returns (train, val) or (train, val, test)", **target.comments()},
        optimizer="adamw",
        lr=1e-3,
        epochs=20,
    )


def archive_data(name: str, file: str) -> Found:
    """The data block where there is no function yet: `LOADER` in `file`, which is written beside the config, reads an archive."""
    return Found(
        name=name,
        block={"target": f"{file}:load", "args": {"path": FILL_IN}},
        sentences=(f"data: no function that returns them was found; load() in {file} reads an .npz: name it, or change load() to yours",),
        comments={"target": "change it to read your data", "path": "an .npz with x_train, y_train, x_val, y_val"},
        optimizer="adamw",
        lr=1e-3,
        epochs=20,
    )


def baseline_of(code: Code) -> tuple[dict[str, Any], list[str]]:
    """What the file trains with now, and a sentence that says where it was seen."""
    found = settings_in(code.tree)
    if not found:
        return {}, []
    listed = ", ".join(f"{name.replace('_', ' ')} {each.value} (line {each.line})" for name, each in found.items())
    return {name: each.value for name, each in found.items()}, [f"{code.file} trains with {listed}"]


def remarks(code: Code, used: Sequence[str]) -> list[str]:
    """What a reader should know of a file: a training that starts on import; losses and metrics that could be named."""
    notes = []
    if re.search(r"\bAdam\(", ast.unparse(code.tree)):
        notes.append("Adam is tuned as AdamW: the same but for weight decay, which then shrinks the weights directly")
    if code.runs is not None:
        line, source = code.runs
        notes.append(
            f"{code.file}:{line} runs {source!r} whenever the file is imported, and so in every check and trial: "
            "put it below if __name__ == '__main__':"
        )
    roles: tuple[Role, ...] = ("loss", "metric")
    for role in roles:
        names = [each.name for each in code.of_role(role) if each.name not in used]
        if names:
            notes.append(f"looks like a {role}: {', '.join(names)}; to use it: {role}: {{target: {code.file.name}:{names[0]}}}")
    return notes


def candidates(code: Code) -> list[tuple[str, str, str]]:
    """Role, name and what calling it needs, for everything in the file that a config could name."""
    rows: list[tuple[str, str, str]] = []
    roles: tuple[Role, ...] = ("model", "data", "loss", "metric")
    for role in roles:
        for each in code.of_role(role):
            needed = "" if role in ("loss", "metric") else ", ".join(parameter.name for parameter in each.needed)
            rows.append((role, f"{code.file}:{each.name}", f"needs {needed}" if needed else ""))
    return rows


def candidates_named(file: str) -> list[str]:
    """The names of models and data functions in a file."""
    return [name.rpartition(":")[2] for role, name, _ in candidates(read_code(Path(file))) if role in ("model", "data")]
