"""Charts as Vega-Lite specifications (altair), the same for the report and for PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from hptune.analysis.recommendation import Conclusion
from hptune.report import frames
from hptune.report.run import Run, StageResult
from hptune.store.layout import write_atomic

WIDTH, HEIGHT = 560, 300  # of a figure, in pixels
SCALE = 2.0  # pixels of a PNG per pixel of the figure
VERDICTS = {"best": "#0a7d6c", "tied": "#5b7fa8", "worse": "#c4552d"}
PARTS = {"validation": "#0a7d6c", "training": "#b08a2e"}
CURVES = "_curves"
ACCENT, GREY = "#0a7d6c", "#8a8f98"
Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.ConcatChart


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its file name, its title and a sentence on how to read it; a `wide` one needs a row of its own."""

    name: str
    title: str
    caption: str
    chart: Chart
    wide: bool = False


def make_figures(run: Run) -> dict[str, list[Figure]]:
    """The charts of each stage by its name, and under `""` the one of the cost; none for what has no data."""
    cost = cost_figure(run)
    return {**{stage.name: stage_figures(stage) for stage in run.stages}, "": [cost] if cost else []}


def stage_figures(stage: StageResult) -> list[Figure]:
    """The charts of one stage; none for what has no data."""
    conclusion = stage.conclusion
    if conclusion is None:
        return []
    makers: list[Callable[[StageResult, Conclusion], Figure | None]] = [_range_test, _sweep, _curves]
    return [figure for make in makers if (figure := make(stage, conclusion)) is not None]


def cost_figure(run: Run) -> Figure | None:
    """Cost by stage; None before the first trial."""
    data = frames.cost_frame(run)
    if data.empty:
        return None
    data["says"] = [f"{row.trials} trials, {row.seconds:.3g} s" for row in data.itertuples()]
    bars = alt.Chart(data).encode(
        y=alt.Y("stage:N", sort=None, title=None),
        x=alt.X("short_runs:Q", title="short-run equivalents"),
        tooltip=_tooltip("stage", "trials", "short_runs:.3g", "samples", "seconds:.3g"),
    )
    chart = bars.mark_bar(color=ACCENT) + bars.mark_text(align="left", dx=5, color=GREY).encode(text=alt.Text("says:N"))
    return Figure(
        name="cost",
        title="Cost by stage",
        caption="One short-run equivalent is the compute of one short run at the baseline; seconds are summed over workers.",
        chart=chart.properties(width=WIDTH, height=alt.Step(30)),
        wide=True,
    )


def write_figures(run: Run, figures: Mapping[str, Sequence[Figure]]) -> None:
    """Write `figures/*.png`: one for each chart, but all loss curves together in `curves.png`."""
    panels = []
    for figure in (figure for own in figures.values() for figure in own):
        if figure.name.endswith(CURVES):
            panels.append(figure.chart.properties(title=figure.title, width=300, height=200))
        else:
            write_atomic(run.layout.figure(figure.name), to_png(figure.chart.properties(title=figure.title)))
    if panels:
        write_atomic(run.layout.figure("curves"), to_png(alt.concat(*panels, columns=2)))


