"""The network and data of a setup: which trainings there are to ask for, and who performs them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from hptune.analysis.curves import read_ramp, summarize_ranges
from hptune.config.schema import Experiment
from hptune.errors import StageError
from hptune.knowledge import Progress, stage_knowledge
from hptune.schedules import Point, Schedule, tabulate
from hptune.stages import Knowledge
from hptune.stages.lr_range import RANGE_POINTS, range_samples, round_lr
from hptune.trial import Hyperparameters, StopRule, Task, TrialRecord, TrialSpec
from paper.race import Result

T = TypeVar("T")
Asking = Generator[list[TrialSpec], list[TrialRecord], T]
"""Yields the trials it needs, is sent their records in the same order, and returns what it makes of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What `hptune run` recommends for the full length, and what all of it cost, in full trainings."""

    own: Hyperparameters
    cost: float


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A setup, open. `setup`: its name; `title`: in words. `margin`: per cent of accuracy within which two settings are as good.

    `speeds`: samples per second of batch sizes relative to the config's. `search`: what `hptune run` finds. `race`: what each
    contestant reaches within so many minutes, at a repetition. `paper`: the report's figures, and what else the setup says to a claim.
    """

    setup: str
    title: str
    margin: float
    experiment: Experiment
    task: Task
    speeds: Callable[[Sequence[int]], tuple[tuple[int, float], ...]]
    search: Callable[[], Searched]
    race: Callable[[float, int], Mapping[str, Result]]
    paper: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def knowledge(self) -> Knowledge:
        """What trials follow from besides their own settings."""
        return stage_knowledge("lr_range", self.experiment, self.task, Progress(), settings={})

    @property
    def authors(self) -> Hyperparameters:
        """The author's setting, the config's baseline."""
        return self.experiment.baseline_hyperparameters()

    @property
    def seeds(self) -> range:
        """Repetitions that every setting gets."""
        return range(self.experiment.seeds)

    @property
    def epochs(self) -> float:
        """Those of a full training."""
        return self.experiment.budget.epochs

    @property
    def one_cycle(self) -> Schedule:
        """The config's."""
        return self.experiment.schedule.schedule()

    def run(self, own: Hyperparameters, seed: int, *, length: float = 1.0, **changes: Any) -> TrialSpec:
        """A training of `length` times the full one, its test part measured at the end."""
        return self.knowledge.run(own, epochs=self.epochs * length, repetition=seed, **{"test": self.task.test_samples > 0, **changes})

    def runs(self, own: Hyperparameters, *, length: float = 1.0, **changes: Any) -> list[TrialSpec]:
        """One on each seed."""
        return [self.run(own, seed, length=length, **changes) for seed in self.seeds]

    def ramps(
        self, *, length: float = 1.0, shape: Literal["exponential", "linear"] = "exponential", max_lr: float | None = None, **changes: Any
    ) -> list[TrialSpec]:
        """LR range tests of `length` times a full training, one on each seed, at the author's other settings or `changes` of these."""
        section = self.experiment.stages.lr_range
        assert section
        assert section.min_lr is not None
        assert section.max_lr is not None
        own = self.authors.but(lr=max_lr or section.max_lr, **changes)
        schedule = Schedule(kind="ramp", shape=shape, min_lr=section.min_lr)
        return self.range_tests(replace(own, momentum_min=own.momentum), schedule, length=length)

    def range_tests(self, own: Hyperparameters, schedule: Schedule, *, length: float) -> list[TrialSpec]:
        """Short of a training: measured at many points, on part of the validation samples."""
        steps = self.knowledge.steps(self.epochs * length, own.batch_size)
        return self.runs(
            own,
            schedule=schedule,
            steps=steps,
            evaluate_at=tuple(sorted({max(1, round(steps * (i + 1) / RANGE_POINTS)) for i in range(RANGE_POINTS)})),
            validation_limit=min(range_samples(steps * own.batch_size), self.task.val_samples),
            stop=StopRule(window=max(1, steps // RANGE_POINTS), relative_to_best=True),
            test=False,
        )

    def settled(self) -> Asking[Hyperparameters]:
        """The author's setting with the LR that range tests of the full length suggest. Raises StageError where they suggest none."""
        ramps = yield self.ramps()
        lr = self.suggestion(ramps)
        if lr is None:
            raise StageError(f"{self.title}: no LR of {self.experiment.stages.lr_range} can be suggested")
        return self.authors.but(lr=round_lr(lr))

    def suggestion(self, ramps: Sequence[TrialRecord]) -> float | None:
        """The maximum LR that range tests suggest together, as hptune reads them."""
        readings = [read_ramp(record.curve) for record in ramps]
        some = ramps[0].spec
        return summarize_ranges(readings, min_lr=some.schedule.min_lr, max_lr=some.hyperparameters.lr).lr_max

    def at_constant_lr(self, *, cycled: bool) -> Schedule:
        """A constant LR, with the momentum constant too, or falling and rising as under 1cycle."""
        if not cycled:
            return Schedule(kind="constant")
        peak, end = self.one_cycle.warmup_fraction, 1 - self.one_cycle.tail_fraction
        return Schedule(kind="points", points=(Point(0.0), Point(peak, momentum=0.0), Point(end), Point(1.0)))

    def branched(self, before: float) -> Schedule:
        """1cycle whose weight decay up to the peak of the LR is `before` times the trial's own (Fig. 12's snapshots at the peak)."""
        cycle = self.one_cycle
        peak, end, base = cycle.warmup_fraction, 1 - cycle.tail_fraction, 1 / cycle.lr_ratio
        last = base / cycle.tail_ratio
        points = (Point(0.0, base, 1.0, before), Point(peak, 1.0, 0.0, before), Point(peak, 1.0, 0.0), Point(end, last), Point(1.0, last))
        return Schedule(kind="points", points=points)

    def step_schedule(self) -> Schedule:
        """A tenth of the LR from half of the run on, a hundredth from three quarters on."""
        return Schedule(kind="step", milestones=(0.5, 0.75), gamma=0.1)

    def forgetting(self, spec: TrialSpec) -> float:
        """Mean of LR / (1 - momentum) over the steps of a training: times the weight decay, what a step takes off the weights."""
        own = spec.hyperparameters
        table = tabulate(spec.schedule, steps=spec.steps, lr=own.lr, momentum=own.momentum, momentum_min=own.momentum_min)
        return float(np.mean(table.lr / (1 - table.momentum)))


def by_name(specs: Mapping[Any, Sequence[TrialSpec]]) -> Asking[dict[Any, list[TrialRecord]]]:
    """Ask for several settings at once; their records by the settings' names."""
    flat = [spec for own in specs.values() for spec in own]
    known = {record.trial_id: record for record in (yield flat)}
    return {name: [known[spec.trial_id] for spec in own] for name, own in specs.items()}
