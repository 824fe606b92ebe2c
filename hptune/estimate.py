"""What a run will do and cost, before it is run: the stages are planned against made-up records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptune.config.expansion import variables
from hptune.config.fields import is_file_target
from hptune.config.loader import LoadedConfig, dump_config
from hptune.config.schema import Experiment
from hptune.executors import resolve
from hptune.imagined import ramped
from hptune.knowledge import Finished, Progress, enabled_stages, seconds_per_short_run, stage_knowledge
from hptune.report.trackers import require
from hptune.session import default_run_dir
from hptune.stages import Knowledge, stage_named
from hptune.stages.refine import Space
from hptune.travel import user_code
from hptune.trial import Calibration, CalibrationRequest, Hyperparameters, Numerics, Task, TrialRecord, TrialSpec

FEWEST_HELD_OUT, FEWEST_OF_A_CLASS = 50, 10  # validation samples: one more of fifty right is 2 % of accuracy
FEWEST_STEPS = 10  # of a short run: under 1cycle each of its phases has but a few


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """One stage's expected trials, optimizer steps, training samples and wall seconds; what it finds may change them.

    `longest`: epochs of its longest trial.
    """

    stage: str
    trials: int
    steps: int
    samples: int
    longest: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What `hptune check` found: the data and model as opened, the plan with its cost, and whose code a run executes.

    `memory`: bytes that a process took at most so far, on a GPU of the GPU's, None where nothing tells.
    """

    name: str
    run_dir: str
    device: str
    device_model: str
    precision: str
    numerics: Numerics
    train_samples: int
    val_samples: int
    test_samples: int
    classes: int
    parameters: int
    workers: int
    seconds_per_step: float
    memory: int | None
    stages: tuple[StageEstimate, ...]
    seconds: float
    user_code: tuple[str, ...]
    code_files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What can be said of a config without opening or running anything it names.

    `code`: the files that a run executes, and modules that are imported by name. `files`: data and weights that it reads.
    `variables`: environment variables whose values go into the config. `config`: the resolved config as YAML.
    """

    name: str
    run_dir: str
    stages: tuple[str, ...]
    code: tuple[str, ...]
    files: tuple[str, ...]
    variables: tuple[str, ...]
    config: str


def outline(loaded: LoadedConfig) -> Outline:
    """Say what a run of this config would execute and read; none of it is executed, imported or opened, source text aside."""
    experiment = loaded.experiment
    named = (experiment.data.root, experiment.data.path, experiment.model.pretrained)
    return Outline(
        name=experiment.name,
        run_dir=str(default_run_dir(experiment)),
        stages=tuple(enabled_stages(experiment)),
        code=code_files(experiment),
        files=tuple(str(path) for path in named if path is not None),
        variables=variables(loaded.tree),
        config=dump_config(loaded, loaded.directory),
    )


def code_files(experiment: Experiment) -> tuple[str, ...]:
    """The files that a run executes: each target's own and the modules beside it that it imports; a module's name where it has no path."""
    from hptune.engine.provenance import source_files

    found: dict[str, None] = {}
    for target in user_code(experiment):
        where = target.rpartition(":")[0]
        found |= dict.fromkeys(map(str, source_files(Path(where))) if is_file_target(target) else [f"{where} (a module found by its name)"])
    return tuple(found)


def check(loaded: LoadedConfig) -> Check:
    """Open data and model, time a few real steps at the baseline's batch size, and estimate what each stage costs.

    Raises the InputErrors that a run would raise; writes nothing.
    """
    from hptune.engine.memory import peak_memory
    from hptune.engine.problem import open_problem
    from hptune.engine.soundness import data_notes
    from hptune.engine.worker import measured

    experiment = loaded.experiment
    require(experiment.tracking)
    problem = open_problem(experiment)
    task = problem.task
    request = CalibrationRequest(hyperparameters=experiment.baseline_hyperparameters(), numerics=task.numerics)
    calibration = measured(experiment, request)
    section = experiment.executor
    _, workers = resolve(section.name, section.workers, task.numerics.device, threads=task.numerics.threads * task.numerics.replicas)
    stages = tuple(estimate_stages(experiment, task, calibration, workers))
    return Check(
        name=experiment.name,
        run_dir=str(default_run_dir(experiment)),
        device=task.numerics.device,
        device_model=task.numerics.device_model,
        precision=task.numerics.precision,
        numerics=task.numerics,
        train_samples=task.train_samples,
        val_samples=task.val_samples,
        test_samples=task.test_samples,
        classes=task.classes,
        parameters=task.parameters,
        workers=workers,
        seconds_per_step=calibration.seconds_per_step,
        memory=peak_memory(problem.device),
        stages=stages,
        seconds=sum(stage.seconds for stage in stages),
        user_code=user_code(experiment),
        code_files=code_files(experiment),
        notes=(*task.notes, *data_notes(problem), *foreseen(experiment, task)),
    )


def foreseen(experiment: Experiment, task: Task) -> list[str]:
    """Sentences on what a run of this config will leave out, do for nothing, or cannot tell apart."""
    stages, train_samples = experiment.stages, task.train_samples
    notes = [*_too_small(experiment, task)]
    if stages.batch_size and (large := [size for size in stages.batch_size.values if size > train_samples]):
        sizes = ", ".join(map(str, large))
        notes.append(f"stages.batch_size leaves out {sizes}: more than the {train_samples:,} training samples")
    for name in ("batch_size", "momentum", "weight_decay"):
        stage = getattr(stages, name)
        if stage and len(stage.values) == 1 and not getattr(stage, "bisect", False):
            notes.append(f"stages.{name} has one value, {stage.values[0]:g}, and compares it with nothing: give more, or {name}: off")
    if not stages.confirm:
        notes.append("stages.confirm is off: what is recommended will not be compared with the baseline at full length")
    return notes


def _too_small(experiment: Experiment, task: Task) -> list[str]:
    """Sentences on a validation part, short runs, or a range of LRs that do not suffice."""
    notes = []
    if task.val_samples < max(FEWEST_HELD_OUT, FEWEST_OF_A_CLASS * task.classes):
        each = f", {task.val_samples / task.classes:.2g} a class" if task.classes else ""
        notes.append(
            f"the validation part has {task.val_samples} samples{each}: what is chosen on so few may be chance; "
            "raise data.val_fraction, or give more data"
        )
    own, epochs = experiment.baseline_hyperparameters(), experiment.budget.short_epochs
    steps = int(epochs * (task.train_samples // own.batch_size))
    if steps < FEWEST_STEPS:
        notes.append(
            f"a short run of {epochs:g} epochs has {steps} optimizer steps at batch size {own.batch_size}: "
            "too few to tell candidates apart; raise budget.search_epochs, or lower baseline.batch_size"
        )
    ramp = experiment.stages.lr_range
    if ramp and ramp.min_lr is not None and ramp.max_lr is not None and not ramp.min_lr <= own.lr <= ramp.max_lr:
        notes.append(
            f"the baseline's lr {own.lr:g} lies outside stages.lr_range, {ramp.min_lr:g} to {ramp.max_lr:g}: "
            "the search cannot find it again; widen the range"
        )
    return notes


def estimate_stages(experiment: Experiment, task: Task, calibration: Calibration, workers: int) -> list[StageEstimate]:
    """Plan every enabled stage as if the start were the best and all seeds were needed: about what a search costs.

    `calibration` is of the baseline's batch size; other sizes are taken to process samples at the same speed.
    """
    progress = Progress()
    per_run = seconds_per_short_run(stage_knowledge("lr_range", experiment, task, progress, settings={}), calibration)
    estimates = []
    seen: set[str] = set()
    for name in enabled_stages(experiment):
        settings: dict[str, Any] = getattr(experiment.stages, name).model_dump()
        knowledge = stage_knowledge(name, experiment, task, progress, settings=settings, seconds_per_run=per_run / workers)
        records = _imagined(name, knowledge)
        new = [r for r in records if r.trial_id not in seen]
        seen |= {r.trial_id for r in records}
        cost = sum(knowledge.cost(r.spec) for r in new)
        estimates.append(
            StageEstimate(
                stage=name,
                trials=len(new),
                steps=sum(r.spec.steps for r in new),
                samples=sum(r.spec.samples for r in new),
                longest=max((r.spec.samples for r in new), default=0) / task.train_samples,
                seconds=cost * per_run / min(workers, max(1, len(new))),
            )
        )
        conclusion = stage_named(name).conclude(knowledge, records)
        finished = {**progress.finished, name: Finished(knowledge=knowledge, records=tuple(records), conclusion=conclusion)}
        progress = Progress(finished=finished, elapsed=progress.elapsed + estimates[-1].seconds)
    return estimates


def _imagined(name: str, knowledge: Knowledge) -> list[TrialRecord]:
    """Records of a stage in which the start is the best candidate by a little."""
    stage = stage_named(name, _spread)
    done: list[TrialRecord] = []
    while new := stage.plan(knowledge, done):
        done += [_record(spec, knowledge.start) for spec in new]
    return done


def _record(spec: TrialSpec, start: Hyperparameters) -> TrialRecord:
    if spec.schedule.kind == "ramp":
        return ramped(spec)
    distance = 0.0 if spec.hyperparameters == start else 0.01
    return TrialRecord(spec=spec, status="completed", val_loss=1.0 + distance, steps=spec.steps, samples=spec.samples)


def _spread(start: Hyperparameters, space: Space, _done: Sequence[TrialRecord], count: int, seed: int) -> list[Hyperparameters]:
    """Stand-in for the sampler: as many distinct proposals."""
    low, high = space.lr
    return [start.but(lr=low * (high / low) ** ((seed + i) % 97 / 97 + 1e-3)) for i in range(count)]
