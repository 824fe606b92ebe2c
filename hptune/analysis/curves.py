"""Reading LR range tests (arXiv 1506.01186, section 3.3; 1803.09820, section 4.1): where the loss falls, is lowest, turns up.

Everything happens on the logarithm of the LR: smoothing, the lowest point, means over seeds. The suggestion comes from where the
losses are lowest, never from the steepest slope, which measures as the worst rule. Validation and training loss err in different
ways (running statistics of batch norms lag behind a fast ramp, noisy targets flatter a small LR), so that their mean errs least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hptune.analysis.quantiles import student
from hptune.analysis.wording import format_number
from hptune.trial import CurveSummary, is_result

Array = NDArray[np.float64]
Kind = Literal["turned_up", "still_falling", "flat", "diverged_at_once", "too_short"]

MINIMUM_OVER_BEST = 1.2  # a ramp's losses are lowest at so many times the LR that is best in a 1cycle run as long (measured)
SMOOTHING = 0.1  # decades of LR, standard deviation of the kernel
FLAT = 0.02  # a loss that falls by less than this share has not moved
RISEN = 0.05  # and one that ends this share above it has risen
SHARE = 0.1  # of the whole fall: where falling starts, and where turning up does
CLIFF = 0.1  # of the first loss: a fall so deep that what lies beyond its far side is another regime
AT_ONCE = 0.5  # decades: a rise this early leaves nothing to read
AT_THE_END = 0.3  # decades: a lowest point this near the last one is still on the way down
SPREAD_LIMITS = (0.1, 0.5)  # decades, half an interval over seeds: the ramp resolves no less; more says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReading:
    """What one ramp shows; LRs are None where there is no such place.

    `falls_at`: the loss has made a tenth of its way down. `lowest_at`: smoothed minimum. `turns_up_at`: it has risen again by as
    much, or is not finite. `ends_at`: the last LR with a finite loss. `first_loss`, `lowest_loss`: smoothed. All of them of the
    validation loss; `lowest_in_training`: minimum of the training loss, where that was read.
    """

    kind: Kind
    falls_at: float | None = None
    lowest_at: float | None = None
    turns_up_at: float | None = None
    ends_at: float | None = None
    lowest_in_training: float | None = None
    first_loss: float = math.nan
    lowest_loss: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSummary:
    """What the ramps of all seeds show together: `sentence` says it; `lr_max` is the suggestion with its interval over seeds."""

    kind: Kind
    sentence: str
    lr_max: float | None = None
    low: float | None = None
    high: float | None = None


def smooth_per_decade(lr: Sequence[float], loss: Sequence[float], *, decades: float = SMOOTHING) -> Array:
    """Smooth a finite `loss` over `lr`, both of shape (points,), by local lines under a Gaussian of `decades` of LR.

    An average per step would lag by decades where the ramp is fast (0.98 over 100 steps and 8 decades: by 4); this one does not
    lag at all, and lines instead of averages leave no bias at the two ends.
    """
    at, y = np.log10(np.asarray(lr, dtype=np.float64)), np.asarray(loss, dtype=np.float64)
    distance = at[None, :] - at[:, None]
    weight = np.exp(-0.5 * (distance / decades) ** 2)
    s0, s1, s2 = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    determinant = s0 * s2 - s1**2
    lines = determinant > 1e-12 * s0 * s2
    sums, moments = weight @ y, (weight * distance) @ y
    return np.asarray(np.where(lines, (s2 * sums - s1 * moments) / np.where(lines, determinant, 1.0), sums / s0), dtype=np.float64)


def read_ramp(curve: CurveSummary) -> RangeReading:
    """Read both losses of one ramp."""
    return replace(read_range(curve.lr, curve.val_loss), lowest_in_training=read_range(curve.lr, curve.train_loss).lowest_at)


def read_range(lr: Sequence[float], loss: Sequence[float]) -> RangeReading:
    """Read one loss of a ramp: `loss` at rising `lr`, both of shape (points,); from the first one that is not finite on, nothing counts."""
    finite = next((i for i, value in enumerate(loss) if not is_result(value)), len(loss))
    broken = finite < len(loss)
    if finite < 3:
        return RangeReading(kind="diverged_at_once" if broken else "too_short", ends_at=lr[finite - 1] if finite else None)
    rates, y = np.asarray(lr[:finite], dtype=np.float64), np.asarray(loss[:finite], dtype=np.float64)
    curve = _smoothed(rates, y)
    lowest = int(np.argmin(curve))
    fall, size = float(curve[0] - curve[lowest]), float(max(abs(curve[0]), abs(curve[lowest])))
    reading = RangeReading(kind="flat", ends_at=float(rates[-1]), first_loss=float(curve[0]), lowest_loss=float(curve[lowest]))
    moved = fall > FLAT * size
    limit = curve[lowest] + SHARE * fall if moved else curve[0] + RISEN * size
    above = np.flatnonzero(curve[lowest:] > limit)
    turns_up_at = float(rates[lowest + above[0]]) if above.size else float(lr[finite]) if broken else None
    reading = replace(reading, turns_up_at=turns_up_at)
    if not moved:
        early = turns_up_at is not None and math.log10(turns_up_at / rates[0]) <= AT_ONCE
        return replace(reading, kind="diverged_at_once") if early else reading
    return replace(
        reading,
        kind="still_falling" if turns_up_at is None else "turned_up",
        falls_at=float(rates[np.flatnonzero(curve < curve[0] - SHARE * fall)[0]]),
        lowest_at=_vertex(np.log10(rates), curve, lowest),
    )


def summarize_ranges(readings: Sequence[RangeReading], *, min_lr: float, max_lr: float) -> RangeSummary:
    """Put the ramps of several seeds together; all went from `min_lr` to `max_lr` unless they diverged before.

    The suggestion is the LR of the lowest loss (geometric mean of validation and training loss, and over the ramps that show one)
    over `MINIMUM_OVER_BEST`; its interval is Student's over seeds, kept within `SPREAD_LIMITS`, or as wide as the ramps lie apart.
    """
    ended = [_cut_short(reading, max_lr) for reading in readings]
    useful = [reading for reading in ended if reading.lowest_at is not None]
    if not useful:
        return _nothing_to_suggest(ended, min_lr, max_lr)
    falling = [reading for reading in useful if reading.kind == "still_falling"]
    kind: Kind = "still_falling" if 2 * len(falling) > len(useful) else "turned_up"
    places = [math.log10(_lowest(reading, max_lr)) for reading in useful]
    middle = sum(places) / len(places)
    low, high = _interval(places)
    lr_max = 10**middle / MINIMUM_OVER_BEST
    text = f"suggested maximum LR {format_number(lr_max)}"
    if low is not None and high is not None:
        text += f" [{format_number(low)}, {format_number(high)}]"
    if kind == "turned_up":
        seen, by = _turn(useful), len(useful) - len(falling)
    else:
        still, by = any(_at_the_end(reading, max_lr) for reading in falling), len(falling)
        seen = f"the loss {'was still falling' if still else 'had not turned up'} at the largest LR tried ({format_number(max_lr)})"
    text += f" (lowest / {MINIMUM_OVER_BEST}): {seen} on {by} of {len(readings)} seed{'s' * (len(readings) > 1)}"
    text += ": raise stages.lr_range.max_lr" if kind == "still_falling" else ""
    return RangeSummary(kind=kind, sentence=text, lr_max=lr_max, low=low, high=high)


def _turn(useful: Sequence[RangeReading]) -> str:
    """Where the loss fell, was lowest and turned up."""
    start, lowest, end = (_middle([getattr(r, name) for r in useful]) for name in ("falls_at", "lowest_at", "turns_up_at"))
    in_training = [reading.lowest_in_training for reading in useful if reading.lowest_in_training is not None]
    also = f" (training loss at {format_number(_middle(in_training))})" if in_training else ""
    return f"the loss fell from {format_number(start)}, was lowest at {format_number(lowest)}{also}, turned up by {format_number(end)}"


def _smoothed(rates: Array, y: Array) -> Array:
    """Smooth a ramp so that what lies beyond a cliff is not carried back over the lowest point.

    Beyond its lowest point, a loss that fell and is back above half its height is left as it is; all is cut off well above the first.
    """
    fall, lowest = y[0] - y.min(), int(np.argmin(y))
    clipped = np.minimum(y, y[0] + max(fall, abs(y[0]) / 2))
    back = np.flatnonzero(y[lowest:] > y[lowest] + fall / 2) if fall > CLIFF * abs(y[0]) else np.empty(0, dtype=np.int64)
    cut = lowest + int(back[0]) if back.size else len(y)
    return np.concatenate([smooth_per_decade(rates[:cut].tolist(), clipped[:cut].tolist()), clipped[cut:]])


def _vertex(at: Array, curve: Array, lowest: int) -> float:
    """The LR of the minimum, by a parabola through the lowest point and its neighbours: never more than halfway to one."""
    if lowest in (0, len(curve) - 1):
        return float(10 ** at[lowest])
    left, right = at[lowest - 1] - at[lowest], at[lowest + 1] - at[lowest]
    rise_left, rise_right = curve[lowest - 1] - curve[lowest], curve[lowest + 1] - curve[lowest]
    slope = rise_left * right**2 - rise_right * left**2
    bend = 2 * (rise_left * right - rise_right * left)
    return float(10 ** (at[lowest] + (slope / bend if bend > 0 else 0.0)))  # losses near the smallest float leave no bend


def _cut_short(reading: RangeReading, max_lr: float) -> RangeReading:
    """A ramp that ended below `max_lr` while falling diverged between two evaluations: it turned up."""
    if reading.kind != "still_falling" or reading.ends_at is None or reading.ends_at > 0.9 * max_lr:
        return reading
    return replace(reading, kind="turned_up", turns_up_at=reading.ends_at)


def _lowest(reading: RangeReading, max_lr: float) -> float:
    """Where both losses are lowest, their geometric mean; the end of the range while the validation loss is still falling there."""
    if reading.lowest_at is None or _at_the_end(reading, max_lr):
        return max_lr
    return math.sqrt(reading.lowest_at * (reading.lowest_in_training or reading.lowest_at))


def _at_the_end(reading: RangeReading, max_lr: float) -> bool:
    return reading.kind == "still_falling" and reading.lowest_at is not None and math.log10(max_lr / reading.lowest_at) <= AT_THE_END


def _interval(places: Sequence[float]) -> tuple[float | None, float | None]:
    """Interval of the suggestion from log10 LRs of the lowest loss, one a seed; None for a single one."""
    n = len(places)
    if n < 2:
        return None, None
    middle = sum(places) / n
    error = math.sqrt(sum((place - middle) ** 2 for place in places) / (n - 1) / n)
    least, most = SPREAD_LIMITS
    apart = (max(places) - min(places)) / 2
    half = min(max(student(0.975, n - 1) * error, least), max(most, apart))
    return 10 ** (middle - half) / MINIMUM_OVER_BEST, 10 ** (middle + half) / MINIMUM_OVER_BEST


def _nothing_to_suggest(readings: Sequence[RangeReading], min_lr: float, max_lr: float) -> RangeSummary:
    counts = {kind: sum(reading.kind == kind for reading in readings) for kind in ("diverged_at_once", "flat", "too_short")}
    if not readings or counts["too_short"] == max(counts.values()):
        return RangeSummary(kind="too_short", sentence="the LR range test is too short to read: fewer than three points")
    if counts["flat"] > counts["diverged_at_once"]:
        last = _middle([reading.turns_up_at or reading.ends_at or max_lr for reading in readings if reading.kind == "flat"])
        rose = any(reading.turns_up_at for reading in readings)
        then = "then rose: look at the scale of the inputs" if rose else "raise stages.lr_range.max_lr or look at the data"
        sentence = f"the loss did not move between LR {format_number(min_lr)} and {format_number(last)}{', ' if rose else ': '}{then}"
        return RangeSummary(kind="flat", sentence=sentence)
    if all(reading.ends_at is None for reading in readings):
        sentence = f"the loss was not finite at the first evaluation, from LR {format_number(min_lr)} on: look at the loss and the data"
        return RangeSummary(kind="diverged_at_once", sentence=sentence)
    sentence = f"the loss rose from the first step, at LR {format_number(min_lr)}: lower stages.lr_range.min_lr"
    return RangeSummary(kind="diverged_at_once", sentence=sentence)


def _middle(values: Sequence[float | None]) -> float:
    """Geometric mean of those that are there."""
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs))
