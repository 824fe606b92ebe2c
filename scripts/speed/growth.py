"""Whether a search's own bookkeeping stays as cheap with its thousandth trial as with its tenth."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hptune.config.loader import LoadedConfig, from_tree
from hptune.config.schema import Experiment
from hptune.engine.problem import open_problem
from hptune.engine.worker import perform
from hptune.executors.factory import available_cores, make_executor
from hptune.knowledge import Progress, enabled_stages, stage_knowledge
from hptune.pipeline import resume_progress
from hptune.session import open_session
from hptune.stages import stage_named
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout, write_curve
from hptune.trial import Hyperparameters, Task, TrialSpec, content_hash, derive_seed
from speed.machine import file_system
from speed.options import Options
from speed.processes import isolated, peak_memory, say
from speed.results import Comparison, Spread, Target, at_most

TRIALS = (10, 100, 1000)
TIMED = 1000  # trials at least for each count, so that ten trials are not one short moment: a hundred runs of ten
QUICK_TIMED = 200
STEPS = 3
FLAT = 1.10
GROWN = 10.0  # MiB; a share of what torch alone takes would let a leak of 80 KiB a trial pass
RECORDS, QUICK_RECORDS = 100_000, 10_000
REPLAY_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Trials through `executor`, each waiting for the disk or not."""

    executor: str
    fsync: bool

    def __str__(self) -> str:
        return f"{self.executor}, {'with' if self.fsync else 'without'} fsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Median seconds a trial over runs of one number of trials, and the driver's largest memory in MiB up to there."""

    seconds: float
    memory: float


def compare(options: Options) -> Comparison:
    began = time.perf_counter()
    counts = TRIALS[:2] if options.quick else TRIALS
    timed = QUICK_TIMED if options.quick else TIMED
    cases = [Case(executor=executor, fsync=fsync) for executor in ("serial", "process") for fsync in (True, False)]
    costs: dict[Case, list[dict[int, Cost]]] = {case: [] for case in cases}
    for _ in range(options.repetitions):
        for case in cases:
            costs[case].append(isolated(time_trials, case, counts, timed, str(options.folder)))
            say(f"growth {case}: {', '.join(f'{n} trials {1000 * c.seconds:.1f} ms each' for n, c in costs[case][-1].items())}")
    rows, targets = _judged(costs, counts)
    records = QUICK_RECORDS if options.quick else RECORDS
    replayed = isolated(time_replay, records, str(options.folder))
    return Comparison(
        name="growth",
        title="Growth with the number of trials",
        rows=(*rows, *replayed["rows"]),
        targets=(*targets, _replay_target(records, replayed["seconds"])),
        notes=(
            f"trials of {STEPS} steps of a linear model on digits, journalled as the pipeline does it: curve file, then record; "
            f"file system {file_system(options.folder)}; without fsync it is replaced by nothing",
            f"every count is repeated until {timed} trials are timed, each run with a new journal; workers are started before the clock; "
            "one process goes through the counts in ascending order, so that its largest memory shows what each adds",
            "replay: a real short search is in the journal, and behind it copies of its records under other seeds, as of other "
            "tasks' trials; planning is resume and the next stage's plan",
        ),
        seconds=time.perf_counter() - began,
        raw={
            "costs": [
                {**asdict(case), "measured": [{n: asdict(c) for n, c in one.items()} for one in found]} for case, found in costs.items()
            ],
            "replay": replayed,
        },
    )


