"""The two quantiles that intervals and comparisons need.

`scipy.stats` has both, but costs two thirds of a second to import and a tenth of one for each studentized range; what only reads
a run directory should answer at once. The tests hold these against scipy's.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, ndtr, stdtrit

NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)
REACH = 8.0  # standard deviations integrated over
LARGEST = 1e4  # no studentized range of interest lies above: the 95 % point at 3 degrees of freedom and 1,000 means is 21


@lru_cache(maxsize=1024)
def student(probability: float, df: int) -> float:
    """Quantile of Student's t with `df` degrees of freedom."""
    return float(stdtrit(df, probability))


@lru_cache(maxsize=1024)
def studentized_range(probability: float, means: int, df: int) -> float:
    """Quantile of the range of `means` standard normal values over an independent standard deviation with `df` degrees of freedom."""
    low, high = 0.0, LARGEST
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _range_probability(middle, means, df) < probability else (low, middle)
    return high


def _range_probability(quantile: float, means: int, df: int) -> float:
    """Integrate the distribution of the range of `means` normal values over that of the standard deviation (Gauss-Legendre)."""
    spread = REACH / math.sqrt(2 * df)
    low, high = max(0.0, 1 - spread), 1 + 1.5 * spread
    deviation = (low + high) / 2 + (high - low) / 2 * NODES
    log_density = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2) + (df - 1) * np.log(deviation) - df * deviation**2 / 2
    largest = REACH * NODES
    density = means * np.exp(-(largest**2) / 2) / math.sqrt(2 * math.pi)
    within = (ndtr(largest) - ndtr(largest - quantile * deviation[:, None])) ** (means - 1)  # (deviations, values of the largest)
    inner = within @ (density * REACH * WEIGHTS)
    return float((np.exp(log_density) * (high - low) / 2 * WEIGHTS) @ inner)
