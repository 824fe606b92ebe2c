"""What all charts share: their look, their colours, their scales and their tooltips."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import pandas as pd

WIDTH, HEIGHT = 560, 300  # of a figure, in pixels
ACCENT, BLUE, RED, OCHRE, GREY = "#0a7d6c", "#4a7ab5", "#c4552d", "#a57c1b", "#7d848d"
"""Every colour stands out from white and from the report's dark ground alike, by three to one at least."""
VERDICTS = {"best": ACCENT, "tied": BLUE, "worse": RED}
PARTS = {"validation": ACCENT, "training": OCHRE}
WIDE_SPREAD = 4.0  # highest over lowest loss: more is drawn on a logarithmic scale
NUMBER = ".4~g"  # d3's format of a number at an axis
Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.ConcatChart


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its file name, its title and a sentence on how to read it; a `wide` one needs a row of its own."""

    name: str
    title: str
    caption: str
    chart: Chart
    wide: bool = False

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification in the common look, made once: altair takes as long over it as drawing does."""
        spec: dict[str, Any] = styled(self.chart).to_dict(validate=False)
        return spec


def styled(chart: Chart) -> Chart:
    """Set the common look."""
    words: dict[str, Any] = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    styled_chart: Chart = chart.configure(
        axis=alt.AxisConfig(**{**words, "titleFontSize": 13}, titlePadding=8, gridOpacity=0.35),
        legend=alt.LegendConfig(**words, orient="bottom", symbolOpacity=1),
        title=alt.TitleConfig(fontSize=15, anchor="start", offset=12),
        view=alt.ViewConfig(stroke=None),
    )
    return styled_chart


def tooltip(*fields: str) -> list[alt.Tooltip]:
    """Tooltips of `field` (text or a whole number) or `field:format` (a number)."""
    parts = [field.partition(":") for field in fields]
    return [
        alt.Tooltip(f"{name}:Q", format=form, title=_spelt(name)) if form else alt.Tooltip(f"{name}:N", title=_spelt(name))
        for name, _, form in parts
    ]


def colors(palette: dict[str, str]) -> alt.Scale:
    """A colour for each word."""
    return alt.Scale(domain=list(palette), range=list(palette.values()))


def loss_scale(values: pd.Series, *, limit: float | None = None, wide_spread: float = WIDE_SPREAD) -> alt.Scale:
    """From a little below the lowest loss to a little above the highest, or above `limit`; logarithmic where losses are far apart."""
    low, high = float(values.min()), float(values.max()) if limit is None else limit
    if 0 < low * wide_spread < high:
        return log_scale(low, high)
    gap = 0.05 * (high - low) or abs(low) * 0.05 or 1.0
    return alt.Scale(domain=[low - gap, high + gap], nice=False)


def log_scale(low: float, high: float, margin: float = 0.05) -> alt.Scale:
    """A logarithmic scale from `low` to `high` (positive, however far apart) and the share `margin` beyond on both sides."""
    gap = margin * (math.log(high) - math.log(low))
    ends = [max(math.log(low) - gap, math.log(sys.float_info.min)), min(math.log(high) + gap, math.log(sys.float_info.max))]
    return alt.Scale(type="log", domain=[math.exp(end) for end in ends], nice=False)


def loss_axis(**more: Any) -> alt.Axis:
    """Few ticks, in the shortest form."""
    return alt.Axis(format=NUMBER, tickCount=5, **more)


def stroke_legend(**more: Any) -> alt.Legend:
    """A legend that shows lines as lines, dashed ones dashed."""
    return alt.Legend(symbolType="stroke", symbolSize=350, symbolStrokeWidth=2, symbolFillColor="transparent", **more)


def _spelt(name: str) -> str:
    return name.replace("_", " ")
