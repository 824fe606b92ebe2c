"""One command's hold on a run directory: data and model opened, directory locked, journal and executor ready."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hptune import report
from hptune.calibration import calibrated_sizes, settle_workers
from hptune.config.loader import LoadedConfig, dump_config, with_value
from hptune.config.schema import Experiment
from hptune.crew import LocalCrew, open_crew
from hptune.dispatch import execute, keep
from hptune.errors import ConfigError, InputError
from hptune.knowledge import Progress, enabled_stages, stage_knowledge
from hptune.pipeline import resume_progress, run_stage, run_stages
from hptune.report.trackers import PATIENCE, Tracking, require
from hptune.report.trackers.tracker import FULL_TRAINING
from hptune.running import Event, Remark, Run, StageConcluded, StageStarted, TrialDone
from hptune.stages import STAGES, Knowledge
from hptune.stages.batch_size import relative_speeds
from hptune.stages.key_sweep import swept_values
from hptune.stages.rounds import contender
from hptune.store.environment import describe_environment
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout, hold_lock, retire, write_atomic
from hptune.trial import Hyperparameters, Task, TrialOutcome, TrialRecord, TrialSpec

if TYPE_CHECKING:
    from hptune.engine.full import Progress as TrainProgress

MOVED_BY_THE_SEARCH = ("lr", "batch_size", "momentum", "momentum_min", "weight_decay")
BRIEFLY = 5.0  # seconds that an interrupted run waits for trackers
NOT_OF_A_TRIAL = ("version", "name", "stages", "seeds", "seed", "budget", "executor", "device", "rank_by", "tracking")
"""Config blocks that change no single training, so that sweeping them says nothing."""


def default_run_dir(experiment: Experiment) -> Path:
    """`runs/<name>` below the current folder."""
    return Path("runs") / experiment.name


class Session:
    """Use as a context manager: entering opens everything, input errors coming before anything is written; leaving lets go."""

    def __init__(
        self, loaded: LoadedConfig, *, run_dir: Path | None = None, fresh: bool = False, command: Sequence[str] = (), training: bool = False
    ) -> None:
        self.loaded = loaded
        self.experiment = loaded.experiment
        self.layout = RunLayout((run_dir or default_run_dir(loaded.experiment)).absolute())
        self._fresh = fresh
        self._command = tuple(command)
        self._training = training
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            require(self.experiment.tracking)
            starts = not self._training and (self._fresh or not self.layout.journal.exists())
            self.crew = open_crew(self.experiment, stack, starts=starts, alone=self._training)
            if self._fresh:
                retire(self.layout)
            stack.enter_context(hold_lock(self.layout))
            self.journal = stack.enter_context(Journal(self.layout.journal))
            self._describe()
            self._run = Run(
                experiment=self.experiment,
                task=self.task,
                executor=self.crew.executor,
                journal=self.journal,
                layout=self.layout,
                variants=self.crew.experiments,
                leads=self.crew.leads,
                most_workers=self.crew.most_workers,
                foresight=self.experiment.executor.foresight,
            )
            self.tracking = Tracking(self.experiment.tracking, self.layout.tracking, self.experiment.name)
            self._tell_what_is_known()
            self._held = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.tracking.close(PATIENCE if error is None else BRIEFLY)
        finally:
            self._held.close()

    @property
    def task(self) -> Task:
        """What all trials of the config share."""
        return self.crew.task

    @property
    def where(self) -> str:
        """Where trials run besides this machine, in a few words."""
        return self.crew.executor.where

    def run(self, stages: Sequence[str] | None = None) -> Iterator[Event]:
        """Run `stages`, or all that the config enables; one alone uses what the journal holds of the stages before it."""
        names = tuple(stages or enabled_stages(self.experiment))
        earlier = [name for name in STAGES[: STAGES.index(names[0])] if name in enabled_stages(self.experiment)]
        self._run.progress = resume_progress(self.journal, self.task, earlier)
        return self._followed(run_stages(self._run, names))

    def sweep(self, key: str, values: Sequence[Any]) -> Iterator[Event]:
        """Sweep any other config key over `values`, around what earlier stages concluded."""
        self._run.progress = resume_progress(self.journal, self.task, enabled_stages(self.experiment))
        variants = self._variants(key, values)
        return self._followed(run_stage(self._run, key, {"variants": variants}))

    def trials(self, specs: Iterable[TrialSpec]) -> Iterator[TrialRecord]:
        """Run trials that no stage has planned, those the journal holds aside; their records as they come."""
        missing = {spec.trial_id: spec for spec in specs if spec.trial_id not in self.journal.state.records}
        if len(missing) > 1:
            for _ in settle_workers(self._run):
                pass
        yield from execute(self._run, list(missing.values()), lambda _: ())

    def speeds(self, sizes: Sequence[int]) -> tuple[tuple[int, float], ...]:
        """Samples per second of batch sizes relative to the baseline's: see `Knowledge.speeds`. Measured once, then journalled."""
        measuring = calibrated_sizes(self._run, {"values": list(sizes)})
        while True:
            try:
                next(measuring)
            except StopIteration as done:
                return relative_speeds(dict(done.value), self.experiment.baseline_hyperparameters())

    def train(self, progress: Callable[[TrainProgress], None] | None = None, stop: Callable[[], bool] = lambda: False) -> TrialOutcome:
        """Train the config's `hyperparameters` at full length, with checkpoints; continues where an earlier call was stopped.

        Once `stop` says so, a checkpoint is saved and KeyboardInterrupt raised.
        """
        from hptune.engine.full import train_full

        assert isinstance(self.crew, LocalCrew)  # whoever trains one network does it here
        spec = self.train_spec()
        outcome = train_full(
            self.crew.problem, spec, checkpoints=self.layout.checkpoints, weights=self.layout.weights, progress=progress, stop=stop
        )
        if spec.trial_id not in self.journal.state.records:
            self.tracking.trial(FULL_TRAINING, keep(self._run, outcome))
        if outcome.record.status == "completed":
            self.journal.append("weights", {"trial_id": spec.trial_id})
        return outcome

    def train_spec(self) -> TrialSpec:
        """The specification of the full-length training."""
        knowledge = stage_knowledge("lr_range", self.experiment, self.task, Progress(), settings={})
        chosen = self.experiment.chosen_hyperparameters()
        return knowledge.run(chosen, epochs=self.experiment.budget.epochs, repetition=0, test=self.task.test_samples > 0)

    def trained(self) -> TrialRecord | None:
        """The record of a finished training of this specification, if the weights on disk are its own."""
        latest = self.journal.state.others.get("weights", [{}])[-1].get("trial_id")
        own = self.train_spec().trial_id
        return self.journal.state.records.get(own) if latest == own and self.layout.weights.exists() else None

    def finish(self) -> report.Run:
        """Write tables, recommended config, figures and report; return the run as it now reads."""
        run = report.load(self.layout.root)
        report.write_results(run)
        report.write_report(run)
        self.tracking.result(run)
        return run

    def _followed(self, events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on; trackers follow each, tables on disk each conclusion."""
        swept: Mapping[TrialSpec, Any] = {}
        for event in events:
            match event:
                case StageStarted():
                    swept = swept_values(event.knowledge)
                case TrialDone():
                    self.tracking.trial(event.stage, event.record, swept.get(contender(event.record.spec)))
                case StageConcluded():
                    report.write_tables(report.load(self.layout.root))
                    self.tracking.conclusion(event.conclusion)
                case _:
                    pass
            yield event
            yield from (Remark(text=text) for text in self.tracking.remarks())

    def _tell_what_is_known(self) -> None:
        """Tell trackers of the trials that earlier commands ran: they know most of them, unless they were not asked for or failed."""
        if self.tracking.names:
            state = self.journal.state
            swept = {name: swept_values(Knowledge.from_json(plan["knowledge"])) for name, plan in state.plans.items()}
            stages = {trial: name for name, plan in reversed(state.plans.items()) for trial in plan["trials"]}
            for trial, record in state.records.items():
                stage = stages.get(trial, FULL_TRAINING)
                self.tracking.trial(stage, record, swept.get(stage, {}).get(contender(record.spec)))

    def _describe(self) -> None:
        """Write the resolved config and the environment of this invocation; a training leaves a search's config as it is."""
        if not (self._training and self.journal.state.plans):
            write_atomic(self.layout.config, dump_config(self.loaded, self.layout.root))
        write_atomic(
            self.layout.environment,
            describe_environment(
                self.layout.environment,
                command=self._command,
                directory=self.loaded.directory,
                seed=self.experiment.seed,
                device=asdict(self.task.numerics),
            ),
        )

    def _variants(self, key: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """What each value makes of a trial; the crew opens those that are tasks of their own."""
        block, _, name = key.rpartition(".")
        if key == "data.workers" or key.partition(".")[0] in NOT_OF_A_TRIAL:
            raise ConfigError(f"sweeping {key} says nothing: it changes no single training", where="sweep", key=key)
        knowledge = stage_knowledge(key, self.experiment, self.task, self._run.progress, settings={})
        variants = []
        for value in values:
            hyperparameters, task, experiment = knowledge.start, self.task, self.experiment
            if name in MOVED_BY_THE_SEARCH and block in ("", "baseline", "hyperparameters"):
                checked = with_value(self.loaded, f"baseline.{name}", value).experiment.baseline_hyperparameters()
                hyperparameters = knowledge.start.but(**{name: getattr(checked, name)})
            else:
                experiment = with_value(self.loaded, key, value).experiment
                task = self.crew.open(experiment)
            variants.append(_variant(value, hyperparameters, task, experiment))
        if len({str(variant["value"]) for variant in variants}) < len(values):
            raise InputError(f"sweep {key}: the values repeat themselves: {', '.join(map(str, values))}")
        return variants


def open_session(
    loaded: LoadedConfig, *, run_dir: Path | None = None, fresh: bool = False, command: Sequence[str] = (), training: bool = False
) -> Session:
    """Return a session to be entered with `with`; `training` is for one that only trains."""
    return Session(loaded, run_dir=run_dir, fresh=fresh, command=command, training=training)


def enabling(loaded: LoadedConfig, stage: str) -> LoadedConfig:
    """The config with `stage` switched on: whoever asks for a stage by name wants it, though `run` leaves it out."""
    return loaded if getattr(loaded.experiment.stages, stage) else with_value(loaded, f"stages.{stage}", {})


def _variant(value: Any, hyperparameters: Hyperparameters, task: Task, experiment: Experiment) -> dict[str, Any]:
    return {
        "value": value,
        "task": task.task_id,
        "train_samples": task.train_samples,
        "hyperparameters": asdict(hyperparameters),
        "schedule": asdict(experiment.schedule.schedule()),
        "numerics": asdict(task.numerics),
    }
