"""A run directory as a `Run`: the journal replayed, every stage concluded afresh, the recommendation added up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hptune.analysis.recommendation import Longer, Recommendation, recommend
from hptune.config.loader import LoadedConfig, load_config
from hptune.errors import ConfigError, RunDirectoryError
from hptune.report.run import Run, StageResult, missing_stages
from hptune.stages import STAGES, Knowledge, stage_named
from hptune.store.journal import JournalState, replay
from hptune.store.layout import RunLayout, is_run_directory
from hptune.trial import Numerics, Task, known_fields

DEEPEST = 20  # levels of nesting in environment.json; ours has four, and what shows it goes down as deep


def load(path: str | Path) -> Run:
    """Read a run directory, whatever state it is in; nothing is written and no lock is needed.

    Raises RunDirectoryError where `path` is none, JournalError where its journal is damaged or from a newer hptune.

    >>> import hptune
    >>> hptune.load_run("runs/tiny").state
    'finished'
    >>> hptune.load_run("nowhere")
    Traceback (most recent call last):
    hptune.errors.RunDirectoryError: nowhere is no run directory: there is no such directory
    """
    layout = RunLayout(Path(path))
    if not is_run_directory(layout.root):
        what = "holds no journal.jsonl" if layout.root.is_dir() else "there is no such directory"
        raise RunDirectoryError(f"{path} is no run directory: {what}")
    state = replay(layout.journal)
    loaded, remarks = _read_config(layout)
    task = _latest_task(state)
    stages = tuple(_stage(name, state, task, loaded) for name in _in_order(state.plans))
    return Run(
        name=loaded.experiment.name if loaded else layout.root.absolute().name,
        layout=layout,
        config_text=_text(layout.config),
        loaded=loaded,
        environment=_environment(layout),
        task=task,
        stages=stages,
        records=tuple(state.records.values()),
        recommendation=_recommendation(stages, loaded),
        notes=(*remarks, *(task.notes if task else ()), *_stage_notes(stages, task), *_not_run(stages, loaded)),
    )


def _read_config(layout: RunLayout) -> tuple[LoadedConfig | None, tuple[str, ...]]:
    """A config that names an environment variable of another machine must not keep its results from being read."""
    if not layout.config.exists():
        return None, ("the run was stopped before its config was written",)
    try:
        return load_config(layout.config), ()
    except ConfigError as error:
        return None, (f"the config cannot be read here: {error}",)


def _latest_task(state: JournalState) -> Task | None:
    if not state.tasks:
        return None
    payload = list(state.tasks.values())[-1]
    numerics = Numerics(**known_fields(Numerics, payload["numerics"]))
    return Task(**{**known_fields(Task, payload), "numerics": numerics, "notes": tuple(payload["notes"])})


def _in_order(plans: Mapping[str, Any]) -> list[str]:
    """The method's stages in its order, then key sweeps in the run's."""
    return [*(name for name in STAGES if name in plans), *(name for name in plans if name not in STAGES)]


def _stage(name: str, state: JournalState, task: Task | None, loaded: LoadedConfig | None) -> StageResult:
    plan = state.plans[name]
    knowledge = Knowledge.from_json(plan["knowledge"])
    records = tuple(state.records[trial] for trial in plan["trials"] if trial in state.records)
    concluded = state.conclusions.get(name, {}).get("trials")
    finished = len(records) == len(plan["trials"]) == concluded
    enabled = loaded is None or name not in STAGES or bool(getattr(loaded.experiment.stages, name))
    return StageResult(
        name=name,
        knowledge=knowledge,
        planned=len(plan["trials"]),
        records=records,
        conclusion=stage_named(name).conclude(knowledge, records) if records else None,
        finished=finished,
        counts=finished and enabled and (task is None or knowledge.task == task.task_id),
    )


def _recommendation(stages: Sequence[StageResult], loaded: LoadedConfig | None) -> Recommendation | None:
    """Add up the stages that count, at the lengths of the config, or of the latest stage where the config cannot be read."""
    used = [stage for stage in stages if stage.counts]
    if not used:
        return None
    last = used[-1].knowledge
    baseline, optimizer, short, full = last.baseline, last.optimizer, last.short_epochs, last.full_epochs
    if loaded is not None:
        experiment = loaded.experiment
        baseline, optimizer = experiment.baseline_hyperparameters(), experiment.optimizer.name
        short, full = experiment.budget.short_epochs, experiment.budget.epochs
    speeds = next((stage.knowledge.speeds for stage in used if stage.name == "batch_size"), ())
    return recommend(
        [stage.conclusion for stage in used if stage.conclusion is not None],
        baseline=baseline,
        to=Longer(ratio=full / short, samples=full * last.train_samples, optimizer=optimizer, speeds=speeds),
        epochs={0: full} | {size: full * speed for size, speed in speeds},
    )


def _stage_notes(stages: Sequence[StageResult], task: Task | None) -> list[str]:
    notes = []
    for stage in stages:
        if task is not None and stage.knowledge.task != task.task_id:
            notes.append(f"{stage.name} was run before data, model or optimizer settings were changed: it does not count")
        elif not stage.finished:
            notes.append(f"{stage.name} is unfinished: {len(stage.records)} of {stage.planned} planned trials are done")
        elif not stage.counts:
            notes.append(f"{stage.name} was run, but the config no longer has it: it does not count")
    return notes


def _not_run(stages: Sequence[StageResult], loaded: LoadedConfig | None) -> list[str]:
    """A full training alone has no stages; for any other run, say what the config has besides."""
    missing = missing_stages(stages, loaded)
    return [f"not run yet, or passed over since the budget was spent: {', '.join(missing)}"] if stages and missing else []


def _text(path: Path) -> str:
    """What the file holds; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _environment(layout: RunLayout) -> dict[str, Any]:
    """A missing or damaged environment.json hides no results."""
    try:
        content = json.loads(_text(layout.environment) or "{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and not _deeper(content, DEEPEST) else {}


def _deeper(value: Any, levels: int) -> bool:
    """Whether `value` is nested deeper than that."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(part, levels - 1) for part in inside)
