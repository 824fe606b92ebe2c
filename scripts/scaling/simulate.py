"""One run of the real pipeline on simulated workers, and what its schedule came to."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hptune import dispatch
from hptune.config.schema import Experiment
from hptune.knowledge import enabled_stages
from hptune.pipeline import run_stage, run_stages
from hptune.running import Event, RoundPlanned, Run, StageConcluded, StageStarted, TrialDone
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout
from hptune.trial import Calibration, CalibrationRequest, Curve, Numerics, Task, TrialOutcome, TrialRecord, TrialSpec
from scaling.costs import Costs
from scaling.executor import Clock, SimulatedExecutor

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "unit"))
from surfaces import Surface

MEMORY = Path("/dev/shm")  # where there is one, forcing a line to the disk costs nothing


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A run to be simulated: `changes` to the config's defaults, or a sweep of so many batch sizes on its own."""

    name: str
    changes: dict[str, Any]
    sweep: int = 0


KINDS = (
    Kind(name="default", changes={}),
    Kind(name="budget 64, 8 seeds", changes={"budget": {"search": 64}, "seeds": 8}),
    Kind(name="sweep of 1,000 trials", changes={"seeds": 2}, sweep=500),
)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What became of a run; seconds are virtual; those of the driver, `driver`, are what it really computed meanwhile.

    `work`: worker-seconds of the trials that were planned. `path`: the longest trial of each round, one after the other. `idle`:
    worker-seconds nobody used, by stage; the time of trials that ran ahead for nothing, `wasted`, is not idle.
    """

    kind: str
    costs: str
    repetition: int
    workers: int
    foresight: bool
    order: str
    seconds: float
    work: float
    path: float
    rounds: int
    trials: int
    begun_ahead: int
    used: int
    wasted: float
    idle: dict[str, float]
    spans: dict[str, float]
    driver: float
    result: str


def simulate(kind: Kind, costs: Costs, repetition: int, workers: int, *, foresight: bool, order: str = "longest first") -> Schedule:
    """Run `kind` on so many workers; `repetition` is the seed of surface and config."""
    clock, work = Clock(), _Work(costs, repetition)
    executor = SimulatedExecutor(workers, clock, work, start_seconds=costs.start, driver=costs.driver)
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    usual = dispatch.longest_first
    if order == "as planned":
        dispatch.longest_first = lambda specs, _records: list(specs)
    try:
        layout = RunLayout(folder / "run")
        with Journal(layout.journal) as journal:
            run = Run(
                experiment=_experiment(kind, repetition),
                task=_task(costs),
                executor=executor,
                journal=journal,
                layout=layout,
                clock=clock,
                foresight=foresight,
            )
            watched = _Watched()
            for event in _events(run, kind):
                watched.see(event, clock())
            return _schedule(kind, costs, repetition, order, run, executor, work, watched)
    finally:
        dispatch.longest_first = usual
        shutil.rmtree(folder)


class _Work:
    """What items give and take: a made-up surface for the losses, measured costs for the seconds."""

    def __init__(self, costs: Costs, repetition: int) -> None:
        draw = random.Random(repetition)
        self.surface = Surface(
            lr=10 ** draw.uniform(-1.5, 0.0),
            weight_decay=10 ** draw.uniform(-4.5, -2.5),
            momentum=draw.uniform(0.85, 0.97),
            batch_size=2 ** draw.randint(5, 8),
            noise=draw.choice([0.005, 0.02]),
            diverges_above=10 ** draw.uniform(0.0, 0.5),
        )
        self.costs = costs
        self.seconds: dict[str, float] = {}
        self.asked: list[str] = []

    def __call__(self, item: tuple[Experiment, TrialSpec | CalibrationRequest, Any]) -> tuple[Any, float]:
        request = item[1]
        size = request.hyperparameters.batch_size
        if isinstance(request, CalibrationRequest):
            step = self.costs.seconds_per_step(size)
            return Calibration(batch_size=size, seconds_per_step=step, seconds_per_evaluated_sample=0.0), request.steps * step
        record = self.surface(request)
        seconds = self.costs.seconds(record.samples, size)
        self.seconds[request.trial_id] = seconds
        self.asked.append(request.trial_id)
        return TrialOutcome(replace(record, seconds=seconds), Curve({"step": [1]})), seconds


class _Watched:
    """The longest trial of each round, and when stages began and ended."""

    def __init__(self) -> None:
        self.rounds: list[list[TrialRecord]] = []
        self.spans: dict[str, tuple[float, float]] = {}
        self.trials = 0

    def see(self, event: Event, now: float) -> None:
        match event:
            case StageStarted(stage=stage):
                begins = max((end for _, end in self.spans.values()), default=0.0)  # measuring speeds is part of the stage
                self.spans[stage] = (begins, now)
            case RoundPlanned():
                self.rounds.append([])
            case TrialDone(record=record):
                self.rounds[-1].append(record)
                self.trials += 1
            case StageConcluded(conclusion=conclusion):
                self.spans[conclusion.stage] = (self.spans[conclusion.stage][0], now)
            case _:
                pass


def _experiment(kind: Kind, repetition: int) -> Experiment:
    tree = {"name": "simulated", "data": {"name": "digits"}, "model": {"name": "linear"}, "seed": repetition}
    return Experiment.model_validate({**tree, **kind.changes})


def _task(costs: Costs) -> Task:
    return Task(
        task_id="simulated",
        identity={},
        train_samples=costs.train_samples,
        val_samples=costs.val_samples,
        test_samples=costs.val_samples,
        classes=10,
        parameters=1000,
        numerics=Numerics(),
    )


def _events(run: Run, kind: Kind) -> Iterator[Event]:
    if not kind.sweep:
        return run_stages(run, enabled_stages(run.experiment))
    own = run.experiment.baseline_hyperparameters()
    sizes = sorted({round(16 * 16 ** (i / kind.sweep)) for i in range(kind.sweep)})
    lrs = [0.05 * 1.5**i for i in range(-(-kind.sweep // len(sizes)))]
    pairs = itertools.islice(itertools.product(lrs, sizes), kind.sweep)
    variants = [
        {
            "value": f"{size}, {lr:.3g}",
            "task": run.task.task_id,
            "train_samples": run.task.train_samples,
            "hyperparameters": asdict(own.but(batch_size=size, lr=lr)),
            "schedule": asdict(run.experiment.schedule.schedule()),
            "numerics": asdict(run.task.numerics),
        }
        for lr, size in pairs
    ]
    return run_stage(run, "batch size and LR", {"variants": variants})


def _schedule(
    kind: Kind,
    costs: Costs,
    repetition: int,
    order: str,
    run: Run,
    executor: SimulatedExecutor,
    work: _Work,
    watched: _Watched,
) -> Schedule:
    records = run.journal.state.records
    end = executor.clock()
    spent = sum(work.seconds[trial] for trial in work.asked if trial in records)
    busy = sum(min(b.ended, end) - b.began for b in executor.busy if b.began < end)
    return Schedule(
        kind=kind.name,
        costs=costs.name,
        repetition=repetition,
        workers=executor.workers,
        foresight=run.foresight,
        order=order,
        seconds=end,
        work=spent,
        path=sum(max((r.seconds for r in own), default=0.0) for own in watched.rounds),
        rounds=len(watched.rounds),
        trials=watched.trials,
        begun_ahead=len(run.begun_ahead),
        used=sum(trial in records for trial in run.begun_ahead),
        wasted=max(0.0, busy - spent),
        idle={stage: _idle(executor, *span) for stage, span in watched.spans.items()},
        spans={stage: b - a for stage, (a, b) in watched.spans.items()},
        driver=executor.clock.driver,
        result=str({name: c["chosen"] for name, c in run.journal.state.conclusions.items()}),
    )


def _idle(executor: SimulatedExecutor, began: float, ended: float) -> float:
    busy = sum(max(0.0, min(b.ended, ended) - max(b.began, began)) for b in executor.busy)
    return executor.workers * (ended - began) - busy
