"""The error that a part of finite size leaves in a difference of losses: what other samples of the same kind could have said."""

from __future__ import annotations

import math
from collections.abc import Sequence


def block_error(blocks: Sequence[Sequence[float]]) -> float:
    """Standard error of a mean difference from the sampling of a part.

    `blocks` has shape (seeds, blocks): differences of mean losses on equal blocks of the part; NaN for fewer than two blocks.
    """
    means = [sum(column) / len(column) for column in zip(*blocks, strict=True)]
    if len(means) < 2:
        return math.nan
    centre = sum(means) / len(means)
    return math.sqrt(sum((m - centre) * (m - centre) for m in means) / (len(means) - 1) / len(means))
