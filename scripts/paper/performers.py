"""Who performs the trials that claims ask for: a session that trains them, a journal that holds them, or nobody, to see what they cost."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from contest.bench import EVALUATED
from hptune import report
from hptune.config.loader import LoadedConfig, load_config, with_value
from hptune.engine.problem import open_problem
from hptune.engine.trainer import calibrate
from hptune.engine.workload import Problem
from hptune.imagined import Imagination, Known
from hptune.session import open_session
from hptune.store.journal import replay
from hptune.store.layout import RunLayout, is_run_directory
from hptune.trial import CalibrationRequest, CurveSummary, Task, TrialRecord, TrialSpec
from paper.evidence import Outcome
from paper.lab import Asking, Lab, Searched
from paper.race import CONTESTANTS, Result, race, raced
from paper.setups import Setup
from speed.processes import say

SEARCH_BUDGET = 16  # short runs; confirm comes on top
SEARCH_SEED = 1  # other seeds than those of the claims' own trials
SEARCH_SIZES = [32, 64, 128, 256]
SHORTER = 0.75  # full trainings a seed: confirm also looks at half and a quarter of the length
TIMED, STEPS_TIMED = 64, 8  # samples and steps
PATIENCE = 60.0  # seconds between two lines of progress


class MissingError(Exception):
    """Trials that were not run."""


class Performer(Protocol):
    """Answers a claim's questions in one setup."""

    lab: Lab

    def __call__(self, specs: Sequence[TrialSpec]) -> list[TrialRecord]:
        """The records of trials, in the same order."""
        ...


def answered(asking: Asking[Outcome], performer: Performer) -> Outcome:
    """Perform whatever a claim asks for; what it comes to. Raises MissingError where the performer has not got it."""
    try:
        specs = next(asking)
        while True:
            specs = asking.send(performer(specs))
    except StopIteration as done:
        outcome: Outcome = done.value
        return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a setup's trials and its search are kept, and with what they are run."""

    setup: Setup
    folder: Path
    device: str = "auto"
    workers: str = "auto"

    @property
    def trials(self) -> Path:
        return self.folder / self.setup.name

    @property
    def searched(self) -> Path:
        return self.folder / f"{self.setup.name}-search"

    def config(self) -> LoadedConfig:
        """The setup's config."""
        loaded = with_value(load_config(self.setup.config), "device", self.device)
        return with_value(loaded, "executor.workers", self.workers if self.workers == "auto" else int(self.workers))

    def search_config(self) -> LoadedConfig:
        """The same data and model, and otherwise what hptune does by itself."""
        loaded = self.config()
        own = loaded.experiment.stages
        stages: dict[str, Any] = {"confirm": own.confirm.model_dump() if own.confirm else {}}
        stages["batch_size"] = {"values": SEARCH_SIZES, "compare": own.batch_size.compare if own.batch_size else "time"}
        for key, value in {"baseline": {}, "stages": stages, "seeds": 2, "seed": SEARCH_SEED, "budget.search": SEARCH_BUDGET}.items():
            loaded = with_value(loaded, key, value)
        return loaded

    @property
    def races(self) -> Path:
        return self.folder / f"{self.setup.name}-races"

    def lab(self, loaded: LoadedConfig, task: Task, **ways: Callable[..., Any]) -> Lab:
        own = self.setup
        return Lab(
            setup=own.name,
            title=own.title,
            margin=own.margin,
            experiment=loaded.experiment,
            task=task,
            **ways,
            paper=own.paper,
        )

    def found(self) -> Searched:
        """What the search recommends, and its cost. Raises MissingError unless it is finished."""
        if not is_run_directory(self.searched):
            raise MissingError(f"no search was run in {self.setup.name}")
        run = report.load(self.searched)
        found = run.recommendation
        if run.state != "finished" or found is None or not found.confirmed or run.loaded is None or run.task is None:
            raise MissingError(f"the search in {self.setup.name} is not finished")
        full = run.loaded.experiment.budget.epochs * run.task.train_samples
        spent = sum(_cost(r.spec, run.task, samples=r.samples, measurements=len(r.curve.step)) for r in run.records)
        return Searched(own=found.hyperparameters, cost=spent / full)


class Trains:
    """Trains what is missing, in worker processes; what is there is not trained again."""

    def __init__(self, place: Place) -> None:
        self._place, self._loaded = place, place.config()
        self._session = open_session(self._loaded, run_dir=place.trials, command=("reproduce_paper",))

    def __enter__(self) -> Self:
        self._session.__enter__()
        self.lab = self._place.lab(self._loaded, self._session.task, speeds=self._speeds, search=self._search, race=self._race)
        return self

    def __exit__(self, *error: Any) -> None:
        self._session.__exit__(*error)

    def __call__(self, specs: Sequence[TrialSpec]) -> list[TrialRecord]:
        records = self._session.journal.state.records
        missing = {spec.trial_id for spec in specs} - records.keys()
        began = told = time.monotonic()
        for done, record in enumerate(self._session.trials(specs), start=1):
            now = time.monotonic()
            if now - told > PATIENCE or done == len(missing):
                told, left = now, (now - began) / done * (len(missing) - done)
                count = f"{done} of {len(missing)} trials, {left / 60:.0f} min left of them"
                say(f"{self._place.setup.name}: {count}; last: loss {record.val_loss:.4g}")
        return [records[spec.trial_id] for spec in specs]

    def _speeds(self, sizes: Sequence[int]) -> tuple[tuple[int, float], ...]:
        return self._session.speeds(sizes) if _by_time(self._loaded) else ()

    def _search(self) -> Searched:
        with contextlib.suppress(MissingError):
            return self._place.found()
        say(f"{self._place.setup.name}: hptune run")
        with open_session(self._place.search_config(), run_dir=self._place.searched, command=("reproduce_paper",)) as session:
            for _ in session.run():
                pass
            session.finish()
        return self._place.found()

    def _race(self, minutes: float, repetition: int) -> dict[str, Result]:
        place = self._place
        known = raced(place.races, minutes=minutes, repetition=repetition)
        if known is None:
            say(f"{place.setup.name}: a race of {minutes:g} min, repetition {repetition}")
        return known or race(self._loaded, place.races, minutes=minutes, repetition=repetition)


