"""So much time on a core or a GPU, search and training included: `hptune run` beside Optuna, on the same engine, schedule and data."""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna

from contest.searches import RANGES, SLACK
from hptune import report
from hptune.config.loader import LoadedConfig, with_value
from hptune.engine.numerics import resolve_device
from hptune.engine.problem import open_problem
from hptune.engine.trainer import calibrate
from hptune.knowledge import Progress, stage_knowledge
from hptune.session import Session, open_session
from hptune.store.layout import write_atomic
from hptune.trial import CalibrationRequest, Hyperparameters, TrialRecord

RESERVE = 1.3  # times the final training's expected time that is kept for it
OPENING = 15.0  # seconds to read the data and start workers
HPTUNE, OPTUNA = "hptune", "optuna"
RESULT = "result.json"
CONTESTANTS = {HPTUNE: "`hptune run`", OPTUNA: "Optuna's TPE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a contestant reached. `seconds`: from opening the data to the end of the final training; `trials`: before that."""

    who: str
    repetition: int
    own: dict[str, float]
    accuracy: float
    loss: float
    trials: int
    seconds: float


def raced(folder: Path, *, minutes: float, repetition: int) -> dict[str, Result] | None:
    """The results of a race that was run before."""
    kept = {who: _home(who, folder, minutes, repetition) / RESULT for who in CONTESTANTS}
    if not all(path.is_file() for path in kept.values()):
        return None
    return {who: Result(**json.loads(path.read_text(encoding="utf-8"))) for who, path in kept.items()}


def race(loaded: LoadedConfig, folder: Path, *, minutes: float, repetition: int) -> dict[str, Result]:
    """What the contestants reach within so many minutes from now on; a race that was stopped starts again.

    On a CPU they run side by side, each on a core of its own, so that a slow moment of the machine is in both; a device they have in turn.
    """
    allowance = minutes * 60 - RESERVE * _full_seconds(loaded) - OPENING
    on_cpu = resolve_device(loaded.experiment.device).type == "cpu"
    settings: dict[str, Any] = {"seed": repetition, "stages.confirm": False, "budget.search": f"{allowance:.0f}s"}
    for key, value in {**settings, **({"executor": {"name": "serial", "threads": 1}} if on_cpu else {})}.items():
        loaded = with_value(loaded, key, value)
    calls = [(who, loaded, _home(who, folder, minutes, repetition), allowance) for who in CONTESTANTS]
    with ProcessPoolExecutor(len(calls) if on_cpu else 1, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(run_contestant, *zip(*calls, strict=True)))
    return dict(zip(CONTESTANTS, results, strict=True))


def run_contestant(who: str, loaded: LoadedConfig, home: Path, allowance: float) -> Result:
    """What one contestant reaches; its time begins here."""
    began = time.monotonic()
    with open_session(loaded, run_dir=home, fresh=True, command=("reproduce_paper",)) as session:
        own = _by_hptune(session) if who == HPTUNE else _by_optuna(session, time.monotonic() + allowance)
        trials = len(session.journal.state.records)
        final = _trained(session, own)
    seconds = time.monotonic() - began
    result = Result(
        who=who,
        repetition=loaded.experiment.seed,
        own=asdict(own),
        accuracy=100 * final.test_metric,
        loss=final.test_loss,
        trials=trials,
        seconds=seconds,
    )
    write_atomic(home / RESULT, json.dumps(asdict(result)))
    return result


def _home(who: str, folder: Path, minutes: float, repetition: int) -> Path:
    return folder / f"{who}-{minutes:g}-{repetition}"


def _full_seconds(loaded: LoadedConfig) -> float:
    """What a full training takes, by a few steps."""
    problem = open_problem(loaded.experiment)
    own = loaded.experiment.baseline_hyperparameters()
    timed = calibrate(problem, CalibrationRequest(hyperparameters=own, numerics=problem.task.numerics))
    samples = loaded.experiment.budget.epochs * problem.task.train_samples
    return samples / own.batch_size * timed.seconds_per_step + problem.task.test_samples * timed.seconds_per_evaluated_sample


def _by_hptune(session: Session) -> Hyperparameters:
    for _ in session.run():
        pass
    found = report.load(session.layout.root).recommendation
    return session.experiment.baseline_hyperparameters() if found is None else found.hyperparameters


def _by_optuna(session: Session, deadline: float) -> Hyperparameters:
    """TPE as its users would set it up here: short runs, as many at once as there are workers, the config's own values tried first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    knowledge = stage_knowledge("lr_range", session.experiment, session.task, Progress(), settings={})
    sampler = optuna.samplers.TPESampler(seed=session.experiment.seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    own = knowledge.baseline
    start = {"lr": own.lr, "batch_size": own.batch_size, "slack": 1 - own.momentum, "weight_decay": own.weight_decay}
    study.enqueue_trial(start)
    while time.monotonic() < deadline:
        asked = [study.ask() for _ in range(session.crew.executor.workers)]
        specs = [knowledge.short_run(_suggested(session, own, trial)) for trial in asked]
        list(session.trials(specs))
        records = session.journal.state.records
        for trial, spec in zip(asked, specs, strict=True):
            record = records[spec.trial_id]
            study.tell(trial, record.val_loss if record.usable else float("inf"))
    best = min((r for r in session.journal.state.records.values() if r.usable), key=lambda record: record.val_loss)
    return best.spec.hyperparameters


def _suggested(session: Session, own: Hyperparameters, trial: optuna.Trial) -> Hyperparameters:
    lr, decay = RANGES[session.experiment.optimizer.name]
    section = session.experiment.stages.batch_size
    assert section
    return own.but(
        lr=trial.suggest_float("lr", *lr, log=True),
        batch_size=trial.suggest_categorical("batch_size", section.values),
        momentum=1 - trial.suggest_float("slack", *SLACK, log=True),
        weight_decay=trial.suggest_float("weight_decay", *decay, log=True),
    )


def _trained(session: Session, own: Hyperparameters) -> TrialRecord:
    """The full training, on a seed that no search has seen."""
    knowledge = stage_knowledge("lr_range", session.experiment, session.task, Progress(), settings={})
    spec = knowledge.full_run(own, 0)
    list(session.trials([spec]))
    return session.journal.state.records[spec.trial_id]
