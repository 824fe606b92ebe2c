"""What the loop works with, and what it tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hptune.analysis.recommendation import Conclusion
from hptune.config.schema import Experiment
from hptune.executors.base import Executor
from hptune.knowledge import Progress
from hptune.stages import Knowledge
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout
from hptune.trial import CalibrationRequest, Task, TrialOutcome, TrialRecord, TrialSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins, from `knowledge`."""

    stage: str
    knowledge: Knowledge


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlanned:
    """A round of `trials` was planned; the `known` ones of them are in the journal already."""

    stage: str
    trials: int
    known: tuple[TrialRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDone:
    """One trial ended and is in the journal."""

    stage: str
    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConcluded:
    """A stage is finished."""

    conclusion: Conclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something worth saying on the way."""

    text: str


Event = StageStarted | RoundPlanned | TrialDone | StageConcluded | Remark


@dataclass(slots=True, kw_only=True)
class Run:
    """What the loop works with; `progress` grows as stages finish.

    `variants` maps the task ids of a key sweep to their experiments; `clock` counts seconds and never goes back. `most_workers`: how
    many trials at once are to be tried on each device, before the first round, to find what it does best with; 1 where that is settled.
    `leads`: by task id, what goes to the workers with every item of that task: how they find what this process has loaded already.
    `underway`: the trials that the executor has, by their numbers there. `begun_ahead`: those that idle workers began before they were
    planned. `ahead`: what came of these; it is in no journal and no table until it is planned. `foresight`: whether they do so.
    `coming`: the stages that follow, with their settings.
    """

    experiment: Experiment
    task: Task
    executor: Executor
    journal: Journal
    layout: RunLayout
    variants: Mapping[str, Experiment] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    clock: Callable[[], float] = time.monotonic
    most_workers: int = 1
    leads: Mapping[str, Any] = field(default_factory=dict)
    underway: dict[int, TrialSpec] = field(default_factory=dict)
    begun_ahead: set[str] = field(default_factory=set)
    ahead: dict[str, TrialOutcome] = field(default_factory=dict)
    foresight: bool = False
    coming: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def item(self, request: TrialSpec | CalibrationRequest) -> tuple[Experiment, TrialSpec | CalibrationRequest, Any]:
        """What a worker gets for a trial or a calibration."""
        task = request.task if isinstance(request, TrialSpec) else self.task.task_id
        return self.variants.get(task, self.experiment), request, self.leads.get(task)