class Reads:
    """Trains nothing: has what the journal holds, also while another process writes it."""

    def __init__(self, place: Place) -> None:
        self._place, loaded = place, place.config()
        layout = RunLayout(place.trials)
        self._records: Mapping[str, TrialRecord] = replay(layout.journal).records if layout.journal.exists() else {}
        self.lab = place.lab(loaded, open_problem(loaded.experiment).task, speeds=self._speeds, search=place.found, race=self._race)

    def __call__(self, specs: Sequence[TrialSpec]) -> list[TrialRecord]:
        missing = sum(spec.trial_id not in self._records for spec in specs)
        if missing:
            raise MissingError(f"{missing} of {len(specs)} trials were not run")
        return [self._records[spec.trial_id] for spec in specs]

    def _speeds(self, _: Sequence[int]) -> tuple[tuple[int, float], ...]:
        if _by_time(self._place.config()):
            raise MissingError("speeds are measured where trials are run")
        return ()

    def _race(self, minutes: float, repetition: int) -> dict[str, Result]:
        found = raced(self._place.races, minutes=minutes, repetition=repetition)
        if found is None:
            raise MissingError(f"a race of {minutes:g} min was not run")
        return found


class Lists:
    """Trains nothing but a few steps, if `timed`, to see how fast they are; makes records up, so that a claim goes on to ask.

    `full`: samples of a full training.
    """

    def __init__(self, place: Place, *, timed: bool = True) -> None:
        loaded = place.config()
        problem = open_problem(loaded.experiment)
        self._task = problem.task
        self.trials: dict[str, float] = {}  # samples that each costs as much as
        self._searches = 0.0
        self.raced = 0.0  # seconds
        self.full = loaded.experiment.budget.epochs * problem.task.train_samples
        self.seconds_per_sample = _seconds_per_sample(problem) if timed else math.nan
        self._imagined = Imagination(Known({}), 1)
        self.lab = place.lab(loaded, problem.task, speeds=lambda _: (), search=self._search, race=self._race)

    def __call__(self, specs: Sequence[TrialSpec]) -> list[TrialRecord]:
        for spec in specs:
            self.trials[spec.trial_id] = _cost(spec, self._task, samples=spec.samples, measurements=len(spec.evaluate_at))
        return [_complete(self._imagined(spec)) for spec in specs]

    @property
    def samples(self) -> float:
        """What everything asked for so far costs as much as, in samples trained on; no trial counts twice, and races not."""
        return sum(self.trials.values()) + self._searches

    def _search(self) -> Searched:
        """About what one takes: its budget, and what confirm does."""
        experiment = self.lab.experiment
        confirm = experiment.stages.confirm
        confirmed = confirm.seeds * (1 + confirm.finalists + SHORTER) if confirm else 0.0
        self._searches += self.full * (SEARCH_BUDGET * experiment.budget.short_epochs / experiment.budget.epochs + confirmed)
        return Searched(own=self.lab.authors, cost=0.0)

    def _race(self, minutes: float, repetition: int) -> dict[str, Result]:
        self.raced += len(CONTESTANTS) * minutes * 60
        length, accuracy = minutes * 60, 50.0 + repetition
        return {
            who: Result(who=who, repetition=repetition, own={}, accuracy=accuracy, loss=1.0, trials=0, seconds=length)
            for who in CONTESTANTS
        }


def _complete(record: TrialRecord) -> TrialRecord:
    """A made-up record with everything that a claim may look at."""
    spec, loss = record.spec, record.val_loss
    curve = record.curve
    if not curve.step:
        n = len(spec.evaluate_at)
        curve = CurveSummary(
            step=spec.evaluate_at, lr=(spec.hyperparameters.lr,) * n, train_loss=(loss,) * n, val_loss=(loss,) * n, metric=(0.5,) * n
        )
    return replace(record, test_loss=loss, test_metric=1 / (1 + loss), curve=curve)


def _seconds_per_sample(problem: Problem) -> float:
    """Of the baseline's training; on a CPU, where small batches are as fast and large ones take long, by small ones."""
    own = problem.experiment.baseline_hyperparameters()
    if problem.device.type == "cpu":
        own = own.but(batch_size=min(own.batch_size, TIMED))
    timed = calibrate(problem, CalibrationRequest(hyperparameters=own, numerics=problem.task.numerics, steps=STEPS_TIMED))
    return timed.seconds_per_step / own.batch_size


def _by_time(loaded: LoadedConfig) -> bool:
    section = loaded.experiment.stages.batch_size
    return section is not False and section.compare == "time"


def _cost(spec: TrialSpec, task: Task, *, samples: int, measurements: int) -> float:
    """Samples trained on that a trial costs as much as."""
    measured = task.val_samples if spec.validation_limit is None else spec.validation_limit
    return samples + EVALUATED * (measured * measurements + spec.test * task.test_samples)
