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
Numbers = NDArray[np.intp]
Cells = tuple[tuple[int, int], ...]

SET_ASIDE_WEIGHT = 1e-6  # cells set aside settle seed effects only where no others do
CACHED = 16  # designs: few enough that those of 10,000 trials take a few MB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """What follows from the cells alone; nothing in it is larger than cells times seeds.

    A seed's effect is its difference from the mean of the seeds in its component, so that adjusted means need no other reference.
    `candidate` and `seed`: of each cell, by number. `trials`: of each candidate. `shares`: the seeds' shares in a candidate's
    trials, shape (candidates, seeds). `effects`: seed effects are `effects @ values`, shape (seeds, cells); `covariance` is theirs in
    units of one trial's variance. `counts`: the cells that count as noise. `component`: candidates with different numbers share
    no chain of common seeds.
    """

    candidate: Numbers
    seed: Numbers
    trials: Numbers
    shares: Array
    effects: Array
    covariance: Array
    counts: NDArray[np.bool_]
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
        shares = self.design.shares[candidate]
        return float(1 / self.design.trials[candidate] + shares @ self.design.covariance @ shares)

    def variance_of_difference(self, a: int, b: int) -> float:
        """Variance of a difference of adjusted means, in the same units; infinite where no chain of common seeds joins the two."""
        found = self.design
        if found.component[a] != found.component[b]:
            return math.inf
        if a == b:
            return 0.0
        shares = found.shares[a] - found.shares[b]
        return float(1 / found.trials[a] + 1 / found.trials[b] + shares @ found.covariance @ shares)


def fit_additive(cells: Sequence[tuple[int, int]], values: Sequence[float], *, set_aside: frozenset[int] = frozenset()) -> AdditiveFit:
    """Fit the model to one value for each cell (candidate, seed); candidates are numbered from 0, each with at least one cell.

    Candidates in `set_aside` get an adjusted mean but take no part in the noise, nor in seed effects that others can settle.
    """
    found = design(tuple(cells), set_aside)
    y = np.asarray(values, dtype=np.float64)
    effects = found.effects @ y
    adjusted = y - effects[found.seed]
    means = np.bincount(found.candidate, adjusted, len(found.trials)) / found.trials
    residuals = (adjusted - means[found.candidate])[found.counts]
    return AdditiveFit(means=means, sum_squares=float(residuals @ residuals), df=found.df, design=found)


@lru_cache(maxsize=CACHED)
def design(cells: Cells, set_aside: frozenset[int]) -> Design:
    """Return what the cells alone settle; a sweep asks for the same cells again and again.

    The candidates' effects are eliminated: what is left of a cell is its difference from the mean of its candidate's cells. So only
    the seeds' effects are solved for, in O(cells seeds²).
    """
    candidate, names = (np.array([cell[i] for cell in cells], dtype=np.intp) for i in (0, 1))
    different, seed = np.unique(names, return_inverse=True)
    trials = np.bincount(candidate)
    shares = np.zeros((len(trials), len(different)))
    np.add.at(shares, (candidate, seed), 1.0)
    shares /= trials[:, None]
    counts = np.array([number not in set_aside for number in range(len(trials))], dtype=bool)[candidate]
    root = np.sqrt(np.where(counts, 1.0, SET_ASIDE_WEIGHT))
    within = np.eye(len(different))[seed] - shares[candidate]  # (cells, seeds)
    effects = root * np.asarray(np.linalg.pinv(root[:, None] * within, rcond=1e-9), dtype=np.float64)
    component = components(cells)
    return Design(
        candidate=candidate,
        seed=seed,
        trials=trials,
        shares=shares,
        effects=effects,
        covariance=effects @ effects.T,
        counts=counts,
        df=degrees_of_freedom(tuple(cell for cell in cells if cell[0] not in set_aside)),
        component=tuple(component[number] for number in range(len(trials))),
    )


def degrees_of_freedom(cells: Cells) -> int:
    """Cells − candidates − seeds + connected components."""
    labels = components(cells)
    return len(cells) - len(labels) - len({seed for _, seed in cells}) + len(set(labels.values()))


def components(cells: Cells) -> dict[int, int]:
    """Number each candidate's connected component: candidates with a seed in common belong together."""
    joined: dict[int, int] = {}  # a seed to one that it belongs together with, itself at the end
    first: dict[int, int] = {}

    def last(seed: int) -> int:
        while (other := joined[seed]) != seed:
            joined[seed] = seed = joined[other]
        return seed

    for candidate, seed in cells:
        joined.setdefault(seed, seed)
        joined[last(seed)] = last(first.setdefault(candidate, seed))
    return {candidate: last(seed) for candidate, seed in first.items()}
