"""What will probably be planned next, so that workers nobody needs can do it ahead.

Possible futures of a run are played through: the trials still pending are completed by made-up records, and the run's own stages say what
they would plan and conclude from those, round after round. What is planned in many futures is likely. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hptune.config.schema import Experiment
from hptune.imagined import Imagination, Known
from hptune.knowledge import Finished, Progress, stage_knowledge
from hptune.sampler import TpeSampler
from hptune.stages import Knowledge, stage_named
from hptune.trial import Task, TrialRecord, TrialSpec

FUTURES = 4
MOST_TRIALS = 1000  # of a stage: beyond, playing it through takes seconds, and its rounds leave nobody idle for long
LATER = 0.9  # times the weight: what comes a round later


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where a run stands, and what comes.

    `planned`: the trials of `stage` so far, in plan order; `records`: all that are known, by trial id. `coming`: the stages after this one
    with their settings, as far as these can be known. `seconds_per_run`: as in `stage_knowledge`.
    """

    experiment: Experiment
    task: Task
    progress: Progress
    stage: str
    knowledge: Knowledge
    planned: Sequence[TrialSpec]
    records: Mapping[str, TrialRecord]
    coming: Mapping[str, Mapping[str, Any]]
    seconds_per_run: float | None = None


class Foresight:
    """What may follow a round of `trials` that are missing, foreseen anew whenever half of those that were pending then are done.

    `patience`: seconds, by `clock`, that one call may take: the driver has other things to do. A later call goes on from there.
    """

    def __init__(self, outlook: Callable[[], Outlook], trials: int, *, clock: Callable[[], float], patience: float) -> None:
        self._outlook = outlook
        self._trials = self._due = trials
        self._clock, self._patience = clock, patience
        self._found: list[TrialSpec] = []
        self._more: Iterator[TrialSpec | None] = iter(())

    def __call__(self, done: Sequence[TrialRecord]) -> Iterator[TrialSpec]:
        """Yield the trials, the most likely first, once those of the round so far are `done`."""
        began = self._clock()
        pending = self._trials - len(done)
        if pending <= self._due:
            self._due, self._found, self._more = pending // 2, [], foresee(self._outlook(), FUTURES)
        yield from self._found
        for spec in self._more:
            if spec is not None:
                self._found.append(spec)
                yield spec
            if self._clock() - began > self._patience:
                return


def foresee(outlook: Outlook, futures: int) -> Iterator[TrialSpec | None]:
    """Yield the trials that may be planned next, once each, and None now and then in between, where finding them takes a while.

    A trial weighs the more the more futures have it, and the sooner. The heaviest comes first, so that futures are played no farther
    than it takes to know it. Nothing is foreseen from stages of more than `MOST_TRIALS`.
    """
    if len(outlook.planned) > MOST_TRIALS:
        return
    known = Known(outlook.records)
    going = [_rounds(outlook, Imagination(known, number)) for number in range(futures)]
    specs: dict[str, TrialSpec] = {}
    weights: dict[str, float] = {}
    over = {*outlook.records, *(spec.trial_id for spec in outlook.planned)}
    weight = 1.0
    while going or weights:
        heaviest = max(weights, key=weights.__getitem__, default=None)
        if heaviest is not None and (not going or weights[heaviest] >= futures * weight):  # what all futures have next weighs no more
            over.add(heaviest)
            del weights[heaviest]
            yield specs[heaviest]
            continue
        for future in list(going):
            new = next(future, None)
            if new is None:
                going.remove(future)
                continue
            for spec in new:
                trial = spec.trial_id
                if trial not in over:
                    specs[trial] = spec
                    weights[trial] = weights.get(trial, 0.0) + weight
            yield None
        weight *= LATER


def _rounds(outlook: Outlook, imagine: Imagination) -> Iterator[list[TrialSpec]]:
    """The rounds that follow in one future."""
    stage, knowledge, progress, planned = outlook.stage, outlook.knowledge, outlook.progress, list(outlook.planned)
    coming = list(outlook.coming.items())
    while True:
        done = [imagine(spec) for spec in planned]
        planner = stage_named(stage, _sampler(knowledge, imagine) if stage == "refine" else None)
        while new := planner.plan(knowledge, done):
            yield new
            done += [imagine(spec) for spec in new]
        if not coming:
            return
        if done:  # else its share of the budget is nothing, and it is passed over
            conclusion = planner.conclude(knowledge, done)
            if conclusion.chosen is None:
                return
            finished = Finished(knowledge=knowledge, records=tuple(done), conclusion=conclusion)
            progress = replace(progress, finished={**progress.finished, stage: finished})
        (stage, settings), planned = coming.pop(0), []
        knowledge = stage_knowledge(
            stage, outlook.experiment, outlook.task, progress, settings=settings, seconds_per_run=outlook.seconds_per_run
        )


def _sampler(knowledge: Knowledge, imagine: Imagination) -> TpeSampler:
    known = (imagine.record(trial) for trial in knowledge.history)
    return TpeSampler(record for record in known if record is not None)
