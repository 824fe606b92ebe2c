"""Schedules of learning rate, momentum and weight decay: step -> value, tabulated before training.

Everything here is pure arithmetic on step numbers. A table holds one value for each optimizer step `t = 0 … steps - 1`;
outside that range there is no value. The names are the field's:

* `one_cycle`, shape `linear`: Smith's 1cycle as its author ran it (arXiv 1803.09820, section 5, and his solver files): base LR up
  to the maximum, down to about zero, then a constant tail at base / `tail_ratio`.
* `one_cycle`, shape `torch`: `torch.optim.lr_scheduler.OneCycleLR` with its two cosine phases (fastai's form).
* `one_cycle`, shape `three_phase`: the same class with `three_phase=True`: up, down to the initial LR, then annealed.
* `constant`, `step`: what 1cycle is compared against.
* `ramp`: the LR range test (arXiv 1506.01186, section 3.3), exponential or linear.
* `points`: any other course, as straight lines between points; no config asks for it, experiments about schedules do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Kind = Literal["one_cycle", "constant", "step", "ramp", "points"]
Shape = Literal["linear", "torch", "three_phase", "exponential"]

ADDED_LATER = {"added_later": True}
"""Metadata of a field that a later version added to what identifies a trial. While it has its default it is left out there, so that
what earlier versions journalled keeps its id: the default must mean what was done before there was the field."""


class Point(NamedTuple):
    """A place of a schedule of `points`.

    `at`: fraction of the run. `lr`, `weight_decay`: of the trial's own. `momentum`: 1 is the trial's own, 0 its minimum.
    """

    at: float
    lr: float = 1.0
    momentum: float = 1.0
    weight_decay: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The form of a schedule; LR and momentum levels come from the hyper-parameters.

    `warmup_fraction`, `tail_fraction` and `milestones` are fractions of the run; `lr_ratio` = max LR / base LR; `tail_ratio` =
    base LR / final LR. For shapes `torch` and `three_phase` they are OneCycleLR's `pct_start`, `div_factor` and
    `final_div_factor` (`tail_fraction` is then unused). `min_lr` is where a `ramp` starts (it ends at the trial's LR). Two `points`
    at one place are a jump: what comes before it goes to the first one, the step there and what follows go on from the second.
    """

    kind: Kind = "one_cycle"
    shape: Shape = "linear"
    warmup_fraction: float = 0.45
    lr_ratio: float = 10.0
    tail_fraction: float = 0.1
    tail_ratio: float = 1000.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    min_lr: float = 1e-4
    points: tuple[Point, ...] = field(default=(), metadata=ADDED_LATER)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from JSON values, in which tuples are lists; without milestones where there are none."""
        milestones, points = (tuple(data.get(name, ())) for name in ("milestones", "points"))
        return cls(**{**data, "milestones": milestones, "points": tuple(Point(*point) for point in points)})


@dataclass(frozen=True, slots=True)
class Table:
    """LR, momentum and the part of the weight decay that is in force, for each step; all arrays have shape (steps,)."""

    lr: Values
    momentum: Values
    weight_decay: Values


def tabulate(schedule: Schedule, *, steps: int, lr: float, momentum: float, momentum_min: float) -> Table:
    """Return the table of `schedule` over `steps` optimizer steps.

    `lr` is the maximum (ramp: final) learning rate. Momentum runs from `momentum` down to `momentum_min` and back, opposite to
    the LR, under `one_cycle`, and is held at its maximum in the tail; otherwise, `points` aside, it is `momentum` throughout. So is
    weight decay.
    """
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {steps}")
    if schedule.kind == "points":
        return _between_points(schedule.points, steps, lr, momentum, momentum_min)
    if schedule.kind == "one_cycle":
        cycle = _linear_one_cycle if schedule.shape == "linear" else _torch_one_cycle
        return Table(*cycle(schedule, steps, lr, momentum, momentum_min), np.ones(steps))
    if schedule.kind == "step":
        rates = step_decay(steps, lr=lr, milestones=schedule.milestones, gamma=schedule.gamma)
    elif schedule.kind == "ramp":
        rates = ramp(steps, min_lr=schedule.min_lr, max_lr=lr, exponential=schedule.shape == "exponential")
    else:
        rates = np.full(steps, lr)
    return Table(rates, np.full(steps, momentum), np.ones(steps))


def ramp(steps: int, *, min_lr: float, max_lr: float, exponential: bool) -> Values:
    """LR range test: from `min_lr` at the first step to `max_lr` at the last, by equal ratios or equal differences."""
    if steps == 1:
        return np.array([max_lr])
    if exponential:
        return np.asarray(np.geomspace(min_lr, max_lr, steps), dtype=np.float64)
    return np.linspace(min_lr, max_lr, steps)


def step_decay(steps: int, *, lr: float, milestones: tuple[float, ...], gamma: float) -> Values:
    """`lr`, multiplied by `gamma` at each milestone (a fraction of the run)."""
    at = np.arange(steps)
    drops = sum((at >= round(m * steps)).astype(np.int64) for m in milestones) if milestones else np.zeros(steps, np.int64)
    return lr * np.power(gamma, drops)


def _between_points(points: tuple[Point, ...], steps: int, lr: float, momentum: float, momentum_min: float) -> Table:
    """Straight lines between the points, from step 0 to the last one, level before the first point and after the last."""
    at = np.arange(steps) / max(1, steps - 1)
    places, rates, momenta, decays = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    following = np.searchsorted(places, at, side="right")
    before, after = np.maximum(following - 1, 0), np.minimum(following, len(points) - 1)
    width = places[after] - places[before]
    share = np.clip(np.divide(at - places[before], width, out=np.zeros(steps), where=width > 0), 0.0, 1.0)

    def course(values: Values) -> Values:
        return np.asarray(values[before] + (values[after] - values[before]) * share, dtype=np.float64)

    return Table(lr * course(rates), momentum_min + (momentum - momentum_min) * course(momenta), course(decays))


def _linear_one_cycle(schedule: Schedule, steps: int, lr: float, momentum: float, momentum_min: float) -> tuple[Values, Values]:
    """Three linear pieces: base -> max -> 0, then base / tail_ratio; momentum mirrored, at its maximum in the tail."""
    base = lr / schedule.lr_ratio
    last = base / schedule.tail_ratio
    tail = min(round(schedule.tail_fraction * steps), steps - 1)
    peak = min(round(schedule.warmup_fraction * steps), steps - tail)
    knots = [0, peak, steps - tail]
    at = np.arange(steps)
    rates = np.maximum(np.interp(at, knots, [base if peak else lr, lr, 0.0]), last)
    return rates, np.interp(at, knots, [momentum if peak else momentum_min, momentum_min, momentum])


def _torch_one_cycle(schedule: Schedule, steps: int, lr: float, momentum: float, momentum_min: float) -> tuple[Values, Values]:
    """The phases of OneCycleLR with cosine annealing, its fractional phase ends included."""
    initial = lr / schedule.lr_ratio
    final = initial / schedule.tail_ratio
    up = schedule.warmup_fraction * steps - 1
    if schedule.shape == "three_phase":
        phases = [(up, initial, lr, momentum, momentum_min)]
        phases += [(2 * schedule.warmup_fraction * steps - 2, lr, initial, momentum_min, momentum)]
        phases += [(steps - 1, initial, final, momentum, momentum)]
    else:
        phases = [(up, initial, lr, momentum, momentum_min), (steps - 1, lr, final, momentum_min, momentum)]
    rates, momenta = np.empty(steps), np.empty(steps)
    for t in range(steps):
        number = next((n for n, phase in enumerate(phases[:-1]) if t <= phase[0]), len(phases) - 1)
        start = phases[number - 1][0] if number else 0.0
        end, lr0, lr1, m0, m1 = phases[number]
        share = (t - start) / (end - start) if end > start else 1.0
        rates[t], momenta[t] = _cosine(lr0, lr1, share), _cosine(m0, m1, share)
    return rates, momenta


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
