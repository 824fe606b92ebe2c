"""Stage 4: a weight-decay grid under 1cycle, extended at its edges, then bisected (arXiv 1803.09820, sections 4.4 and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hptune.analysis.ranking import Ranking, Row
from hptune.analysis.recommendation import Conclusion, timescale_steps
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import comparison, conclusion, nothing_usable
from hptune.stages.rounds import by_distance, next_round, ranked, select
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

EXTENSIONS = 2  # decades the grid may grow at an edge
WORTH_BISECTING = 4.0  # neighbours closer than this factor have nothing useful between them


class WeightDecay:
    """Compares weight decays; zero is a candidate of its own, outside the log scale."""

    name = "weight_decay"

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The grid, a decade more while nothing inside it is as good as its edge, then the exponents halfway to the best's neighbours."""
        values = by_distance(knowledge.settings["values"], knowledge.start.weight_decay)
        for _ in range(EXTENSIONS + 1):
            if new := next_round(knowledge, _runs(knowledge, values), done):
                return new
            beyond = self._beyond(knowledge, values, done)
            if beyond is None:
                break
            values = [*values, beyond]
        values = [value for value in values if _was_run(knowledge, value, done)]
        best = self._best(knowledge, values, done)
        if best is None or not knowledge.settings["bisect"]:
            return []
        return next_round(knowledge, _runs(knowledge, [*values, *halfway(values, best)]), done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the lowest loss; among those within the noise, the middle one on the log scale."""
        k = knowledge
        ranking = ranked(k, done, lambda spec: _columns(k, spec.hyperparameters))
        if ranking.best is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable("weight decay", ranking, done))
        chosen = middle(ranking.near_equal(), ranking.best)
        notes = []
        if self._beyond(k, [row.hyperparameters.weight_decay for row in ranking.rows], done) is not None:
            notes.append("the best weight decay is at the edge of what was tried: widen stages.weight_decay.values")
        sentence = comparison("weight_decay", ranking, chosen, preferred="nearer the middle of the near-equal ones")
        timescale = timescale_epochs(k, chosen.hyperparameters)
        if math.isfinite(timescale):
            sentence += f"; at the peak LR it forgets over {timescale:.3g} epochs"
        return conclusion(self.name, ranking, done, chosen, sentence=sentence, notes=notes)

    def _best(self, k: Knowledge, values: Sequence[float], done: Sequence[TrialRecord]) -> float | None:
        best = self._ranking(k, values, done).best
        return best.hyperparameters.weight_decay if best else None

    def _beyond(self, k: Knowledge, values: Sequence[float], done: Sequence[TrialRecord]) -> float | None:
        """The next decade outward where the best is at the edge and no inner value comes within the noise of it."""
        ranking = self._ranking(k, values, done)
        near = [row.hyperparameters.weight_decay for row in ranking.rows if ranking.within_standard_error(row)]
        outward = {edge(values, value) for value in near}
        return outward.pop() if len(outward) == 1 else None

    def _ranking(self, k: Knowledge, values: Sequence[float], done: Sequence[TrialRecord]) -> Ranking:
        return ranked(k, select(done, _runs(k, values)), lambda spec: _columns(k, spec.hyperparameters))


def edge(values: Sequence[float], best: float) -> float | None:
    """The next decade outward where `best` is the outermost positive value (or zero, below all of them); else None."""
    positive = sorted(value for value in values if value > 0)
    if not positive:
        return None
    if best == positive[-1]:
        return one_figure(best * 10)
    return one_figure(positive[0] / 10) if best in (0.0, positive[0]) else None


def halfway(values: Sequence[float], best: float) -> list[float]:
    """Bisect the exponents between `best` and its neighbours, to one significant figure: 1e-4 and 1e-3 give 3e-4."""
    positive = sorted(value for value in values if value > 0)
    if best not in positive:
        return []
    at = positive.index(best)
    neighbours = positive[max(0, at - 1) : at] + positive[at + 1 : at + 2]
    return [one_figure(math.sqrt(best * other)) for other in neighbours if max(best, other) / min(best, other) >= WORTH_BISECTING]


def middle(near: Sequence[Row], best: Row) -> Row:
    """The middle of the near-equal rows on the log scale; zero only where it is the best and alone."""
    positive = sorted((row for row in near if row.hyperparameters.weight_decay > 0), key=lambda row: row.hyperparameters.weight_decay)
    return positive[len(positive) // 2] if positive else best


def timescale_epochs(k: Knowledge, h: Hyperparameters) -> float:
    """Epochs over which weight decay at the peak LR forgets."""
    return timescale_steps(h, k.optimizer) / max(1, k.train_samples // h.batch_size)


def one_figure(value: float) -> float:
    """One significant figure: what the paper finds worth telling apart."""
    return float(f"{value:.0e}")


def _runs(k: Knowledge, values: Sequence[float]) -> list[TrialSpec]:
    return [k.short_run(k.start.but(weight_decay=value)) for value in values]


def _was_run(k: Knowledge, value: float, done: Sequence[TrialRecord]) -> bool:
    return bool(select(done, _runs(k, [value])))


def _columns(k: Knowledge, h: Hyperparameters) -> tuple[tuple[str, float | int | str], ...]:
    timescale = timescale_epochs(k, h)
    return (("weight_decay", h.weight_decay), ("timescale_epochs", float(f"{timescale:.3g}") if math.isfinite(timescale) else "never"))