def time_trials(case: Case, counts: tuple[int, ...], timed: int, folder: str) -> dict[int, Cost]:
    """Run each count of trials often enough; the time of each run begins with an empty journal and warm workers."""
    if not case.fsync:
        os.fsync = lambda _descriptor: None
    config = _tiny().experiment
    problem = open_problem(config)
    found: dict[int, Cost] = {}
    with make_executor(case.executor, perform, available_cores(), 1) as executor:
        for _ in executor.map([(config, _spec(problem.task, -1 - i)) for i in range(20)]):
            pass
        for trials in counts:
            items = [(config, _spec(problem.task, trials + i)) for i in range(trials)]
            seconds = [_journalled(executor, items, folder) / trials for _ in range(max(1, timed // trials))]
            found[trials] = Cost(seconds=statistics.median(seconds), memory=peak_memory())
    return found


def _journalled(executor: Any, items: list[tuple[Experiment, TrialSpec]], folder: str) -> float:
    """Run and journal `items` as the pipeline does; return its seconds."""
    layout = RunLayout(Path(mkdtemp(dir=folder)))
    began = time.perf_counter()
    with Journal(layout.journal) as journal:
        for _, outcome in executor.map(items):
            write_curve(layout, outcome.record.trial_id, outcome.curve)
            journal.append("trial", outcome.record.to_json())
    seconds = time.perf_counter() - began
    shutil.rmtree(layout.root)
    return seconds


def time_replay(records: int, folder: str) -> dict[str, Any]:
    """Write a journal of `records` trials; time opening it, resuming from it and planning on it."""
    loaded = _tiny()
    root = Path(mkdtemp(dir=folder))
    with open_session(loaded, run_dir=root) as session:
        for _ in session.run():
            pass
        task = session.task
    path = RunLayout(root).journal
    _multiply(path, records)
    stages = enabled_stages(loaded.experiment)
    processor = time.process_time()
    opened, journal = _timed(lambda: Journal(path))
    processor = time.process_time() - processor
    with journal:
        resumed, progress = _timed(lambda: resume_progress(journal, task, stages))
        planned, _ = _timed(lambda: _plan_last(loaded.experiment, task, progress))
        decoded, _ = _timed(lambda: [journal.state.records[trial] for trial in journal.state.records])
        held = len(journal.state.records)
        if held != records or set(progress.finished) != set(stages):
            raise RuntimeError(f"the journal holds {held} records and {', '.join(progress.finished)}: not what was to be measured")
    parts = {"open": opened, "resume": resumed, "plan": planned}
    rows = [{"step": f"{name} with {held} records", "seconds": round(value, 3)} for name, value in parts.items()]
    rows.insert(1, {"step": "opening, processor time", "seconds": round(processor, 3)})
    rows.append({"step": "decoding all records (no part of resuming)", "seconds": round(decoded, 3)})
    rows.append({"step": "journal, MiB", "seconds": round(path.stat().st_size / 2**20, 1)})
    rows.append({"step": "largest memory, MiB", "seconds": round(peak_memory(), 1)})
    return {"rows": rows, "seconds": sum(parts.values())}


def _plan_last(experiment: Experiment, task: Task, progress: Progress) -> list[TrialSpec]:
    """Plan the last stage anew, from nothing done: it has the most to read of what came before."""
    settings = experiment.stages.confirm.model_dump() if experiment.stages.confirm else {}
    return list(stage_named("confirm").plan(stage_knowledge("confirm", experiment, task, progress, settings=settings), []))


def _multiply(path: Path, records: int) -> None:
    """Append copies of the journal's records under further seeds, each with the id of its own spec, until there are `records`."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    originals = [line for line in lines if line["kind"] == "trial"]
    with path.open("a", encoding="utf-8") as file:
        for number in range(records - len(originals)):
            original = originals[number % len(originals)]
            spec = {**original["spec"], "seed": derive_seed(1, number), "repetition": 10**6 + number}
            file.write(json.dumps({**original, "trial_id": content_hash(spec), "spec": spec}) + "\n")


def _tiny() -> LoadedConfig:
    """The config of a search that takes seconds."""
    tree = {
        "name": "growth", "data": {"name": "digits"}, "model": {"name": "linear"}, "budget": {"epochs": 1, "search_epochs": 0.2},
        "stages": {"batch_size": {"compare": "samples"}}, "device": "cpu", "executor": {"name": "serial"},
    }  # fmt: skip
    return from_tree(tree, Path.cwd())


def _spec(task: Task, number: int) -> TrialSpec:
    own = Hyperparameters(lr=0.05, batch_size=32, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
    knowledge = stage_knowledge("lr_range", _tiny().experiment, task, Progress(), settings={})
    return knowledge.run(own, epochs=1, repetition=number, steps=STEPS, evaluate_at=(STEPS,), validation_limit=64)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def _judged(costs: dict[Case, list[dict[int, Cost]]], counts: tuple[int, ...]) -> tuple[list[dict[str, Any]], list[Target]]:
    rows, targets = [], []
    few, many = counts[0], counts[-1]
    for case, found in costs.items():
        for n in counts:
            seconds, memory = Spread.of([1000 * one[n].seconds for one in found]), Spread.of([one[n].memory for one in found])
            rows.append({**asdict(case), "trials": n, "ms a trial": str(seconds), "largest memory, MiB": str(memory)})
        slower = Spread.of([one[many].seconds / one[few].seconds for one in found])
        grown = Spread.of([one[many].memory - one[few].memory for one in found])
        targets.append(at_most(f"{case}: {many} trials over {few}, time a trial", FLAT, slower.median))
        targets.append(at_most(f"{case}: {many} trials over {few}, MiB more", GROWN, grown.median))
    return rows, targets


def _replay_target(records: int, seconds: float) -> Target:
    target = at_most(f"open, resume and plan with {records} records, s", REPLAY_SECONDS, seconds)
    return target if records == RECORDS else replace(target, met=None, wanted=f"{target.wanted} with {RECORDS}")
