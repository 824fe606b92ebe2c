"""The additive model of paired trials: value = candidate + common-seed effect + noise, by least squares, cells may be missing.

Repetition *k* of every candidate shares its initialization, order and augmentation, so a lucky draw lifts all candidates alike.
The candidates' means are adjusted for it: what is compared is their mean over *all* seeds, also those a candidate has not run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cells = tuple[tuple[int, int], ...]

SET_ASIDE_WEIGHT = 1e-6  # cells set aside settle seed effects only where no others do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """What follows from the cells alone.

    `weights`: adjusted means are `weights @ values`, shape (candidates, cells). `covariance`: of the adjusted means in units of one
    trial's variance, the seeds taken as they are, shape (candidates, candidates). `residual`: maps values to residuals of the cells
    that count as noise, shape (those cells, cells). `component`: candidates with different numbers share no chain of common seeds.
    """

    weights: Array
    covariance: Array
    residual: Array
    df: int
    component: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdditiveFit:
    """Adjusted means, shape (candidates,), and the residual sum of squares with its degrees of freedom."""

    means: Array
    sum_squares: float
    df: int
    design: Design

    def variance(self, candidate: int) -> float:
        """Variance of an adjusted mean in units of one trial's variance, the seeds taken as they are."""
        return float(self.design.covariance[candidate, candidate])

    def variance_of_difference(self, a: int, b: int) -> float:
        """Variance of a difference of adjusted means, in the same units; infinite where no chain of common seeds joins the two."""
        if self.design.component[a] != self.design.component[b]:
            return math.inf
        return self.variance(a) + self.variance(b) - 2 * float(self.design.covariance[a, b])


def fit_additive(cells: Sequence[tuple[int, int]], values: Sequence[float], *, set_aside: frozenset[int] = frozenset()) -> AdditiveFit:
    """Fit the model to one value for each cell (candidate, seed); candidates are numbered from 0, each with at least one cell.

    Candidates in `set_aside` get an adjusted mean but take no part in the noise, nor in seed effects that others can settle.
    """
    found = design(tuple(cells), set_aside)
    y = np.asarray(values, dtype=np.float64)
    residuals = found.residual @ y
    return AdditiveFit(means=found.weights @ y, sum_squares=float(residuals @ residuals), df=found.df, design=found)


@lru_cache(maxsize=256)
def design(cells: Cells, set_aside: frozenset[int]) -> Design:
    """Return what the cells alone settle; a sweep asks for the same cells again and again."""
    candidates = 1 + max((candidate for candidate, _ in cells), default=-1)
    column = {seed: candidates + i for i, seed in enumerate(sorted({seed for _, seed in cells}))}
    x = np.zeros((len(cells), candidates + len(column)))
    for row, (candidate, seed) in enumerate(cells):
        x[row, candidate] = x[row, column[seed]] = 1.0
    counts = np.array([candidate not in set_aside for candidate, _ in cells], dtype=bool)
    root = np.sqrt(np.where(counts, 1.0, SET_ASIDE_WEIGHT))
    solve = np.linalg.pinv(root[:, None] * x, rcond=1e-9) * root  # (effects, cells)
    component = components(cells)
    mean = np.zeros((candidates, x.shape[1]))
    for candidate in range(candidates):
        seeds = {column[seed] for other, seed in cells if component[other] == component[candidate]}
        mean[candidate, candidate] = 1.0
        mean[candidate, sorted(seeds)] = 1.0 / len(seeds)
    kept = tuple(cell for cell in cells if cell[0] not in set_aside)
    weights, residual = mean @ solve, np.eye(len(cells)) - x @ solve
    return Design(
        weights=weights,
        covariance=weights @ weights.T,
        residual=residual[counts],
        df=degrees_of_freedom(kept),
        component=tuple(component[candidate] for candidate in range(candidates)),
    )


def degrees_of_freedom(cells: Cells) -> int:
    """Cells − candidates − seeds + connected components."""
    labels = components(cells)
    return len(cells) - len(labels) - len({seed for _, seed in cells}) + len(set(labels.values()))


def components(cells: Cells) -> dict[int, int]:
    """Number each candidate's connected component: candidates with a seed in common belong together."""
    label = {candidate: candidate for candidate, _ in cells}
    first: dict[int, int] = {}
    for candidate, seed in cells:
        joined, other = label[candidate], label[first.setdefault(seed, candidate)]
        label = {c: other if at == joined else at for c, at in label.items()}
    return label
