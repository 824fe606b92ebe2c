"""Charts as Vega-Lite specifications (altair), the same for the report and for PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.report import frames
from hptune.report.chart_parts import (
    ACCENT,
    BLUE,
    GREY,
    HEIGHT,
    NUMBER,
    PARTS,
    RED,
    VERDICTS,
    WIDTH,
    Chart,
    Figure,
    colors,
    loss_axis,
    loss_scale,
    stroke_legend,
    styled,
    tooltip,
)
from hptune.report.charts_confirm import gain_figure, shorter_figure
from hptune.report.run import Run, StageResult
from hptune.report.titles import title_of
from hptune.store.layout import write_atomic

__all__ = ["Chart", "Figure", "cost_figure", "draw", "make_figures", "stage_figures", "styled", "write_figures"]

SCALE = 2.0  # pixels of a PNG per pixel of the figure
PNG_COLORS = 256
CURVES = "_curves"
PANEL = {"width": 400, "height": 240}  # of a figure that shares a picture, in pixels
PANELS = 12  # in a picture, at most
RANGE_SPREAD = 30.0  # a range test is drawn on a linear scale unless losses lie further apart: its turn shows best there


def make_figures(run: Run) -> dict[str, list[Figure]]:
    """The charts of each stage by its name, and under `""` the one of the cost; none for what has no data."""
    cost = cost_figure(run)
    return {**{stage.name: stage_figures(stage) for stage in run.stages}, "": [cost] if cost else []}


def stage_figures(stage: StageResult) -> list[Figure]:
    """The charts of one stage; none for what has no data."""
    conclusion = stage.conclusion
    if conclusion is None:
        return []
    makers: list[Callable[[StageResult, Conclusion], Figure | None]] = [_range_test, gain_figure, _sweep, shorter_figure, _curves]
    return _in_pairs([figure for make in makers if (figure := make(stage, conclusion)) is not None])


def _in_pairs(figures: list[Figure]) -> list[Figure]:
    """Two figures share a row; one that is left over has it alone."""
    narrow = [i for i, figure in enumerate(figures) if not figure.wide]
    return [replace(figure, wide=True) if len(narrow) % 2 and i == narrow[-1] else figure for i, figure in enumerate(figures)]


def cost_figure(run: Run) -> Figure | None:
    """Cost by stage; None before the first trial."""
    data = frames.cost_frame(run)
    if data.empty:
        return None
    data["says"] = [f"{row.seconds:.3g} s" for row in data.itertuples()]
    data["stage"] = [title_of(name) for name in data["stage"]]
    room = alt.Scale(domain=[0, float(data["short_runs"].max()) * 1.2 or 1.0], nice=False)  # for the words behind the longest bar
    bars = alt.Chart(data).encode(
        y=alt.Y("stage:N", sort=None, title=None, axis=alt.Axis(labelLimit=200)),
        x=alt.X("short_runs:Q", scale=room, axis=alt.Axis(tickCount=6, format=NUMBER), title="short-run equivalents"),
        tooltip=tooltip("stage", "trials", "short_runs:.3g", "samples", "seconds:.3g"),
    )
    chart = bars.mark_bar(color=ACCENT) + bars.mark_text(align="left", dx=5, fontSize=12).encode(text=alt.Text("says:N"))
    return Figure(
        name="cost",
        title="Cost by stage",
        caption="One short-run equivalent is the compute of one short run at the baseline; at the bars: seconds, summed over workers.",
        chart=chart.properties(width=WIDTH, height=30 * len(data)),
        wide=True,
    )


def write_figures(run: Run, figures: Mapping[str, Sequence[Figure]]) -> None:
    """Write `figures/*.png`: one for each chart, but all loss curves together in `curves.png`, and `curves_2.png` where they are many."""
    everything = [figure for own in figures.values() for figure in own]
    curves = [figure for figure in everything if figure.name.endswith(CURVES)]
    pages = [curves[i : i + PANELS] for i in range(0, len(curves), PANELS)]
    specs = {figure.name: {**figure.spec, "title": figure.title} for figure in everything if not figure.name.endswith(CURVES)}
    specs |= {"curves" if number == 1 else f"curves_{number}": together(page) for number, page in enumerate(pages, start=1)}
    with ThreadPoolExecutor(max_workers=1) as beside:  # the next one is drawn meanwhile
        writing = [beside.submit(_write, run.layout.figure(name), draw(spec)) for name, spec in specs.items()]
        for written in writing:
            written.result()


def together(figures: Sequence[Figure]) -> dict[str, Any]:
    """The specification of one picture of several figures, two in a row."""
    shared = {"$schema", "config", "datasets"}
    return {
        **{name: figures[0].spec[name] for name in ("$schema", "config")},
        "datasets": {name: rows for figure in figures for name, rows in figure.spec.get("datasets", {}).items()},
        "columns": 2,
        "spacing": 30,
        "resolve": {"scale": {"color": "independent"}, "legend": {"color": "independent", "strokeDash": "independent"}},
        "concat": [
            {**{name: part for name, part in figure.spec.items() if name not in shared}, "title": figure.title, **PANEL}
            for figure in figures
        ],
    }


def draw(spec: Mapping[str, Any]) -> bytes:
    """Render a specification as PNG on white, without a browser or a network."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png({**spec, "background": "white"}, scale=SCALE)
    return png


