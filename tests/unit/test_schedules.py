"""Schedules: literal tables, the paper's own run, and torch's OneCycleLR."""

import numpy as np
import pytest
import torch

from hptune.schedules import Point, Schedule, ramp, step_decay, tabulate

PEAK = {"lr": 1.0, "momentum": 0.95, "momentum_min": 0.85}


def table(schedule, steps, **changes):
    return tabulate(schedule, steps=steps, **{**PEAK, **changes})


def test_linear_one_cycle_literally():
    """Ten steps, 40 % up, 20 % tail: 0.1 up to 1 at step 4, down towards 0 at step 8, then 0.1 / 1000."""
    result = table(Schedule(warmup_fraction=0.4, tail_fraction=0.2), 10)
    assert result.lr == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0, 0.75, 0.5, 0.25, 1e-4, 1e-4])
    assert result.momentum == pytest.approx([0.95, 0.925, 0.9, 0.875, 0.85, 0.875, 0.9, 0.925, 0.95, 0.95])


def test_linear_one_cycle_without_a_tail_ends_one_step_above_zero():
    result = table(Schedule(warmup_fraction=0.5, tail_fraction=0.0, lr_ratio=4.0), 8)
    assert result.lr == pytest.approx([0.25, 0.4375, 0.625, 0.8125, 1.0, 0.75, 0.5, 0.25])
    assert result.momentum == pytest.approx([0.95, 0.925, 0.9, 0.875, 0.85, 0.875, 0.9, 0.925])


def test_the_papers_own_run():
    """Smith's solver file: 0.08 -> 0.8 at 4003, 0.2010 at 7000, base / 1000 from about 8006 to 9277 (arXiv 1803.09820, section 5)."""
    steps = 9277
    schedule = Schedule(warmup_fraction=4003 / steps, lr_ratio=10, tail_fraction=(steps - 8006) / steps, tail_ratio=1000)
    result = table(schedule, steps, lr=0.8)
    assert result.lr[[0, 4003, 7000]] == pytest.approx([0.08, 0.8, 0.2010], rel=5e-4)
    assert result.lr.argmax() == 4003
    assert result.lr[8006:] == pytest.approx(np.full(steps - 8006, 8e-5))
    assert result.lr[8005] > 8e-5
    assert result.momentum[[0, 4003, 8006, 9276]] == pytest.approx([0.95, 0.85, 0.95, 0.95])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 17, 100, 1001])
@pytest.mark.parametrize("shape", ["linear", "torch", "three_phase"])
@pytest.mark.parametrize("tail", [0.0, 0.1, 0.4])
def test_one_cycle_stays_within_its_bounds(steps, shape, tail):
    result = table(Schedule(shape=shape, tail_fraction=tail), steps)
    assert result.lr.shape == result.momentum.shape == (steps,)
    assert np.all((result.lr >= 1e-4 - 1e-12) & (result.lr <= 1 + 1e-12))
    assert np.all((result.momentum >= 0.85 - 1e-12) & (result.momentum <= 0.95 + 1e-12))


@pytest.mark.parametrize("steps", [10, 101, 1000])
def test_momentum_mirrors_the_lr_and_rests_in_the_tail(steps):
    result = table(Schedule(), steps)
    tail = round(0.1 * steps)
    up = result.lr[: round(0.45 * steps) + 1]
    assert result.momentum[: len(up)] == pytest.approx(0.95 - 0.1 * (up - 0.1) / 0.9)
    down = result.lr[len(up) : steps - tail]
    assert result.momentum[len(up) : steps - tail] == pytest.approx(0.95 - 0.1 * down)
    assert np.all(result.momentum[steps - tail :] == 0.95)


@pytest.mark.parametrize(
    ("steps", "lr", "momentum"),
    [
        (1, [1.0], [0.85]),
        (2, [0.1, 1.0], [0.95, 0.85]),
        (3, [0.1, 1.0, 0.5], [0.95, 0.85, 0.90]),
    ],
)
def test_linear_one_cycle_of_very_few_steps(steps, lr, momentum):
    result = table(Schedule(), steps)
    assert result.lr == pytest.approx(lr)
    assert result.momentum == pytest.approx(momentum)