def to_png(chart: Chart) -> bytes:
    """Render a chart, without a browser or a network."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(styled(chart).to_dict(validate=False), scale=SCALE)
    return png


def styled(chart: Chart) -> Chart:
    """Set the common look; text keeps its contrast on light and dark ground."""
    look = chart.configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.35)
    look = look.configure_legend(orient="bottom", labelFontSize=12, titleFontSize=12, titleFontWeight="normal", symbolOpacity=1)
    styled_chart: Chart = look.configure_title(fontSize=14, anchor="start").configure_view(stroke=None)
    return styled_chart


def _range_test(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    data = frames.range_frame(conclusion)
    if data.empty:
        return None
    validation = data[data["part"] == "validation"]
    losses = (validation if not validation.empty else data)["loss"]
    limit = frames.range_limit(losses)
    lines = (
        alt.Chart(data)
        .mark_line(clip=True, point=alt.OverlayMarkDef(size=18, clip=True))
        .encode(
            x=alt.X("lr:Q", scale=alt.Scale(type="log", nice=False), title="learning rate", axis=alt.Axis(format="~g", tickCount=8)),
            y=alt.Y("loss:Q", scale=_loss_scale(float(data["loss"].min()), limit), title="loss"),
            color=alt.Color("part:N", scale=_colors(PARTS), title=None),
            opacity=alt.condition("datum.part == 'validation'", alt.value(1.0), alt.value(0.55)),
            detail=alt.Detail("seed:N"),
            tooltip=_tooltip("lr:.3g", "loss:.4g", "part", "seed"),
        )
    )
    marks = [*_suggestion(conclusion), lines]
    return Figure(
        name=stage.name,
        title="LR range test",
        caption="Loss while the learning rate rises, one line a seed. The upright line is the suggested maximum, the band its interval.",
        chart=alt.layer(*marks).properties(width=WIDTH, height=HEIGHT),
    )


def _suggestion(conclusion: Conclusion) -> list[alt.Chart]:
    """The suggested LR as a line, its interval as a band where it has a width."""
    suggested, low, high = (conclusion.detail.get(key) for key in ("suggested", "low", "high"))
    marks = []
    if frames.is_number(low) and frames.is_number(high) and low < high:
        band = pd.DataFrame([{"low": low, "high": high}])
        marks.append(alt.Chart(band).mark_rect(opacity=0.15, color=ACCENT, clip=True).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q")))
    if frames.is_number(suggested):
        line = alt.Chart(pd.DataFrame([{"lr": suggested}])).mark_rule(color=ACCENT, strokeWidth=2)
        marks.append(line.encode(x=alt.X("lr:Q"), tooltip=alt.Tooltip("lr:Q", title="suggested")))
    return marks


def _sweep(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    """Candidates against loss."""
    data, seeds = frames.candidate_frame(conclusion), frames.seed_frame(stage, conclusion)
    if data.empty:
        return None
    axis = frames.axis(conclusion)
    height: Any = alt.Step(34) if axis.kind == "named" else HEIGHT
    left_out = frames.missing_candidates(conclusion)
    checks = stage.name == "lr_range"
    return Figure(
        name="lr_range_checks" if checks else stage.name,
        title="Short runs around the suggestion" if checks else f"Validation loss by {'candidate' if axis.kind == 'named' else axis.title}",
        caption="Means over seeds with simultaneous 95 % intervals where there is one; grey dots are single seeds, the diamond goes on."
        + (f" Left out: {left_out}." if left_out else ""),
        chart=_sweep_chart(axis, data, seeds).properties(width=WIDTH, height=height),
        wide=axis.kind == "named",
    )


def _sweep_chart(axis: frames.Axis, data: pd.DataFrame, seeds: pd.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Interval, mean and every seed of each candidate; a mark where a loss lies beyond the chart."""
    across = "x" if axis.kind == "named" else "y"
    place, loss = _place(axis, data), _loss_channels(data, seeds, alt.X if axis.kind == "named" else alt.Y)
    base = alt.Chart(data).encode(**place, color=alt.Color("verdict:N", scale=_colors(VERDICTS), title=None))
    high = alt.X2("high:Q") if across == "x" else alt.Y2("high:Q")
    intervals = base.mark_rule(strokeWidth=2).encode(**{across: loss["low"], f"{across}2": high})
    means = base.mark_point(filled=True, opacity=1).encode(
        **{across: loss["shown"]},
        shape=alt.Shape("chosen:N", scale=alt.Scale(domain=["", "goes on"], range=["circle", "diamond"]), legend=None),
        size=alt.condition("datum.chosen == 'goes on'", alt.value(240), alt.value(90)),
        tooltip=_tooltip("settings", "val_loss:.4g", "verdict", "seeds", "chosen"),
    )
    dots = (
        alt.Chart(seeds)
        .mark_circle(size=28, color=GREY, opacity=0.75)
        .encode(**place, **{across: loss["shown"]}, tooltip=_tooltip("label", "seed", "val_loss:.4g"))
    )
    beyond = base.mark_text(dy=-13, fontSize=11).encode(**{across: loss["shown"]}, text=alt.Text("beyond:N"))
    return alt.layer(intervals, dots, means, beyond)