def in_palette(png: bytes) -> bytes:
    """The same picture in a palette, which takes a tenth of the bytes."""
    from PIL import Image

    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(PNG_COLORS, dither=Image.Dither.NONE).save(small, "PNG")
    return small.getvalue()


def _write(path: Path, png: bytes) -> None:
    write_atomic(path, in_palette(png))


def _range_test(_: StageResult, conclusion: Conclusion) -> Figure | None:
    data = frames.range_frame(conclusion)
    if data.empty:
        return None
    validation = data[data["part"] == "validation"]
    limit = frames.range_limit((validation if not validation.empty else data)["loss"])
    scale = loss_scale(data["loss"], limit=limit, wide_spread=RANGE_SPREAD)
    base = alt.Chart(data).encode(
        x=alt.X("lr:Q", scale=_log_scale(), title="learning rate", axis=alt.Axis(format=NUMBER, tickCount=6, labelOverlap=True)),
        y=alt.Y("loss:Q", scale=scale, title="loss", axis=loss_axis()),
        color=alt.Color("part:N", scale=colors(PARTS), title=None),
        opacity=alt.condition("datum.part == 'validation'", alt.value(1.0), alt.value(0.6)),
        detail=alt.Detail("seed:N"),
    )
    points = base.mark_circle(size=30, clip=True).encode(tooltip=tooltip("lr:.3g", "loss:.4g", "part", "seed"))
    left_out = frames.missing_seeds(len(conclusion.detail.get("ranges", ())))
    return Figure(
        name="lr_range",
        title="LR range test",
        caption="Loss while the learning rate rises, one line a seed. The upright line is the maximum it suggests, the band its interval; "
        f"the dashed line is the learning rate that goes on.{left_out}",
        chart=alt.layer(*_suggestion(conclusion), base.mark_line(clip=True), points).properties(width=WIDTH, height=HEIGHT),
        wide=True,
    )


