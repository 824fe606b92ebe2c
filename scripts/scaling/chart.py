"""The speed-up against the number of workers, as a picture."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from scaling.simulate import Schedule


def draw(found: Sequence[Schedule], path: Path) -> None:
    """Write a PNG: for each kind of run and costs the mean speed-up, with foresight and without."""
    scale = alt.Scale(type="log", base=2)
    line = (
        alt.Chart(alt.Data(values=points(found)))
        .mark_line(point=True)
        .encode(
            x=alt.X("workers:Q", scale=scale, title="workers"),
            y=alt.Y("times:Q", scale=scale, title="times as fast as one worker"),
            color=alt.Color("foresight:N", title=None),
        )
        .properties(width=240, height=200)
    )
    line.facet(facet=alt.Facet("run:N", title=None), columns=3).save(path, ppi=144)


def points(found: Sequence[Schedule]) -> list[dict[str, Any]]:
    """One point for each run, number of workers, and foresight."""
    usual = [s for s in found if s.order == "longest first"]
    alone = {(s.kind, s.costs, s.repetition): s.seconds for s in usual if s.workers == 1}
    times: dict[tuple[str, bool, int], list[float]] = defaultdict(list)
    for s in usual:
        for foresight in (False, True) if s.workers == 1 else (s.foresight,):
            times[f"{s.kind}, {s.costs}", foresight, s.workers].append(alone[s.kind, s.costs, s.repetition] / s.seconds)
    return [
        {"run": run, "foresight": "foresight" if foresight else "rounds alone", "workers": workers, "times": statistics.fmean(own)}
        for (run, foresight, workers), own in sorted(times.items())
    ]
