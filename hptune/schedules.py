"""Learning-rate and momentum schedules: step -> value, tabulated before training.

Everything here is pure arithmetic on step numbers. A table holds one value for each optimizer step `t = 0 … steps - 1`;
outside that range there is no value. The names are the field's:

* `one_cycle`, shape `linear`: Smith's 1cycle as its author ran it (arXiv 1803.09820, section 5, and his solver files): base LR up
  to the maximum, down to about zero, then a constant tail at base / `tail_ratio`.
* `one_cycle`, shape `torch`: `torch.optim.lr_scheduler.OneCycleLR` with its two cosine phases (fastai's form).
* `one_cycle`, shape `three_phase`: the same class with `three_phase=True`: up, down to the initial LR, then annealed.
* `constant`, `step`: what 1cycle is compared against.
* `ramp`: the LR range test (arXiv 1506.01186, section 3.3), exponential or linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Kind = Literal["one_cycle", "constant", "step", "ramp"]
Shape = Literal["linear", "torch", "three_phase", "exponential"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The form of a schedule; LR and momentum levels come from the hyper-parameters.

    `warmup_fraction`, `tail_fraction` and `milestones` are fractions of the run; `lr_ratio` = max LR / base LR; `tail_ratio` =
    base LR / final LR. For shapes `torch` and `three_phase` they are OneCycleLR's `pct_start`, `div_factor` and
    `final_div_factor` (`tail_fraction` is then unused). `min_lr` is where a `ramp` starts (it ends at the trial's LR).
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


@dataclass(frozen=True, slots=True)
class Table:
    """LR and momentum for each step; both arrays have shape (steps,)."""

    lr: Values
    momentum: Values


def tabulate(schedule: Schedule, *, steps: int, lr: float, momentum: float, momentum_min: float) -> Table:
    """Return the table of `schedule` over `steps` optimizer steps.

    `lr` is the maximum (ramp: final) learning rate. Momentum runs from `momentum` down to `momentum_min` and back, opposite to
    the LR, under `one_cycle`, and is held at its maximum in the tail; otherwise it is `momentum` throughout.
    """
    if steps < 1:
        raise ValueError(f"a schedule needs at least one step, got {steps}")
    constant = np.full(steps, momentum)
    if schedule.kind == "constant":
        return Table(np.full(steps, lr), constant)
    if schedule.kind == "step":
        return Table(step_decay(steps, lr=lr, milestones=schedule.milestones, gamma=schedule.gamma), constant)
    if schedule.kind == "ramp":
        return Table(ramp(steps, min_lr=schedule.min_lr, max_lr=lr, exponential=schedule.shape == "exponential"), constant)
    if schedule.shape == "linear":
        return _linear_one_cycle(schedule, steps, lr, momentum, momentum_min)
    return _torch_one_cycle(schedule, steps, lr, momentum, momentum_min)


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


def _linear_one_cycle(schedule: Schedule, steps: int, lr: float, momentum: float, momentum_min: float) -> Table:
    """Three linear pieces: base -> max -> 0, then base / tail_ratio; momentum mirrored, at its maximum in the tail."""
    base = lr / schedule.lr_ratio
    last = base / schedule.tail_ratio
    tail = min(round(schedule.tail_fraction * steps), steps - 1)
    peak = min(round(schedule.warmup_fraction * steps), steps - tail)
    knots = [0, peak, steps - tail]
    at = np.arange(steps)
    rates = np.maximum(np.interp(at, knots, [base if peak else lr, lr, 0.0]), last)
    return Table(rates, np.interp(at, knots, [momentum if peak else momentum_min, momentum_min, momentum]))


def _torch_one_cycle(schedule: Schedule, steps: int, lr: float, momentum: float, momentum_min: float) -> Table:
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
    return Table(rates, momenta)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * share))
