"""One sweep of so many trials through the real loop, with a training that costs nothing, and everything that is read from it after."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hptune import report
from hptune.cli.progress import Tracker
from hptune.config.loader import LoadedConfig, dump_config, from_tree
from hptune.executors import make_executor
from hptune.knowledge import Progress, stage_knowledge
from hptune.pipeline import resume_progress, run_stage, run_stages
from hptune.running import Run, TrialDone
from hptune.stages import stage_named
from hptune.store.journal import Journal, replay
from hptune.store.layout import RunLayout, write_atomic
from hptune.trial import Numerics, Task
from scale.work import perform
from speed.processes import peak_memory

SEEDS = 4
EARLIER = ("lr_range", "weight_decay")  # stages of the method before the sweep, so that there is something to recommend
KEY = "baseline.weight_decay"
TASK = Task(
    task_id="made-up", identity={}, train_samples=1280, val_samples=320, test_samples=0, classes=10, parameters=100, numerics=Numerics()
)
LOOKS = 0.5  # seconds between two looks of a terminal at what is best so far


@dataclass(slots=True)
class Clock:
    """Seconds spent in each part of a program, those inside another part taken out of it."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted as that of `part`."""

        def call(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return call


class Watched:
    """An executor of which the time until each result counts as that of the part `executor`."""

    def __init__(self, executor: Any, clock: Clock) -> None:
        self._executor, self._clock = executor, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def map(self, items: Sequence[Any]) -> Iterator[Any]:
        return self._watched(self._executor.map(items))

    def results(self) -> Iterator[Any]:
        return self._watched(self._executor.results())

    def _watched(self, results: Iterator[Any]) -> Iterator[Any]:
        following = self._clock.timed("executor", lambda: next(results, None))
        while (result := following()) is not None:
            yield result


def measure(trials: int, executor: str, workers: int, folder: str, figures: bool) -> dict[str, Any]:
    """Plan, run and journal a sweep of `trials`, rank it and write tables and, with `figures`, the report; return seconds and MiB."""
    loaded = _config()
    layout = RunLayout(Path(folder))
    write_atomic(layout.config, dump_config(loaded, layout.root))
    write_atomic(layout.environment, json.dumps({"seed": 0}))
    with Journal(layout.journal) as journal, make_executor(executor, perform, workers, 1) as inner:
        for _ in inner.map([(spec,) for spec in _warming(loaded)]):
            pass
        run = Run(experiment=loaded.experiment, task=TASK, executor=inner, journal=journal, layout=layout)
        for _ in run_stages(run, EARLIER):
            pass
        before, memory = len(journal.state.records), peak_memory()
        clock = Clock()
        run.executor = Watched(inner, clock)  # type: ignore[assignment]
        with _watched(clock):
            seconds, looks = _sweep(run, trials)
    done = len(replay(layout.journal).records) - before
    if done != trials:
        raise RuntimeError(f"{done} trials are in the journal instead of {trials}")
    made_up = sum(record.seconds for record in report.load(layout.root).records[before:]) if executor == "serial" else 0.0
    parts = clock.seconds | {"executor": clock.seconds["executor"] - made_up}
    parts["pipeline"] = seconds - sum(clock.seconds.values())
    return {
        "parts": parts,
        "looking": looks,
        "memory": {"before": memory, "sweep": peak_memory()},
        "reading": {} if executor != "serial" else _read(layout, trials, figures),
        "sizes": {"journal": layout.journal.stat().st_size},
    }


def _sweep(run: Run, trials: int) -> tuple[float, dict[str, float]]:
    """Run the sweep; return its seconds, and apart from them what a terminal's looks at the best so far take, by their number."""
    tracker, looks = Tracker(stages=(KEY,)), []
    paused, began = 0.0, time.perf_counter()
    last = began
    for event in run_stage(run, KEY, {"variants": _variants(run, trials // SEEDS)}):
        now = time.perf_counter()
        tracker.take(event, now)
        if isinstance(event, TrialDone) and now - last >= LOOKS:
            tracker.lines(now, 120)
            last = time.perf_counter()
            looks.append(last - now)
            paused += last - now
    return time.perf_counter() - began - paused, {"looks": len(looks), "seconds": sum(looks), "longest": max(looks, default=0.0)}


def _read(layout: RunLayout, trials: int, figures: bool) -> dict[str, float]:
    """Seconds of each thing that commands do with a run directory."""
    found: dict[str, float] = {}

    def timed(what: str, function: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = function()
        found[what] = time.perf_counter() - began
        return result

    state = timed("replay", lambda: replay(layout.journal))
    records = timed("decode", lambda: [state.records[trial] for trial in state.records])
    run = timed("load", lambda: report.load(layout.root))
    stage = run.stage(KEY)
    if len(stage.records) != trials:
        raise RuntimeError(f"the sweep has {len(stage.records)} trials instead of {trials}")
    timed("rank", lambda: stage_named(KEY).conclude(stage.knowledge, stage.records))
    timed("next round", lambda: stage_named(KEY).plan(stage.knowledge, stage.records))
    with Journal(layout.journal) as journal:
        timed("resume", lambda: resume_progress(journal, TASK, (*EARLIER, KEY)))
    timed("tables", lambda: report.write_results(run))
    if figures:
        timed("report", lambda: report.write_report(run))
        found["report, MiB"] = layout.report.stat().st_size / 2**20
    found["memory"] = peak_memory()
    if len(records) < trials:
        raise RuntimeError("records are missing")
    return found


def _watched(clock: Clock) -> Any:
    """A context in which the journal, curves and fsync are timed, wherever they are called from."""
    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(os, "fsync", clock.timed("fsync", os.fsync)))
    stack.enter_context(patch.object(Journal, "append", clock.timed("journal", Journal.append)))
    users = [module for name, module in sys.modules.items() if name.startswith("hptune.") and hasattr(module, "write_curve")]
    for module in users:
        stack.enter_context(patch.object(module, "write_curve", clock.timed("curve", module.write_curve)))
    return stack


def _config() -> LoadedConfig:
    tree = {
        "name": "scale", "data": {"name": "digits"}, "model": {"name": "linear"}, "budget": {"epochs": 10, "search_epochs": 2},
        "seeds": SEEDS, "stages": {"weight_decay": {"values": [1e-2, 1e-3, 1e-4]}},
    }  # fmt: skip
    return from_tree(tree, Path.cwd())


def _variants(run: Run, values: int) -> list[dict[str, Any]]:
    """Weight decays between 1e-4 and 1e-2, as a session makes a sweep's variants."""
    start, schedule = run.experiment.baseline_hyperparameters(), run.experiment.schedule.schedule()
    decays = [10 ** (-4 + 2 * (i + 0.37) / values) for i in range(values)]  # none that an earlier stage has tried
    return [
        {
            "value": decay,
            "task": TASK.task_id,
            "train_samples": TASK.train_samples,
            "hyperparameters": asdict(start.but(weight_decay=decay)),
            "schedule": asdict(schedule),
            "numerics": asdict(TASK.numerics),
        }
        for decay in decays
    ]


def _warming(loaded: LoadedConfig) -> list[Any]:
    """A few trials of nobody's, so that workers have loaded their code."""
    knowledge = stage_knowledge(KEY, loaded.experiment, TASK, Progress(), settings={})
    return [knowledge.short_run(knowledge.start, repetition=-1 - i) for i in range(20)]
