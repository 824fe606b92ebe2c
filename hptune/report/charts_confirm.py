"""The charts of the confirmation: the gain over the baseline, and how much shorter the training can be."""

from __future__ import annotations

import altair as alt
import pandas as pd

from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.report import frames_confirm
from hptune.report.chart_parts import ACCENT, BLUE, GREY, HEIGHT, RED, WIDTH, Figure, log_scale, loss_axis, loss_scale, tooltip
from hptune.report.run import StageResult


def gain_figure(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    """The loss of what is recommended over the baseline's, with every pair of seeds; None where there is no such ratio."""
    data, pairs = frames_confirm.gain_frame(conclusion), frames_confirm.pair_frame(stage, conclusion)
    if data.empty:
        return None
    values = pd.concat([data["ratio"], data["low"], data["high"], pairs["ratio"], pd.Series([1.0])])
    scale = log_scale(float(values.min()), float(values.max()), margin=0.08)
    ratio = alt.X("ratio:Q", scale=scale, title="loss, times the baseline's (left of 1: lower)", axis=loss_axis())
    where = alt.Y("part:N", sort=list(data["part"]), title=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(data).encode(y=where, tooltip=tooltip("part", "ratio:.3g", "interval"))
    equal = alt.Chart(pd.DataFrame([{"ratio": 1.0}])).mark_rule(color=RED, strokeDash=[6, 4], strokeWidth=2).encode(x=ratio)
    dots = alt.Chart(pairs).mark_circle(size=32, color=GREY, opacity=0.8)
    marks = [
        equal,
        base.mark_rule(color=ACCENT, strokeWidth=3).encode(x=alt.X("low:Q", scale=scale), x2=alt.X2("high:Q")),
        dots.encode(x=ratio, y=where, tooltip=tooltip("part", "seed", "ratio:.3g", "recommended:.4g", "baseline:.4g")),
        base.mark_point(filled=True, size=220, shape="diamond", color=ACCENT, opacity=1).encode(x=ratio),
    ]
    return Figure(
        name="confirm_gain",
        title="Gain over the baseline at full length",
        caption="The diamond is the mean ratio of losses, the bar its 95 % interval (on the validation part), each grey dot one pair of "
        "trainings on the same seed; the dashed line at 1 is the baseline.",
        chart=alt.layer(*marks).properties(width=WIDTH, height=48 * len(data)),
        wide=True,
    )


def shorter_figure(stage: StageResult, conclusion: Conclusion) -> Figure | None:
    """The loss of shorter trainings of what is recommended against the baseline's level; None where none was tried."""
    data, level = frames_confirm.shorter_frame(stage, conclusion), frames_confirm.baseline_loss(conclusion)
    if data.empty or level is None:
        return None
    means = data.groupby("share", as_index=False).agg(val_loss=("val_loss", "mean"), epochs=("epochs", "mean"), seeds=("seed", "count"))
    scale = loss_scale(pd.concat([data["val_loss"], pd.Series([level])]))
    shares = sorted(means["share"])
    share = alt.X(
        "share:Q",
        title="length of the training, of the full length",
        scale=alt.Scale(domain=[0, 1.08], nice=False),
        axis=alt.Axis(values=shares, format=".0%", grid=False),
    )
    loss = alt.Y("val_loss:Q", scale=scale, title="validation loss", axis=loss_axis())
    line = alt.Chart(means).encode(x=share, y=loss, tooltip=tooltip("share:.0%", "epochs:.3g", "val_loss:.4g", "seeds"))
    floor = alt.Chart(pd.DataFrame([{"val_loss": level, "share": 0.0, "says": f"baseline at full length: {format_number(level)}"}]))
    marks = [
        floor.mark_rule(color=BLUE, strokeDash=[6, 4], strokeWidth=2).encode(y=loss),
        floor.mark_text(align="left", baseline="bottom", dx=6, dy=-4, fontSize=12).encode(x=share, y=loss, text=alt.Text("says:N")),
        alt.Chart(data).mark_circle(size=32, color=GREY, opacity=0.8).encode(x=share, y=loss, tooltip=tooltip("seed", "val_loss:.4g")),
        line.mark_line(color=ACCENT, strokeWidth=2),
        line.mark_point(filled=True, size=140, color=ACCENT, opacity=1),
    ]
    return Figure(
        name="confirm_shorter",
        title="How much shorter the training can be",
        caption="Validation loss of the recommended settings trained for less than the full length: means and every seed. What lies below "
        "the dashed line reaches the baseline's full-length level in less time.",
        chart=alt.layer(*marks).properties(width=WIDTH, height=HEIGHT),
    )
