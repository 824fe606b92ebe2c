"""What a search's recommendation comes to against what it cost, as a picture."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from contest.compare import CONFIRMED, Row
from contest.verdicts import BASELINE


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: for each half, search and cost the geometric mean of the final test loss over the untouched baseline's."""
    line = (
        alt.Chart(alt.Data(values=points(rows)))
        .mark_line(point=True)
        .encode(
            x=alt.X("cost:Q", scale=alt.Scale(type="log", nice=False), title="cost in short runs"),
            y=alt.Y("ratio:Q", scale=alt.Scale(zero=False), title="final test loss / baseline's"),
            color=alt.Color("search:N", title=None),
        )
        .properties(width=320, height=260)
    )
    line.facet(column=alt.Column("half:N", title=None)).save(path, ppi=144)


def points(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One point for each half, search and what it was allowed; jobs weigh the same."""
    baseline = {(r.job, r.repetition, r.budget): r.loss for r in rows if r.search == BASELINE}
    logs: dict[tuple[bool, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    costs: dict[tuple[bool, str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row.search != BASELINE and not row.search.endswith(CONFIRMED):
            key = (row.held_out, row.search, row.budget * row.times)
            logs[key][row.job].append(math.log(row.loss / baseline[row.job, row.repetition, row.budget]))
            costs[key].append(row.cost)
    return [
        {
            "half": "held out" if held_out else "development",
            "search": search,
            "cost": statistics.fmean(costs[held_out, search, allowed]),
            "ratio": math.exp(statistics.fmean(statistics.fmean(values) for values in by_job.values())),
        }
        for (held_out, search, allowed), by_job in sorted(logs.items())
    ]