def one_cycle_lr(schedule, steps):
    """LR and momentum of torch's class with the parameters that `schedule` stands for."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PEAK["lr"],
        total_steps=steps,
        pct_start=schedule.warmup_fraction,
        div_factor=schedule.lr_ratio,
        final_div_factor=schedule.tail_ratio,
        base_momentum=PEAK["momentum_min"],
        max_momentum=PEAK["momentum"],
        three_phase=schedule.shape == "three_phase",
    )
    rows = []
    for step in range(steps):
        rows.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return np.array(rows).T


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 7, 9, 10, 23, 100, 777])
@pytest.mark.parametrize("warmup", [0.3, 0.45, 0.27])
@pytest.mark.parametrize("shape", ["torch", "three_phase"])
def test_equal_to_one_cycle_lr(steps, warmup, shape):
    schedule = Schedule(shape=shape, warmup_fraction=warmup, lr_ratio=25.0, tail_ratio=1e4)
    lr, momentum = one_cycle_lr(schedule, steps)
    result = table(schedule, steps)
    np.testing.assert_allclose(result.lr, lr, rtol=1e-6)
    np.testing.assert_allclose(result.momentum, momentum, rtol=1e-6)


def test_a_phase_of_no_length_is_at_its_end():
    """10 % of 10 steps ends the way up at step 0, where OneCycleLR divides by zero."""
    schedule = Schedule(shape="torch", warmup_fraction=0.1)
    result = table(schedule, 10)
    assert (result.lr[0], result.momentum[0]) == (1.0, 0.85)
    assert np.all(np.diff(result.lr) < 0)


def test_ramps_literally():
    assert ramp(4, min_lr=1e-3, max_lr=1.0, exponential=True) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert ramp(4, min_lr=0.1, max_lr=0.4, exponential=False) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert ramp(1, min_lr=0.1, max_lr=0.4, exponential=True) == pytest.approx([0.4])


@pytest.mark.parametrize(("shape", "middle"), [("exponential", 0.1), ("linear", 0.505)])
def test_a_ramp_ends_at_the_trials_lr_with_constant_momentum(shape, middle):
    result = table(Schedule(kind="ramp", shape=shape, min_lr=0.01), 5)
    assert result.lr[[0, 2, 4]] == pytest.approx([0.01, middle, 1.0])
    assert np.all(result.momentum == 0.95)


def test_step_decay_literally():
    assert step_decay(8, lr=1.0, milestones=(0.5, 0.75), gamma=0.1) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step_decay(3, lr=2.0, milestones=(), gamma=0.1).tolist() == [2.0, 2.0, 2.0]
    assert step_decay(1, lr=2.0, milestones=(0.75,), gamma=0.5).tolist() == [2.0]


def test_step_and_constant_schedules_keep_the_momentum():
    stepped = table(Schedule(kind="step", milestones=(0.5,), gamma=0.5), 4)
    assert stepped.lr.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert stepped.momentum.tolist() == [0.95] * 4
    constant = table(Schedule(kind="constant"), 3)
    assert (constant.lr.tolist(), constant.momentum.tolist()) == ([1.0] * 3, [0.95] * 3)


@pytest.mark.parametrize("kind", ["one_cycle", "constant", "step", "ramp"])
def test_weight_decay_is_the_trials_own_throughout(kind):
    assert table(Schedule(kind=kind), 7).weight_decay.tolist() == [1.0] * 7


def test_points_literally():
    """Straight lines from the first step to the last; momentum between its minimum (0) and its own (1)."""
    points = (Point(0.0, lr=0.0), Point(0.5, lr=2.0, momentum=0.0, weight_decay=3.0), Point(1.0, lr=1.0, momentum=0.5, weight_decay=3.0))
    result = table(Schedule(kind="points", points=points), 5, lr=0.1)
    assert result.lr == pytest.approx([0.0, 0.1, 0.2, 0.15, 0.1])
    assert result.momentum == pytest.approx([0.95, 0.9, 0.85, 0.875, 0.9])
    assert result.weight_decay == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0])


def test_two_points_at_one_place_are_a_jump():
    points = (Point(0.0), Point(0.5), Point(0.5, lr=0.5, weight_decay=10.0), Point(1.0, lr=0.5, weight_decay=10.0))
    result = table(Schedule(kind="points", points=points), 5)
    assert result.lr.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]
    assert result.weight_decay.tolist() == [1.0, 1.0, 10.0, 10.0, 10.0]


def test_a_course_is_level_outside_its_points():
    points = (Point(0.25, lr=0.2), Point(0.75, lr=0.6))
    assert table(Schedule(kind="points", points=points), 5).lr == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.6])
    assert table(Schedule(kind="points", points=points[:1]), 1).lr.tolist() == [0.2]


@pytest.mark.parametrize("steps", [0, -1])
def test_a_schedule_needs_a_step(steps):
    with pytest.raises(ValueError, match=f"at least one step, got {steps}"):
        table(Schedule(), steps)
