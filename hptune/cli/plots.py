"""Plots for a terminal, drawn by plotext: the LR range test, and the candidates of each stage side by side.

Lines may hold SGR colour codes, few and readable on dark and light backgrounds; what is drawn is told apart without them as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hptune.cli import words
from hptune.errors import abridged, printable
from hptune.trial import is_result

if TYPE_CHECKING:
    from hptune.analysis.ranking import Row
    from hptune.analysis.recommendation import Conclusion
    from hptune.trial import TrialRecord

NARROWEST, WIDEST = 50, 110  # columns: below, nothing is drawn; beyond, nothing is gained
CURVE_ROWS = 11
LONGEST_LABEL = 32
FEWEST_COLUMNS = 24  # for losses beside the candidates' labels
LOSS_TICKS = 5
SMALLEST = 1e-290  # differences below are none: beside them floats lose their digits
CHOSEN, SECOND = "green", "cyan"
Point = tuple[float, float]


def stage_plots(conclusion: Conclusion, records: Mapping[str, TrialRecord], width: int) -> list[str]:
    """All plots of a stage as lines of at most `width` columns; nothing where there is too little to see, or too little room.

    `records`: trials by id; of those missing the seeds are not drawn.
    """
    if width < NARROWEST:
        return []
    plots: tuple[Callable[[], list[str]], ...] = (
        lambda: range_plot(conclusion, min(width, WIDEST)),
        lambda: candidates_plot(conclusion, records, min(width, WIDEST)),
    )
    return [line for plot in plots for line in _or_nothing(plot)]


def range_plot(conclusion: Conclusion, width: int) -> list[str]:
    """Validation and training loss of every ramp over log LR, the suggestion and its interval marked, a diverging end cut off."""
    from hptune.report.frames import range_limit

    ranges = conclusion.detail.get("ranges", ())
    curves = {part: [_finite(series["lr"], series[part]) for series in ranges] for part in ("val_loss", "train_loss")}
    limit = range_limit(loss for curve in curves["val_loss"] for _, loss in curve)
    points = [(lr, min(loss, limit)) for series in curves.values() for curve in series for lr, loss in curve]
    if len({lr for lr, _ in points}) < 2:
        return []
    x, y = _Scale([math.log10(lr) for lr, _ in points]), _Scale([loss for _, loss in points], below=0.12)
    canvas = _Canvas(width, CURVE_ROWS)
    for part, marker, colour in (("train_loss", "·", SECOND), ("val_loss", "braille", None)):
        for curve in curves[part]:
            canvas.line([(x(math.log10(lr)), y(min(loss, limit))) for lr, loss in curve], marker, colour)
    suggested, low, high = (conclusion.detail.get(name) for name in ("suggested", "low", "high"))
    chosen = conclusion.chosen.lr if conclusion.chosen else None
    if suggested is not None:
        canvas.line([(x(math.log10(suggested)), 0.0), (x(math.log10(suggested)), 1.0)], "│", CHOSEN)
    if low is not None and high is not None:
        canvas.line([(x(math.log10(low)), 0.0), (x(math.log10(high)), 0.0)], "━", CHOSEN)
    if chosen is not None:
        canvas.line([(x(math.log10(chosen)), 0.0)], "◆", CHOSEN)
    canvas.axes([(x(math.log10(lr)), words.number(lr)) for lr in _decades(points)], [(y(v), words.number(v)) for v in y.ticks(4)])
    interval = f" [{words.number(low)}, {words.number(high)}]" if low is not None and high is not None else ""
    legend = ["⠒ validation", "· training", f"│ suggested {words.number(suggested)}{interval}" if suggested is not None else ""]
    legend.append(f"◆ {words.number(chosen)} goes on" if chosen is not None else "")
    return [f"loss over LR, {words.count(len(ranges), 'ramp')}", *canvas.lines(), words.fitting(legend, width)]


def candidates_plot(conclusion: Conclusion, records: Mapping[str, TrialRecord], width: int) -> list[str]:
    """One line a candidate: mean loss, interval, every seed; numbers in their order, others best first; far-off losses at the edge."""
    from hptune.report.frames import SHOWN, axis, upper_limit

    shown = [row for rank, row in enumerate(conclusion.rows) if rank < SHOWN or row.chosen]
    usable = [row for row in shown if is_result(row.val_loss)]
    labels = {row.trials: _label(row) for row in shown}
    room = width - max(map(len, labels.values()), default=0) - 3
    if len(usable) < 2 or room < FEWEST_COLUMNS:
        return []
    place = axis(conclusion)
    if place.kind != "named":
        shown.sort(key=_by_value)
    limit = upper_limit(row.val_loss for row in usable)
    near = [row for row in usable if row.val_loss <= limit]
    seeds = {row.trials: _seeds(row, records) for row in near}
    reach = [loss for row in near for loss in (row.val_loss, row.val_loss_low, row.val_loss_high, *seeds[row.trials]) if is_result(loss)]
    x = _Scale([min(loss, limit) for loss in reach])
    canvas = _Canvas(width, len(shown))
    heights = [(1 - i / (len(shown) - 1), labels[row.trials]) for i, row in enumerate(shown)]
    for row, (height, _) in zip(shown, heights, strict=True):
        _draw(canvas, row, seeds.get(row.trials), x, height)
    canvas.axes([(x(tick), words.number(tick)) for tick in x.ticks(LOSS_TICKS)], heights)
    has_interval = any(is_result(row.val_loss_low) for row in usable)
    legend = ["● mean", "○ one seed", "─ 95 %" if has_interval else "", "→ goes on" if any(row.chosen for row in shown) else ""]
    more = f", the best {SHOWN} of {len(conclusion.rows)}" if len(shown) < len(conclusion.rows) else ""
    return [abridged(f"val loss by {printable(place.title)}{more}", width), *canvas.lines(), words.fitting(legend, width)]


class _Scale:
    """Values of any size to places from 0 to 1, with room at both ends; `below`: that much more at the lower one."""

    def __init__(self, values: Sequence[float], *, below: float = 0.0) -> None:
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        span = high - low if high - low > max(1e-9 * size, SMALLEST) else 0.1 * size if size > SMALLEST else 1.0
        self.low, self.high = low - (0.03 + below) * span, high + 0.03 * span

    def __call__(self, value: float) -> float:
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self, most: int) -> list[float]:
        """Round values, `most` at most, none of them outside."""
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next((unit * times for times in (1, 2, 5) if unit * times >= rough), 10 * unit)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, first + most + 1) if i * step <= self.high]


class _Canvas:
    """A figure of plotext, of which there is one a process, over places from 0 to 1 both ways."""

    def __init__(self, width: int, rows: int) -> None:
        import plotext

        self._figure = plotext
        plotext.clear_figure()
        plotext.theme("clear")
        plotext.limit_size(False, False)
        plotext.plotsize(width, rows + 3)  # two lines of the frame, one of numbers
        plotext.xlim(0, 1)
        plotext.ylim(0, 1)

    def line(self, points: Sequence[Point], marker: str, colour: str | None = None) -> None:
        """Draw `points` joined by a line of `marker`."""
        if points:
            self._figure.plot([x for x, _ in points], [y for _, y in points], marker=marker, color=colour)

    def points(self, points: Sequence[Point], marker: str, colour: str | None = None) -> None:
        """Draw `points` apart."""
        self._figure.scatter([x for x, _ in points], [y for _, y in points], marker=marker, color=colour)

    def text(self, text: str, x: float, y: float, alignment: str) -> None:
        """Write `text` beside a place."""
        self._figure.text(text, x, y, alignment=alignment)

    def axes(self, across: Sequence[tuple[float, str]], upward: Sequence[tuple[float, str]]) -> None:
        """Name places of both axes."""
        self._figure.xticks([place for place, _ in across], [name for _, name in across])
        self._figure.yticks([place for place, _ in upward], [name for _, name in upward])

    def lines(self) -> list[str]:
        """The figure, a string a line."""
        return [line.rstrip() for line in self._figure.build().splitlines()]


def _draw(canvas: _Canvas, row: Row, seeds: Sequence[float] | None, x: _Scale, height: float) -> None:
    """One candidate: its interval, its seeds, its mean above them; what became of it where it is far off (no `seeds`) or has no loss."""
    if not is_result(row.val_loss):
        canvas.text(row.verdict.replace("_", " "), 0.5, height, "center")
        return
    if seeds is None:
        canvas.text(f"{words.number(row.val_loss)} ▶", 1.0, height, "right")
        return
    colour = CHOSEN if row.chosen else None
    if is_result(row.val_loss_low) and is_result(row.val_loss_high):
        canvas.line([(x(row.val_loss_low), height), (x(row.val_loss_high), height)], "─", colour)
    canvas.points([(x(loss), height) for loss in seeds], "○", colour)
    canvas.points([(x(row.val_loss), height)], "●", colour)


def _seeds(row: Row, records: Mapping[str, TrialRecord]) -> list[float]:
    return [records[trial].val_loss for trial in row.trials if trial in records and is_result(records[trial].val_loss)]


def _label(row: Row) -> str:
    from hptune.report.frames import label

    return f"{'→' if row.chosen else ' '} {abridged(printable(label(row)), LONGEST_LABEL)}"


def _by_value(row: Row) -> tuple[bool, float]:
    value = row.values[0][1]
    return (False, float(value)) if isinstance(value, int | float) else (True, 0.0)


def _finite(rates: Sequence[float], losses: Sequence[float]) -> list[Point]:
    return [(lr, loss) for lr, loss in zip(rates, losses, strict=False) if is_result(loss) and is_result(lr) and lr > 0]


def _decades(points: Sequence[Point]) -> list[float]:
    """Powers of ten among the LRs; the ends where there are fewer than two."""
    low, high = min(lr for lr, _ in points), max(lr for lr, _ in points)
    powers = [10.0**i for i in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return powers if len(powers) > 1 else [low, high]


def _or_nothing(plot: Callable[[], list[str]]) -> list[str]:
    """A plot is an extra: whatever is wrong with it, hours of training go on without it."""
    try:
        return plot()
    except Exception:
        return []
