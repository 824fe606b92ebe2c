"""The additive model of paired trials, and the quantiles it is judged by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hptune.analysis.additive import degrees_of_freedom, fit_additive
from hptune.analysis.quantiles import student, studentized_range

GRID = [(candidate, seed) for candidate in range(3) for seed in range(4)]


def test_a_full_design_gives_plain_means_and_the_textbook_residuals() -> None:
    y = np.random.default_rng(0).normal(size=(3, 4))
    fit = fit_additive(GRID, y.ravel().tolist())
    residuals = y - y.mean(1, keepdims=True) - y.mean(0, keepdims=True) + y.mean()
    np.testing.assert_allclose(fit.means, y.mean(1))
    assert fit.sum_squares == pytest.approx(float((residuals**2).sum()))
    assert fit.df == 6
    assert fit.variance(0) == pytest.approx(1 / 4)
    assert fit.variance_of_difference(0, 2) == pytest.approx(2 / 4)


def test_a_missing_cell_is_adjusted_for_the_seed_it_lacks() -> None:
    # Seed 1 is worse by 1.0 for everybody; candidate 2 never ran it.
    fit = fit_additive([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)], [1.0, 2.0, 1.2, 2.2, 1.1])
    np.testing.assert_allclose(fit.means, [1.5, 1.7, 1.6])
    assert fit.df == 1
    assert fit.sum_squares == pytest.approx(0.0, abs=1e-20)


def test_a_seed_only_one_candidate_ran_says_nothing_about_differences() -> None:
    fit = fit_additive([(0, 0), (1, 0), (0, 1)], [1.0, 2.0, 30.0])
    assert fit.means[1] - fit.means[0] == pytest.approx(1.0)
    assert fit.variance_of_difference(0, 1) == pytest.approx(2.0)


def test_candidates_without_a_chain_of_common_seeds_cannot_be_compared() -> None:
    fit = fit_additive([(0, 0), (1, 0), (2, 1), (3, 1)], [1.0, 1.5, 7.0, 7.5])
    np.testing.assert_allclose(fit.means, [1.0, 1.5, 7.0, 7.5])
    assert math.isinf(fit.variance_of_difference(0, 2))
    assert fit.variance_of_difference(0, 1) == pytest.approx(2.0)


def test_what_is_set_aside_moves_neither_noise_nor_seed_effects() -> None:
    near = [(0, 0), (0, 1), (1, 0), (1, 1)]
    y = [1.0, 1.3, 1.1, 1.5]
    alone = fit_additive(near, y)
    fit = fit_additive([*near, (2, 0), (2, 1)], [*y, 9.0, 4.0], set_aside=frozenset({2}))
    np.testing.assert_allclose(fit.means, [*alone.means, 6.5], rtol=1e-5)
    assert fit.sum_squares == pytest.approx(alone.sum_squares, rel=1e-5)
    assert fit.df == alone.df == 1


def test_what_is_set_aside_settles_the_seeds_only_it_has_run() -> None:
    fit = fit_additive([(0, 0), (1, 0), (2, 0), (2, 1)], [1.0, 2.0, 5.0, 6.0], set_aside=frozenset({2}))
    np.testing.assert_allclose(fit.means, [1.5, 2.5, 5.5], rtol=1e-5)


def test_no_cells_no_means() -> None:
    fit = fit_additive([], [])
    assert fit.means.shape == (0,)
    assert fit.df == 0


@pytest.mark.parametrize(
    ("cells", "df"),
    [
        ([(0, 0)], 0),
        ([(0, 0), (1, 0)], 0),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], 1),
        ([(0, 0), (0, 1), (1, 0), (1, 1), (2, 5), (2, 6), (3, 5), (3, 6)], 2),
        ([(0, 0), (1, 1), (2, 0), (2, 1)], 0),
        (GRID, 6),
    ],
)
def test_degrees_of_freedom_equal_the_cells_beyond_the_rank_of_the_design(cells: list[tuple[int, int]], df: int) -> None:
    columns = sorted({("c", c) for c, _ in cells} | {("s", s) for _, s in cells})
    x = [[float(column in (("c", c), ("s", s))) for column in columns] for c, s in cells]
    assert len(cells) - np.linalg.matrix_rank(np.array(x)) == df
    assert degrees_of_freedom(tuple(cells)) == df


@pytest.mark.parametrize(("means", "df"), [(2, 3), (4, 3), (4, 7), (8, 5), (8, 40), (30, 100), (3, 1000)])
def test_studentized_range_equals_scipy(means: int, df: int) -> None:
    assert studentized_range(0.95, means, df) == pytest.approx(float(stats.studentized_range.ppf(0.95, means, df)), rel=1e-4)


@pytest.mark.parametrize("df", [1, 2, 3, 10, 200])
def test_student_equals_scipy(df: int) -> None:
    assert student(0.975, df) == pytest.approx(float(stats.t.ppf(0.975, df)))


def test_two_means_differ_by_student_as_by_the_studentized_range() -> None:
    assert studentized_range(0.95, 2, 6) / math.sqrt(2) == pytest.approx(student(0.975, 6), rel=1e-6)
