"""How much of everything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`repetitions` of every measurement; `quick` for few and short ones; `nets` by name; `folder` for files made on the way."""

    repetitions: int
    quick: bool
    nets: tuple[str, ...]
    folder: Path
