"""A comparison that is still under way: who leads, and who is worth another seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hptune.analysis.candidates import FAR_OFF, NO_NOISE, Candidate, Noise, is_usable, loss_scale
from hptune.analysis.scale import Scale
from hptune.trial import Hyperparameters

RACE_DEVIATIONS = 4.0  # of a difference of two trials: what lies further behind is out of the race
RACE_CONFIDENCE = 0.995  # and not told apart at this level: dropping sooner, where noise is known poorly, costs false claims
RACE_SHARE = 0.05  # a candidate this near to the best stays in the race, however small the noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The best candidate of a comparison still under way: adjusted mean loss, 95 % interval as in `Row`."""

    hyperparameters: Hyperparameters
    val_loss: float
    val_loss_low: float
    val_loss_high: float


def leader(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE) -> Leader | None:
    """Return the candidate that leads by its loss, as `rank` would see it, but for the price of no comparison; None without any usable."""
    usable = [candidate for candidate in candidates if is_usable(candidate, by_metric=False)]
    if not usable:
        return None
    scale, _ = loss_scale(usable, prior, far_tell=True)
    best = scale.order()[0]
    low, high = scale.interval(best)
    return Leader(hyperparameters=usable[best].hyperparameters, val_loss=scale.mean(best), val_loss_low=low, val_loss_high=high)


def in_race(candidates: Sequence[Candidate], *, prior: Noise = NO_NOISE) -> tuple[int, ...]:
    """Return the indices of the candidates worth another seed: those the pooled deviation does not rule out yet.

    They lie within four standard deviations of a difference of two trials of the best, within the simultaneous interval of that
    difference at `RACE_CONFIDENCE`, or within 5 % of its loss; without enough degrees of freedom, within a factor of two (where
    losses are not all positive: anywhere). All their trials completed.
    """
    usable = [i for i, candidate in enumerate(candidates) if is_usable(candidate, by_metric=False)]
    if not usable:
        return ()
    scale, _ = loss_scale([candidates[i] for i in usable], prior)
    best = scale.order()[0]
    return tuple(i for at, i in enumerate(usable) if scale.gap(at, best) <= _race_margin(scale, at, best))


def _race_margin(scale: Scale, at: int, best: int) -> float:
    if not scale.known:
        return FAR_OFF if scale.logarithmic else math.inf
    share = math.log1p(RACE_SHARE) if scale.logarithmic else RACE_SHARE * abs(scale.mean(best))
    return max(share, RACE_DEVIATIONS * scale.sd * math.sqrt(2), scale.margin(at, best, RACE_CONFIDENCE))