def _suggestion(conclusion: Conclusion) -> list[alt.Chart]:
    """The suggested LR as a line, its interval as a band where it has a width, the LR chosen in the end as a dashed line."""
    suggested, low, high = (conclusion.detail.get(key) for key in ("suggested", "low", "high"))
    marks = []
    if frames.is_number(low) and frames.is_number(high) and 0 < low < high:
        band = alt.Chart(pd.DataFrame([{"low": low, "high": high}])).mark_rect(opacity=0.15, color=ACCENT, clip=True)
        marks.append(band.encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"), tooltip=tooltip("low:.3g", "high:.3g")))
    if frames.is_number(suggested):
        marks += _upright(suggested, "suggested", ACCENT, dash=[1, 0], dy=-4)
    if conclusion.chosen is not None and conclusion.chosen.lr != suggested:
        marks += _upright(conclusion.chosen.lr, "chosen", GREY, dash=[6, 4], dy=-18)
    return marks


def _upright(lr: float, word: str, color: str, *, dash: list[int], dy: int) -> list[alt.Chart]:
    """A line at a learning rate with its number above the chart."""
    line = alt.Chart(pd.DataFrame([{"lr": lr, "says": f"{word} {format_number(lr)}"}])).encode(x=alt.X("lr:Q"), tooltip=tooltip("says"))
    said = line.mark_text(dy=dy, baseline="bottom", fontSize=12).encode(y=alt.value(0), text=alt.Text("says:N"))
    return [line.mark_rule(color=color, strokeWidth=2, strokeDash=dash), said]


def _sweep(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    """Candidates against loss."""
    data, seeds = frames.candidate_frame(conclusion), frames.seed_frame(stage, conclusion)
    if data.empty:
        return None
    axis = frames.axis(conclusion)
    height = 34 * len(data) if axis.kind == "named" else HEIGHT
    left_out = frames.missing_candidates(conclusion)
    checks = stage.name == "lr_range"
    forgets = " Below each weight decay: the epochs over which it forgets at the peak LR." if frames.has_timescale(conclusion) else ""
    return Figure(
        name="lr_range_checks" if checks else stage.name,
        title="Short runs around the suggestion" if checks else f"Validation loss by {'candidate' if axis.kind == 'named' else axis.title}",
        caption="Means over seeds with simultaneous 95 % intervals where there is one; grey dots are single seeds, the diamond goes on."
        + forgets
        + (f" Left out: {left_out}." if left_out else ""),
        chart=_sweep_chart(axis, data, seeds).properties(width=WIDTH, height=height),
        wide=axis.kind == "named",
    )


def _sweep_chart(axis: frames.Axis, data: pd.DataFrame, seeds: pd.DataFrame) -> alt.LayerChart | alt.FacetChart:
    """Interval, mean and every seed of each candidate; a mark where a loss lies beyond the chart."""
    across = "x" if axis.kind == "named" else "y"
    place, loss = _place(axis, data), _loss_channels(data, seeds, alt.X if axis.kind == "named" else alt.Y)
    base = alt.Chart(data).encode(**place, color=alt.Color("verdict:N", scale=colors(VERDICTS), title=None))
    high = alt.X2("high:Q") if across == "x" else alt.Y2("high:Q")
    intervals = base.mark_rule(strokeWidth=2).encode(**{across: loss["low"], f"{across}2": high})
    means = base.mark_point(filled=True, opacity=1).encode(
        **{across: loss["shown"]},
        shape=alt.Shape("chosen:N", scale=alt.Scale(domain=["", "goes on"], range=["circle", "diamond"]), legend=None),
        size=alt.condition("datum.chosen == 'goes on'", alt.value(240), alt.value(90)),
        tooltip=tooltip("settings", "val_loss:.4g", "interval", "verdict", "seeds", "chosen"),
    )
    dots = (
        alt.Chart(seeds)
        .mark_circle(size=28, color=GREY, opacity=0.75)
        .encode(**place, **{across: loss["shown"]}, tooltip=tooltip("label", "seed", "val_loss:.4g"))
    )
    beyond = base.mark_text(dy=-13, fontSize=11).encode(**{across: loss["shown"]}, text=alt.Text("beyond:N"))
    return alt.layer(intervals, dots, means, beyond)


def _place(axis: frames.Axis, data: pd.DataFrame) -> dict[str, Any]:
    """The channel that says which candidate."""
    if axis.kind == "named":
        above = alt.Axis(labelLimit=260, titleAngle=0, titleAlign="right", titleX=-10, titleY=-8)
        return {"y": alt.Y("label:N", sort=list(data["label"]), title=axis.title, axis=above)}
    if axis.kind == "log":
        ticks = alt.Axis(format=NUMBER, tickCount=6, labelOverlap=True)
        return {"x": alt.X("value:Q", scale=_log_scale(padding=20), title=axis.title, axis=ticks)}
    ordered = data.sort_values(["value", "label"], na_position="last")["label"]
    split = f"split(datum.label, '{frames.SECOND_LINE}')"
    two_lines = alt.Axis(labelAngle=0, labelExpr=split, labelLineHeight=15, labelOverlap="greedy", labelSeparation=6)  # a phone shows some
    return {"x": alt.X("label:O", sort=list(ordered), title=axis.title, axis=two_lines)}


def _log_scale(**more: Any) -> alt.Scale:
    return alt.Scale(type="log", nice=False, **more)


def _loss_channels(data: pd.DataFrame, seeds: pd.DataFrame, channel: Any) -> dict[str, Any]:
    """Channels `low` and `shown` on one loss scale that fits means, intervals and seeds."""
    scale = loss_scale(pd.concat([data["low"], data["high"], data["shown"], seeds["shown"]]))
    return {name: channel(f"{name}:Q", scale=scale, title="validation loss", axis=loss_axis()) for name in ("low", "shown")}


def _curves(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    data = frames.curve_frame(stage, conclusion)
    if data.empty:
        return None
    candidates = list(dict.fromkeys(data["candidate"]))
    several = len(candidates) > 1
    dashes = alt.Scale(domain=list(PARTS), range=[[1, 0], [5, 4]])
    grey = {"symbolStrokeColor": GREY} if several else {}
    by_candidate = alt.Color("candidate:N", scale=alt.Scale(domain=candidates, range=[ACCENT, BLUE, RED]), title=None)
    base = alt.Chart(data).encode(
        x=alt.X("epoch:Q", title="epochs", scale=alt.Scale(domainMin=0), axis=alt.Axis(tickCount=6)),
        y=alt.Y("loss:Q", scale=loss_scale(data["loss"]), title="loss", axis=loss_axis()),
        color=by_candidate if several else alt.Color("part:N", scale=colors(PARTS), title=None, legend=stroke_legend()),
        strokeDash=alt.StrokeDash("part:N", scale=dashes, title=None, legend=stroke_legend(**grey)),
        detail=[alt.Detail("seed:N"), alt.Detail("candidate:N")],
    )
    points = base.mark_circle(size=26).encode(tooltip=tooltip("candidate", "part", "seed", "epoch:.3g", "loss:.4g"))
    clues = {row.clue for row in conclusion.rows if row.chosen and row.clue}
    chosen = next((frames.label(row) for row in conclusion.rows if row.chosen), "baseline")
    seeds = max((len(row.trials) for row in frames.with_curves(conclusion)), default=0)
    return Figure(
        name=stage.name + CURVES,
        title="Loss curves: what goes on, and the baseline" if several else f"Loss curves: {title_of(stage.name).lower()}, {chosen}",
        caption="Training and validation loss, one line a seed."
        + (f" The clue: {', '.join(sorted(clues))}." if clues else "")
        + frames.missing_seeds(seeds),
        chart=alt.layer(base.mark_line(), points).properties(width=WIDTH, height=HEIGHT),
    )
