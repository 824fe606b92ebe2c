"""What a comparison found, as plain data, and its tables as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and extremes of repeated measurements."""

    median: float
    low: float
    high: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=statistics.median(values), low=min(values), high=max(values), repetitions=len(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]" if self.repetitions > 1 else f"{self.median:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A goal beside what was measured; `met` is None where this machine or so few data cannot say."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: "not decided"}[self.met]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison: a row for each measurement, its targets, and how it was measured."""

    name: str
    title: str
    rows: tuple[Mapping[str, Any], ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    raw: Mapping[str, Any] = field(default_factory=dict)


def at_most(what: str, limit: float, value: float, *, applies: bool = True) -> Target:
    return Target(what=what, wanted=f"<= {limit:g}", measured=f"{value:.3g}", met=value <= limit if applies else None)


def at_least(what: str, limit: float, value: float) -> Target:
    return Target(what=what, wanted=f">= {limit:g}", measured=f"{value:.3g}", met=value >= limit)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Ratios of what was measured in the same repetition, so that a slow moment of the machine is in both."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def markdown(comparisons: Sequence[Comparison], machine: Mapping[str, Any]) -> str:
    """Return the whole report: machine, targets, then each comparison's rows and notes."""
    blocks = ["# Speed", table([{"": key, "value": _cell(value)} for key, value in machine.items()]), "## Targets", summary(comparisons)]
    for comparison in comparisons:
        blocks += [f"## {comparison.title}", table(comparison.rows), "\n".join(f"- {note}" for note in comparison.notes)]
        blocks.append(f"Took {comparison.seconds:.0f} s.")
    return "\n\n".join(block for block in blocks if block) + "\n"


def summary(comparisons: Sequence[Comparison]) -> str:
    return table(
        [
            {"comparison": c.name, "target": t.what, "wanted": t.wanted, "measured": t.measured, "": t.verdict}
            for c in comparisons
            for t in c.targets
        ]
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, its columns padded so that it reads in a terminal too; cells missing in a row stay empty."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_cell(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(entry)}" for key, entry in value.items())
    return str(value)
