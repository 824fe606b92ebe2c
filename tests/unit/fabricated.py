"""A run directory as `hptune run` leaves it, its records made by a formula: the real loop and store, no tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from surfaces import Surface

from hptune import report
from hptune.config.loader import dump_config, from_tree
from hptune.config.schema import Experiment
from hptune.executors.serial import SerialExecutor
from hptune.knowledge import enabled_stages
from hptune.pipeline import run_stage, run_stages
from hptune.running import Run
from hptune.stages import stage_named
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout, write_atomic
from hptune.trial import Curve, Numerics, Task, TrialOutcome, TrialRecord, TrialSpec

TASK = Task(
    task_id="t1",
    identity={},
    train_samples=1280,
    val_samples=320,
    test_samples=320,
    classes=10,
    parameters=100,
    numerics=Numerics(),
    notes=("the validation part is small",),
)
TREE: dict[str, Any] = {
    "name": "made up",
    "data": {"name": "digits"},
    "model": {"name": "linear"},
    "budget": {"epochs": 10, "search_epochs": 2},
    "stages": {"batch_size": {"values": [32, 64, 128], "compare": "samples"}, "refine": {"trials": 2}, "confirm": {"seeds": 3}},
}
ENVIRONMENT = {
    "versions": {"hptune": "0.1.0", "python": "3.11.0"},
    "device": {"device": "cpu"},
    "seed": 0,
    "invocations": [{"command": ["hptune", "run", "my config.yaml"]}, {"command": ["hptune", "run", "my config.yaml"]}],
}


def training(surface: Surface) -> Any:
    """A work function whose curves look like training: the validation loss ends above the training loss."""

    def work(item: tuple[Experiment, TrialSpec]) -> TrialOutcome:
        record = surface(item[1])
        curve = Curve({"step": [1, 2, 3], "lr": [0.1, 0.2, 0.1], "train_loss": [1.0, 0.5, 0.25], "val_loss": [None, None, 0.5]})
        return TrialOutcome(_with_curve(record), curve)

    return work


def fabricate(
    folder: Path,
    *,
    surface: Surface | None = None,
    only: Sequence[str] | None = None,
    stop_after: int | None = None,
    task: Task = TASK,
    **changes: Any,
) -> Path:
    """Run the stages `only` names (all by default) into `folder`, or so many of their events as `stop_after` says.

    `changes` replace top-level config keys.
    """
    loaded = from_tree({**TREE, **changes}, folder.parent)
    layout = RunLayout(folder)
    with Journal(layout.journal) as journal:
        write_atomic(layout.config, dump_config(loaded, layout.root))
        write_atomic(layout.environment, json.dumps(ENVIRONMENT))
        executor = SerialExecutor(training(surface or Surface()))
        run = Run(experiment=loaded.experiment, task=task, executor=executor, journal=journal, layout=layout)
        events: Iterator[Any] = run_stages(run, only or enabled_stages(loaded.experiment))
        list(islice(events, stop_after))
    return folder


def sweep_key(folder: Path, key: str, values: Sequence[Any]) -> None:
    """Add a sweep of another config key to a fabricated run; the values are tasks of their own."""
    loaded = from_tree(TREE, folder.parent)
    layout = RunLayout(folder)
    with Journal(layout.journal) as journal:
        run = Run(experiment=loaded.experiment, task=TASK, executor=SerialExecutor(training(Surface())), journal=journal, layout=layout)
        start = loaded.experiment.baseline_hyperparameters()
        numerics, schedule = ({}, {"kind": "one_cycle", "milestones": [0.5]})
        variants = [
            {
                "value": value,
                "task": f"t-{value}",
                "train_samples": 1280,
                "hyperparameters": {name: getattr(start, name) for name in start.__dataclass_fields__},
                "schedule": schedule,
                "numerics": numerics,
            }
            for value in values
        ]
        list(run_stage(run, key, {"variants": variants}))


def _with_curve(record: TrialRecord) -> TrialRecord:
    curve = record.curve
    if record.spec.schedule.kind == "ramp" or not curve.step:
        return record
    train = tuple(loss * 0.8 ** (i + 1) for i, loss in enumerate(curve.train_loss))
    return replace(record, train_loss=train[-1], curve=replace(curve, train_loss=train))


def many_trials(run: report.Run, *, sweeps: int = 20, candidates: int = 50, seeds: int = 5) -> report.Run:
    """`run` with so many more sweeps of momentum, `sweeps * candidates * seeds` trials in all: what a run of months may hold."""
    pattern, surface = run.stage("momentum"), Surface(noise=0.1)
    values = [0.8 + 0.19 * i / candidates for i in range(candidates)]
    stages = []
    for sweep in range(sweeps):
        k = replace(pattern.knowledge, task=f"task {sweep}")
        specs = [k.short_run(k.start.but(momentum=value), seed) for value in values for seed in range(seeds)]
        records = tuple(training(surface)((None, spec)).record for spec in specs)
        found = stage_named("momentum").conclude(k, records)
        stages.append(replace(pattern, name=f"sweep.{sweep}", knowledge=k, planned=len(specs), records=records, conclusion=found))
    more = [record for stage in stages for record in stage.records]
    return replace(run, stages=(*run.stages, *stages), records=(*run.records, *more))
