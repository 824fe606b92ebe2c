"""Rounds of trials, shared by all stages: who is compared, who gets another seed, what the budget still buys.

A round is complete or it is not run: what a stage decides next depends on the config and on finished rounds, never on which
worker was first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from operator import attrgetter

from hptune.analysis.candidates import NO_NOISE, Candidate, Noise
from hptune.analysis.race import Leader, in_race, leader
from hptune.analysis.ranking import Ranking, rank
from hptune.stages.base import LONGER_REPETITIONS, Knowledge
from hptune.trial import TrialRecord, TrialSpec, derive_seed, is_result

DISAGREEING = 0.3  # of the lowest loss: seeds further apart than that may be at the edge of stability
Columns = Callable[[TrialSpec], tuple[tuple[str, float | int | str], ...]]
_own = attrgetter(*(field.name for field in fields(TrialSpec) if field.name not in ("seed", "repetition")))
"""What `contender` keeps, at a fifth of its price: stages ask for every record in every round."""


def contender(spec: TrialSpec) -> TrialSpec:
    """The spec without its repetition: equal for all seeds of one candidate."""
    return replace(spec, seed=0, repetition=0)


def repeated(k: Knowledge, spec: TrialSpec, repetition: int) -> TrialSpec:
    """The same candidate on another seed."""
    return replace(spec, repetition=repetition, seed=derive_seed(k.seed, repetition))


def select(done: Iterable[TrialRecord], specs: Iterable[TrialSpec]) -> list[TrialRecord]:
    """The records, on any seed, of the candidates `specs` stand for."""
    wanted = {_own(spec) for spec in specs}
    return [record for record in done if _own(record.spec) in wanted]


def candidates(done: Iterable[TrialRecord], columns: Columns) -> list[Candidate]:
    """Group records by candidate, in the order in which candidates first appear; `columns` names their swept values."""
    groups: dict[object, list[TrialRecord]] = {}
    for record in done:
        groups.setdefault(_own(record.spec), []).append(record)
    return [
        Candidate(values=columns(records[0].spec), hyperparameters=records[0].spec.hyperparameters, records=tuple(records))
        for records in groups.values()
    ]


def ranked(k: Knowledge, done: Iterable[TrialRecord], columns: Columns, *, prior: Noise | None = None) -> Ranking:
    """Rank the candidates of `done` by what the config ranks by, noise of earlier stages pooled in."""
    return rank(
        candidates(done, columns),
        prior=k.noise if prior is None else prior,
        by_metric=k.rank_by == "metric",
        larger_is_better=k.larger_is_better,
    )


def leading(k: Knowledge, done: Iterable[TrialRecord]) -> Leader | None:
    """The best so far by its loss, ramps left out; noise of short runs does not carry over to longer ones."""
    runs = [record for record in done if record.spec.schedule.kind != "ramp"]
    longer = any(record.spec.repetition >= LONGER_REPETITIONS for record in runs)
    return leader(candidates(runs, _no_columns), prior=NO_NOISE if longer else k.noise)


def next_round(k: Knowledge, wanted: Sequence[TrialSpec], done: Sequence[TrialRecord]) -> list[TrialSpec]:
    """The next round of a race among `wanted` (specs on one seed, the most important first); empty when it is over.

    The first round runs every candidate on that seed, as far as the budget reaches; each later one gives the candidates still
    in the race by the pooled deviation their next seed (DESIGN 8), if the budget pays for all of them.
    """
    known = {record.trial_id for record in done}
    first = [spec for spec in wanted if spec.trial_id not in known]
    if affordable := within(k, first, done):
        return affordable
    own = select(done, wanted)
    start = wanted[0].repetition if wanted else 0
    for repetition in range(start + 1, start + k.seeds):
        so_far = candidates([r for r in own if r.spec.repetition < repetition], _no_columns)
        racing = [so_far[i].records[0].spec for i in in_race(so_far, prior=k.noise) if len(so_far[i].records) >= repetition - start]
        following = [repeated(k, spec, repetition) for spec in racing]
        new = [spec for spec in following if spec.trial_id not in known]
        if new:
            return new if within(k, new, done) == new else []
    return []


def seeds_agree(seeds: Sequence[TrialRecord]) -> bool:
    """Whether there are several seeds of a candidate, all with a loss, and within `DISAGREEING` of the lowest."""
    losses = [record.val_loss for record in seeds if record.usable]
    return len(losses) == len(seeds) > 1 and max(losses) - min(losses) < DISAGREEING * min(abs(loss) for loss in losses)


def within(k: Knowledge, specs: Sequence[TrialSpec], done: Sequence[TrialRecord]) -> list[TrialSpec]:
    """The leading `specs` that the stage's allowance still pays for, all of them without one; what earlier stages ran is free."""
    if k.allowance is None:
        return list(specs)
    paid = frozenset(k.history)
    left = k.allowance - sum(k.spent(record) for record in done if record.trial_id not in paid)
    kept: list[TrialSpec] = []
    for spec in specs:
        left -= 0.0 if spec.trial_id in paid else k.cost(spec)
        if left < -1e-9:
            break
        kept.append(spec)
    return kept


def criterion(k: Knowledge, record: TrialRecord) -> float:
    """What the config ranks by, as a number to be made small; infinite where the trial gave none, so that it never wins."""
    if not record.usable or (k.rank_by == "metric" and not is_result(record.metric)):
        return math.inf
    if k.rank_by == "metric":
        return -record.metric if k.larger_is_better else record.metric
    return record.val_loss


def _no_columns(_: TrialSpec) -> tuple[tuple[str, float | int | str], ...]:
    return ()


def by_distance(values: Iterable[float], centre: float) -> list[float]:
    """Sort distinct `values` by their distance from `centre`, which comes first and is added if missing."""
    return [centre, *sorted({v for v in values if v != centre}, key=lambda v: (abs(v - centre), v))]
