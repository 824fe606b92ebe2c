"""Reading LR range tests: curves made by hand and recorded ones."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from recorded import recorded

from hptune.analysis.curves import MINIMUM_OVER_BEST, RangeReading, RangeSummary, read_ramp, read_range, smooth_per_decade, summarize_ranges
from hptune.analysis.wording import format_number
from hptune.trial import CurveSummary

LR = np.geomspace(1e-4, 10, 26)  # five points a decade
AT = np.log10(LR)
RANGES = recorded("ranges")


def read(loss: np.ndarray) -> RangeReading:
    return read_range(LR.tolist(), loss.tolist())


def summary(*losses: np.ndarray) -> RangeSummary:
    return summarize_ranges([read(loss) for loss in losses], min_lr=1e-4, max_lr=10.0)


def valley(lowest: float, *, width: float = 1.0) -> np.ndarray:
    """A clean U: 2.3 far away, 0.3 at `lowest`."""
    return 2.3 - 2.0 * np.exp(-(((AT - math.log10(lowest)) / width) ** 2))


def downhill(end: float = 10.0) -> np.ndarray:
    return 2.3 - 2.0 * np.clip((AT + 3) / (math.log10(end) + 3), 0, 1)


# --- smoothing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [100, 1000])
def test_smoothing_does_not_lag_however_fast_the_ramp(points: int) -> None:
    lr = np.geomspace(1e-7, 10, points)
    loss = (np.log10(lr) + 2) ** 2
    assert lr[np.argmin(smooth_per_decade(lr.tolist(), loss.tolist(), decades=0.3))] == pytest.approx(1e-2, rel=0.15)


def test_smoothing_leaves_a_straight_line_alone_ends_included() -> None:
    loss = 2.0 - 0.4 * AT
    np.testing.assert_allclose(smooth_per_decade(LR.tolist(), loss.tolist(), decades=0.5), loss)


def test_smoothing_takes_noise_out() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    lr = np.geomspace(1e-4, 10, 500)
    assert np.std(smooth_per_decade(lr.tolist(), noise.tolist(), decades=0.2)) < 0.3


def test_smoothing_works_on_unevenly_spaced_and_lone_points() -> None:
    np.testing.assert_allclose(smooth_per_decade([1e-8, 1e-4, 1.0], [3.0, 1.0, 2.0], decades=0.1), [3.0, 1.0, 2.0])
    np.testing.assert_allclose(smooth_per_decade([0.1, 0.1], [1.0, 3.0]), [2.0, 2.0])


# --- one ramp --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowest", [0.01, 0.1, 0.3])
def test_a_clean_valley_is_read_to_a_tenth_of_a_decade(lowest: float) -> None:
    reading = read(valley(lowest))
    assert reading.kind == "turned_up"
    assert reading.lowest_at == pytest.approx(lowest, rel=0.1)
    assert reading.falls_at is not None
    assert reading.turns_up_at is not None
    assert reading.falls_at < lowest < reading.turns_up_at
    assert reading.first_loss == pytest.approx(2.3, abs=0.05)
    assert reading.lowest_loss == pytest.approx(0.3, abs=0.1)


def test_a_noisy_valley_is_read_to_a_quarter_of_a_decade() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        lowest = read(valley(0.1) + rng.normal(0, 0.05, len(LR))).lowest_at
        assert lowest is not None
        assert abs(math.log10(lowest / 0.1)) < 0.25


@pytest.mark.parametrize("beyond", [50.0, 1e6, 1e30, math.nan, math.inf])
def test_a_cliff_does_not_reach_back_over_the_lowest_point(beyond: float) -> None:
    loss = np.where(LR > 0.5, beyond, downhill(0.5))
    reading = read(loss)
    assert reading.kind == "turned_up"
    assert reading.lowest_at == pytest.approx(0.4, rel=0.25)
    assert reading.turns_up_at == pytest.approx(LR[LR > 0.5][0])


def test_what_comes_after_the_first_loss_that_is_not_finite_does_not_count() -> None:
    loss = downhill(0.5)
    loss[LR > 0.5] = 0.0
    loss[np.flatnonzero(LR > 0.5)[0]] = math.nan
    assert read(loss).lowest_at == pytest.approx(0.4, rel=0.25)


def test_a_plateau_before_the_fall_is_where_it_starts_to_fall() -> None:
    reading = read(np.where(LR < 0.01, 2.3, valley(0.1)))
    assert reading.falls_at is not None
    assert 0.009 < reading.falls_at < 0.05


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (downhill(), "still_falling"),
        (downhill(1.0), "still_falling"),  # it fell and stayed down
        (np.full(len(LR), 2.3), "flat"),
        (np.where(LR < 1, 2.3, 9.0), "flat"),  # it never fell, and rose late
        (np.zeros(len(LR)), "flat"),
        (2.3 + 3 * (AT + 4), "diverged_at_once"),
        (np.where(LR > 1e-4, math.nan, 2.3), "diverged_at_once"),
        (np.full(len(LR), math.nan), "diverged_at_once"),
        (valley(0.1) - 5.0, "turned_up"),  # losses below zero
    ],
)
def test_kinds(loss: np.ndarray, kind: str) -> None:
    assert read(loss).kind == kind


def test_three_points_are_enough_and_two_are_not() -> None:
    reading = read_range([0.01, 0.1, 1.0], [2.3, 1.0, 5.0])
    assert (reading.kind, reading.turns_up_at) == ("turned_up", 1.0)
    assert reading.lowest_at == pytest.approx(0.1, rel=0.5)
    assert read_range([0.01, 0.1], [2.3, 1.0]).kind == "too_short"
    assert read_range([], []).ends_at is None


def test_the_lowest_point_lies_at_most_halfway_to_its_neighbour() -> None:
    assert read_range([0.01, 0.1, 1.0, 10.0], [2.3, 1.0, 1.0, 1.0]).lowest_at == pytest.approx(math.sqrt(0.1))


# --- all seeds -------------------------------------------------------------------------------------------------------------


def test_the_suggestion_is_the_lowest_point_over_the_measured_ratio() -> None:
    found = summary(valley(0.12), valley(0.12))
    assert found.kind == "turned_up"
    assert found.lr_max == pytest.approx(0.1, rel=0.1)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.1 < found.high
    assert found.sentence.startswith("suggested maximum LR 0.0999 [")
    assert "] (lowest / 1.2): the loss fell from 0.0" in found.sentence
    assert re.search(r", was lowest at 0\.12, turned up by 0\.\d+ on 2 of 2 seeds$", found.sentence)


def test_one_ramp_has_no_interval() -> None:
    found = summary(valley(0.24))
    assert (found.low, found.high) == (None, None)
    assert "[" not in found.sentence


@pytest.mark.parametrize(("places", "decades"), [((0.1, 0.1, 0.1), 0.2), ((0.08, 0.1), 1.0), ((0.01, 1.0), 2.0)])
def test_the_interval_has_a_sane_width(places: tuple[float, ...], decades: float) -> None:
    readings = [RangeReading(kind="turned_up", falls_at=0.001, lowest_at=at, turns_up_at=5.0, ends_at=10.0) for at in places]
    found = summarize_ranges(readings, min_lr=1e-4, max_lr=10.0)
    assert found.low is not None
    assert found.high is not None
    assert math.log10(found.high / found.low) == pytest.approx(decades, abs=0.05)


def test_a_loss_still_falling_asks_for_a_larger_maximum() -> None:
    found = summary(downhill(), downhill())
    assert found.kind == "still_falling"
    assert found.lr_max == pytest.approx(10 / MINIMUM_OVER_BEST)
    seen = "the loss was still falling at the largest LR tried (10) on 2 of 2 seeds"
    assert found.sentence.endswith(f" (lowest / 1.2): {seen}: raise stages.lr_range.max_lr")


def test_a_loss_that_stays_down_asks_for_a_larger_maximum_too() -> None:
    found = summary(np.where(LR < 0.1, downhill(0.1), 0.3 + 0.01 * (AT + 1)))
    assert found.sentence.endswith("the loss had not turned up at the largest LR tried (10) on 1 of 1 seed: raise stages.lr_range.max_lr")
    assert found.lr_max is not None
    assert found.lr_max < 0.2


def test_a_ramp_cut_short_while_falling_has_turned_up() -> None:
    cut = int(np.flatnonzero(LR > 0.5)[0])
    found = summarize_ranges([read_range(LR[:cut].tolist(), downhill(0.5)[:cut].tolist())], min_lr=1e-4, max_lr=10.0)
    assert found.kind == "turned_up"
    assert found.lr_max == pytest.approx(0.4 / MINIMUM_OVER_BEST, rel=0.1)


def test_seeds_that_show_nothing_do_not_spoil_the_others() -> None:
    found = summary(valley(0.12), np.full(len(LR), 2.3), np.full(len(LR), math.nan))
    assert found.lr_max == pytest.approx(0.1, rel=0.1)
    assert found.sentence.endswith("on 1 of 3 seeds")


@pytest.mark.parametrize(
    ("losses", "kind", "sentence"),
    [
        (
            [2.3 + 3 * (AT + 4)],
            "diverged_at_once",
            "the loss rose from the first step, at LR 1e-04: lower stages.lr_range.min_lr",
        ),
        (
            [np.full(len(LR), 2.3)] * 2 + [np.full(len(LR), math.nan)],
            "flat",
            "the loss did not move between LR 1e-04 and 10: raise stages.lr_range.max_lr or look at the data",
        ),
        (
            [np.where(LR < 1, 2.3, 9.0)],
            "flat",
            "the loss did not move between LR 1e-04 and 0.631, then rose: look at the scale of the inputs",
        ),
        ([], "too_short", "the LR range test is too short to read: fewer than three points"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence_and_no_suggestion(losses: list[np.ndarray], kind: str, sentence: str) -> None:
    found = summary(*losses)
    assert (found.kind, found.lr_max) == (kind, None)
    assert found.sentence == sentence


# --- recorded --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "best"),
    [("mlp", 0.32), ("linear", 0.23), ("large_inputs", 0.0096), ("few_samples", 0.04), ("tiny_inputs", None), ("deep", None)],
)
def test_recorded_ranges_suggest_an_lr_near_the_one_that_is_best_in_a_1cycle_run_as_long(case: str, best: float | None) -> None:
    """`best`: of a grid by factors of the root of two, by the mean log loss of three seeds after 90 steps."""
    readings = [read_ramp(curve) for (name, _), curve in RANGES.items() if name == case]
    assert len(readings) == 3
    found = summarize_ranges(readings, min_lr=1e-4, max_lr=10.0)
    assert found.kind == ("flat" if best is None else "turned_up")
    assert (found.lr_max is None) == (best is None)
    if found.lr_max is not None and best is not None:
        assert max(found.lr_max / best, best / found.lr_max) < 3.5


def test_the_suggestion_lies_between_what_both_losses_say() -> None:
    curve = CurveSummary(lr=tuple(LR), val_loss=tuple(valley(0.04)), train_loss=tuple(valley(0.36)))
    found = summarize_ranges([read_ramp(curve)], min_lr=1e-4, max_lr=10.0)
    assert found.lr_max == pytest.approx(0.12 / MINIMUM_OVER_BEST, rel=0.1)
    assert "was lowest at 0.04 (training loss at 0.3" in found.sentence


def test_a_training_loss_that_shows_nothing_leaves_the_validation_loss_to_decide() -> None:
    curve = CurveSummary(lr=tuple(LR), val_loss=tuple(valley(0.12)), train_loss=(math.nan,) * len(LR))
    found = summarize_ranges([read_ramp(curve)], min_lr=1e-4, max_lr=10.0)
    assert found.lr_max == pytest.approx(0.1, rel=0.1)
    assert "training" not in found.sentence


# --- wording ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4, "0.4"),
        (0.40449, "0.404"),
        (1e-4, "1e-04"),
        (3.1623e-4, "3.16e-04"),
        (-2e-5, "-2e-05"),
        (0.001, "0.001"),
        (10.0, "10"),
        (999.7, "1000"),
        (1234.5, "1234"),
        (1.2345e7, "1.23e+07"),
        (0.0, "0"),
        (64, "64"),
        (123456789, "123456789"),
        ("never", "never"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_written_one_way(value: float | int | str, text: str) -> None:
    assert format_number(value) == text


def test_a_loss_too_large_to_square_ends_a_ramp_as_an_infinite_one_does() -> None:
    infinite, large = valley(0.1), valley(0.1)
    infinite[20:], large[20:] = math.inf, 1e308
    assert read(large) == read(infinite)


def test_a_ramp_without_a_single_finite_loss_blames_the_loss_and_not_the_lr() -> None:
    found = summary(np.full(26, np.nan), np.full(26, -np.inf))
    assert found.kind == "diverged_at_once"
    assert found.lr_max is None
    assert found.sentence == "the loss was not finite at the first evaluation, from LR 1e-04 on: look at the loss and the data"


def test_losses_near_the_smallest_float_have_a_lowest_point() -> None:
    t, m = 1e-310, 5e-324
    loss = [t, t, 0.0, t, m, 0.0, m, 0.0, m, m, t, m, t, m, t, 0.0, t, t, 0.0, 0.0, 0.0, 0.0, m, t]  # its smoothed minimum is flat
    rates = np.geomspace(1e-4, 10, 24).tolist()
    assert read_range(rates, loss).lowest_at in [pytest.approx(lr) for lr in rates]
