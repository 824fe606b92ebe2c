"""One quantity of the ranked candidates on the scale it is compared on: adjusted means, intervals, simultaneous comparisons."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from hptune.analysis.additive import AdditiveFit
from hptune.analysis.quantiles import student, studentized_range

MIN_DF = 3  # degrees of freedom below which nothing is claimed: Student's t is 4.3 at two, 12.7 at one
CONFIDENCE = 0.95
NEAR = 0.01  # a safer or cheaper candidate may cost this share
LARGEST_LOG = math.log(sys.float_info.max)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """The log of a quantity where `logarithmic`, else the quantity itself; `sign` is −1 where larger is better.

    `sum_squares` and `df`: pooled residuals of single trials on this scale and their degrees of freedom. Differences of at most
    `rounding` count as none. Candidates are numbered as in `fit`.
    """

    fit: AdditiveFit
    logarithmic: bool
    sign: int
    sum_squares: float
    df: int
    rounding: float

    @property
    def known(self) -> bool:
        """Whether there are degrees of freedom enough to claim anything."""
        return self.df >= MIN_DF

    @property
    def sd(self) -> float:
        """Pooled standard deviation of one trial; NaN without degrees of freedom."""
        return math.sqrt(self.sum_squares / self.df) if self.df > 0 else math.nan

    def mean(self, candidate: int) -> float:
        """Adjusted mean in the quantity's own unit."""
        return self._own_unit(float(self.fit.means[candidate]))

    def interval(self, candidate: int) -> tuple[float, float]:
        """95 % interval of an adjusted mean in the quantity's own unit, the seeds taken as they are; NaN where noise is not known."""
        if not self.known:
            return math.nan, math.nan
        middle = float(self.fit.means[candidate])
        half = student((1 + CONFIDENCE) / 2, self.df) * self.sd * math.sqrt(self.fit.variance(candidate))
        return self._own_unit(middle - half), self._own_unit(middle + half)

    def order(self) -> list[int]:
        """Candidates from best to worst; those that differ by rounding alone stay in the order given."""
        return sorted(range(len(self.fit.means)), key=lambda i: round(self.sign * float(self.fit.means[i]) / self.rounding))

    def gap(self, a: int, b: int) -> float:
        """How much worse `a` is than `b`; negative where it is better."""
        gap = self.sign * float(self.fit.means[a] - self.fit.means[b])
        return gap if abs(gap) > self.rounding else 0.0

    def margin(self, a: int, b: int, confidence: float = CONFIDENCE) -> float:
        """Half width of the simultaneous interval of a difference (Tukey-Kramer); infinite where nothing can be claimed."""
        variance = self.fit.variance_of_difference(a, b)
        if not self.known or math.isinf(variance):
            return math.inf
        return studentized_range(confidence, len(self.fit.means), self.df) * self.sd * math.sqrt(variance / 2)

    def near(self, a: int, b: int) -> bool:
        """Whether `a` costs at most the share `NEAR` of what `b` reaches."""
        allowed = math.log1p(NEAR) if self.logarithmic else NEAR * abs(float(self.fit.means[b]))
        return self.gap(a, b) <= allowed

    def within_standard_error(self, a: int, b: int) -> bool:
        """Whether `a` is at most one standard error of the difference worse than `b`; where that is not known, whether it is `near`."""
        variance = self.fit.variance_of_difference(a, b)
        if not self.known or math.isinf(variance):
            return self.near(a, b)
        return self.gap(a, b) <= self.sd * math.sqrt(variance)

    def _own_unit(self, value: float) -> float:
        return exponential(value) if self.logarithmic else value


def exponential(value: float) -> float:
    """Return e to the `value`, or the largest number there is: intervals of losses that are orders of magnitude apart end nowhere."""
    return math.exp(min(value, LARGEST_LOG))
