"""Stage 3: short 1cycle runs at several momenta (arXiv 1803.09820, section 4.3; a momentum range test does not work, Fig. 7b)."""

from __future__ import annotations

from collections.abc import Sequence

from hptune.analysis.recommendation import Conclusion
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import comparison, conclusion, nothing_usable
from hptune.stages.rounds import by_distance, next_round, ranked
from hptune.trial import TrialRecord, TrialSpec


class Momentum:
    """Compares the momentum from which a cyclical run falls to its minimum and returns."""

    name = "momentum"

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """Every value on the first seed, further seeds for those in the race.

        The LR stays: under cycled momentum the best one hardly moves with the maximum.
        """
        low = float(knowledge.settings["minimum"])
        values = by_distance(knowledge.settings["values"], knowledge.start.momentum)
        wanted = [knowledge.start.but(momentum=value, momentum_min=min(low, value)) for value in values]
        return next_round(knowledge, [knowledge.short_run(h) for h in wanted], done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the lowest loss; a lower momentum where the difference is within the noise."""
        ranking = ranked(knowledge, done, _columns)
        if ranking.best is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable("momentum", ranking, done))
        chosen = min(ranking.near_equal(), key=lambda row: row.hyperparameters.momentum)
        sentence = comparison("momentum", ranking, chosen, preferred="lower and so safer")
        return conclusion(self.name, ranking, done, chosen, sentence=sentence)


def _columns(spec: TrialSpec) -> tuple[tuple[str, float | int | str], ...]:
    return (("momentum", spec.hyperparameters.momentum), ("momentum_min", spec.hyperparameters.momentum_min))
