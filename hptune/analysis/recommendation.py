"""Conclusions of stages, and the recommendation they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hptune.analysis.ranking import Noise, Row
from hptune.trial import Hyperparameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What one stage found.

    `sentence` says it with its numbers; `chosen` goes on to the next stage (None: nothing usable was found); `rows` is the ranked
    table; `noise` the deviation seen in this stage's own short runs; `detail` JSON values for charts and exports.
    """

    stage: str
    sentence: str
    notes: tuple[str, ...] = ()
    chosen: Hyperparameters | None = None
    rows: tuple[Row, ...] = ()
    noise: Noise = Noise()
    trials: int = 0
    samples: int = 0
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
