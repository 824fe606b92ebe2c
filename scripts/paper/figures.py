"""A panel as a picture: every seed a point, and the line of their means."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from hptune.report.chart_parts import Chart, log_scale, styled
from hptune.report.charts import in_palette
from hptune.store.layout import write_atomic
from paper.evidence import Panel

SIZE = {"width": 520, "height": 280}
RESOLUTION = 110  # pixels per inch


def draw(panel: Panel, path: Path) -> None:
    """Write a PNG."""
    png = io.BytesIO()
    chart(panel).save(png, format="png", ppi=RESOLUTION)
    write_atomic(path, in_palette(png.getvalue()))


def chart(panel: Panel) -> Chart:
    """The panel as a chart. Numbers are sorted by size, words stand in the order in which they come."""
    words = any(isinstance(row["x"], str) for row in panel.rows)
    base = alt.Chart(alt.Data(values=[dict(row) for row in panel.rows]))
    if words:
        x = alt.X("x:N", title=panel.x, sort=None, axis=alt.Axis(labelAngle=0))
    else:
        scale = _log(panel.rows) if panel.log else alt.Scale(zero=False)
        x = alt.X("x:Q", title=panel.x, scale=scale, axis=alt.Axis(tickCount=6, format="~g"))
    height = alt.Scale(zero=False, padding=6)  # no point on the axis
    y = alt.Y("y:Q", title=panel.y, scale=height)
    color = alt.Color("series:N", title=None, sort=None, legend=alt.Legend(columns=2, labelLimit=260))
    offset = {"xOffset": alt.XOffset("series:N", sort=None)} if words and len({row["series"] for row in panel.rows}) > 1 else {}
    points = base.mark_circle(size=28, opacity=0.55).encode(x=x, y=y, color=color, **offset)
    mean = alt.Y("mean(y):Q", title=panel.y, scale=height)
    if panel.lines:
        over = base.mark_line(strokeWidth=1.6).encode(x=x, y=mean, color=color)
    else:
        over = base.mark_tick(thickness=2, size=18, orient="horizontal").encode(x=x, y=mean, color=color, **offset) if words else None
    layered = alt.layer(points, over) if over is not None else points
    return styled(layered.properties(title=panel.title, **SIZE))


def _log(rows: Sequence[Any]) -> alt.Scale:
    values = [row["x"] for row in rows if row["x"] > 0 and math.isfinite(row["x"])]
    return log_scale(min(values), max(values))