def _place(axis: frames.Axis, data: pd.DataFrame) -> dict[str, Any]:
    """The channel that says which candidate."""
    if axis.kind == "named":
        above = alt.Axis(labelLimit=260, titleAngle=0, titleAlign="right", titleX=-10, titleY=-8)
        return {"y": alt.Y("label:N", sort=list(data["label"]), title=axis.title, axis=above)}
    if axis.kind == "log":
        scale = alt.Scale(type="log", nice=False, padding=20)
        return {"x": alt.X("value:Q", scale=scale, title=axis.title, axis=alt.Axis(format="~g", tickCount=6))}
    ordered = data.sort_values(["value", "label"], na_position="last")["label"]
    return {"x": alt.X("label:O", sort=list(ordered), title=axis.title, axis=alt.Axis(labelAngle=0))}


def _loss_channels(data: pd.DataFrame, seeds: pd.DataFrame, channel: Any) -> dict[str, Any]:
    """Channels `low` and `shown` on one loss scale that fits means, intervals and seeds."""
    values = pd.concat([data["low"], data["high"], data["shown"], seeds["shown"]])
    scale = _loss_scale(float(values.min()), float(values.max()))
    return {name: channel(f"{name}:Q", scale=scale, title="validation loss") for name in ("low", "shown")}


def _curves(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    data = frames.curve_frame(stage, conclusion)
    if data.empty:
        return None
    several = data["candidate"].nunique() > 1
    dashes = alt.StrokeDash("candidate:N", title=None, legend=alt.Legend(symbolType="stroke", symbolStrokeColor=GREY))
    chart = (
        alt.Chart(data)
        .mark_line(point=alt.OverlayMarkDef(size=18))
        .encode(
            x=alt.X("epoch:Q", title="epochs", scale=alt.Scale(domainMin=0)),
            y=alt.Y("loss:Q", scale=_loss_scale(float(data["loss"].min()), float(data["loss"].max())), title="loss"),
            color=alt.Color("part:N", scale=_colors(PARTS), title=None),
            detail=alt.Detail("seed:N"),
            strokeDash=dashes if several else alt.Undefined,
            tooltip=_tooltip("candidate", "part", "seed", "epoch:.3g", "loss:.4g"),
        )
    )
    clues = {row.clue for row in conclusion.rows if row.chosen and row.clue}
    chosen = next((frames.label(row) for row in conclusion.rows if row.chosen), "baseline")
    return Figure(
        name=stage.name + CURVES,
        title=f"Loss curves: {stage.name.replace('_', ' ')}, {chosen}" if not several else "Loss curves: finalist and baseline",
        caption="Training and validation loss, one line a seed." + (f" The clue: {', '.join(sorted(clues))}." if clues else ""),
        chart=chart.properties(width=WIDTH, height=HEIGHT),
    )


def _tooltip(*fields: str) -> list[alt.Tooltip]:
    """Tooltips of `field` (text or a whole number) or `field:format` (a number)."""
    parts = [field.partition(":") for field in fields]
    return [alt.Tooltip(f"{name}:Q", format=form) if form else alt.Tooltip(f"{name}:N") for name, _, form in parts]


def _colors(palette: dict[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(palette), range=list(palette.values()))


def _loss_scale(low: float, high: float) -> alt.Scale:
    """From a little below the lowest loss to a little above the limit."""
    margin = 0.05 * (high - low) or abs(low) * 0.05 or 1.0
    return alt.Scale(domain=[low - margin, high + margin], nice=False)
