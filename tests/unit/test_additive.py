"""The additive model of paired trials, and the quantiles it is judged by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hptune.analysis.additive import SET_ASIDE_WEIGHT, components, degrees_of_freedom, fit_additive
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


class Plain:
    """The same fit as it stands in textbooks: one matrix of all cells by all effects, and its pseudoinverse."""

    def __init__(self, cells: list[tuple[int, int]], y: np.ndarray, set_aside: frozenset[int]) -> None:
        candidates = 1 + max(candidate for candidate, _ in cells)
        column = {seed: candidates + i for i, seed in enumerate(sorted({seed for _, seed in cells}))}
        x = np.zeros((len(cells), candidates + len(column)))
        for row, (candidate, seed) in enumerate(cells):
            x[row, candidate] = x[row, column[seed]] = 1.0
        counts = np.array([candidate not in set_aside for candidate, _ in cells])
        root = np.sqrt(np.where(counts, 1.0, SET_ASIDE_WEIGHT))
        solve = np.linalg.pinv(root[:, None] * x, rcond=1e-9) * root
        joined = np.linalg.matrix_power((x.T @ x > 0).astype(float), x.shape[1]) > 0  # effects that a chain of cells joins
        mean = np.zeros((candidates, x.shape[1]))
        for candidate in range(candidates):
            seeds = [at for at in column.values() if joined[candidate, at]]
            mean[candidate, candidate], mean[candidate, seeds] = 1.0, 1.0 / len(seeds)
        weights = mean @ solve
        residuals = (y - x @ solve @ y)[counts]
        self.means, self.sum_squares = weights @ y, float(residuals @ residuals)
        self.covariance, self.joined = weights @ weights.T, joined[:candidates, :candidates]


def random_design(rng: np.random.Generator) -> tuple[list[tuple[int, int]], frozenset[int]]:
    """Up to eight candidates on up to six seeds, a random part of the cells missing, a random part of the candidates set aside."""
    ran = rng.random((int(rng.integers(1, 9)), int(rng.integers(1, 7)))) < rng.uniform(0.1, 1)
    for row in ran:
        row[rng.integers(len(row))] |= not row.any()
    cells = [(int(candidate), 7 * int(seed)) for candidate, seed in zip(*np.nonzero(ran), strict=True)]
    order = rng.permutation(len(cells)).tolist()
    return [cells[i] for i in order], frozenset(i for i in range(len(ran)) if rng.random() < 0.3)


def test_any_design_gives_what_the_plain_formulation_gives() -> None:
    rng = np.random.default_rng(7)
    seen = {"several components": 0, "a single cell": 0, "some set aside": 0, "all set aside": 0}
    for _ in range(400):
        cells, set_aside = random_design(rng)
        y = rng.normal(size=len(cells))
        fit, plain = fit_additive(cells, y.tolist(), set_aside=set_aside), Plain(cells, y, set_aside)
        candidates = range(len(fit.means))
        np.testing.assert_allclose(fit.means, plain.means, atol=1e-8)
        assert fit.sum_squares == pytest.approx(plain.sum_squares, abs=1e-8)
        np.testing.assert_allclose([fit.variance(i) for i in candidates], np.diag(plain.covariance), atol=1e-8)
        for a in candidates:
            for b in candidates:
                expected = plain.covariance[a, a] + plain.covariance[b, b] - 2 * plain.covariance[a, b] if plain.joined[a, b] else math.inf
                assert fit.variance_of_difference(a, b) == pytest.approx(expected, abs=1e-8)
        seen["several components"] += len(set(fit.design.component)) > 1
        seen["a single cell"] += len(cells) == 1
        seen["some set aside"] += 0 < len(set_aside) < len(candidates)
        seen["all set aside"] += len(set_aside) == len(candidates)
    assert min(seen.values()) > 5, seen


def test_no_array_of_a_design_is_larger_than_its_cells_times_its_seeds() -> None:
    cells = [(candidate, seed) for candidate in range(300) for seed in range(4)]
    found = fit_additive(cells, np.random.default_rng(0).normal(size=len(cells)).tolist(), set_aside=frozenset({5})).design
    sizes = {name: np.size(getattr(found, name)) for name in found.__dataclass_fields__}
    assert max(sizes.values()) == len(cells) * 4, sizes


def test_long_chains_of_seeds_are_one_component() -> None:
    chain = [cell for i in range(5000) for cell in ((i, i), (i, i + 1))]
    labels = components((*chain[::-1], (5000, -1)))
    assert len({labels[i] for i in range(5000)}) == 1
    assert labels[5000] != labels[0]


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
