"""The same list of short trials as an Optuna study with a plain PyTorch objective, and through hptune's executor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from speed.data import AUGMENT, DATA_OF, Images, check_same_data, experiment, make_images, make_model, pictures
from speed.options import Options
from speed.processes import isolated, say, silence
from speed.results import Comparison, Spread, Target, at_least, geometric_mean, ratios

VALIDATION = 500
SAMPLES = {"mlp": 2000, "small_cnn": 2000, "lenet": 2000, "resnet20": 512}
BATCHES = (32, 64, 128, 256)
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
REST = ((0.9, 1e-4), (0.95, 1e-3))  # momentum, weight decay
QUICK_RATES, QUICK_SAMPLES = (0.05,), {"mlp": 512, "small_cnn": 256, "lenet": 256, "resnet20": 256}
QUICK_WAYS = ("optuna, one job, one thread", "optuna, processes", "hptune")
MEAN_WANTED, EACH_WANTED = 4.0, 2.0
VALIDATION_BATCH = 256
HPTUNE = "hptune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of one epoch; its last ragged batch is dropped."""

    batch_size: int
    lr: float
    momentum: float
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Wall seconds of the whole list, its optimizer steps, and the best validation loss, which shows that both trained."""

    seconds: float
    steps: int
    best: float


def compare(options: Options) -> Comparison:
    """All nets in turn; within one, everybody in turn in each repetition, each time in fresh processes."""
    began = time.perf_counter()
    rates, samples = (QUICK_RATES, QUICK_SAMPLES) if options.quick else (RATES, SAMPLES)
    trials = [
        Trial(batch_size=b, lr=lr, momentum=m, weight_decay=wd) for b in BATCHES for lr in rates for m, wd in REST
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    best: dict[str, float] = {}
    raw: dict[str, Any] = {}
    sources = set()
    for net in options.nets:
        images = make_images(DATA_OF[net], options.folder, samples=samples[net], validation=VALIDATION)
        sources.add(f"{images.source}, {samples[net]} samples for {net}")
        found: dict[str, list[Ran]] = {name: [] for name in (QUICK_WAYS if options.quick else WAYS)}
        for _ in range(options.repetitions):
            for name, ran in found.items():
                ran.append(isolated(WAYS[name], images, net, trials, str(options.folder)))
                say(f"search {net}: {name} {ran[-1].seconds:.1f} s")
        rows += _rows(net, found)
        best[net] = _ratio(found)
        raw[net] = {name: [asdict(ran) for ran in runs] for name, runs in found.items()}
    return Comparison(
        name="search",
        title=f"A list of {len(trials)} short trials",
        rows=tuple(rows),
        targets=_targets(best),
        notes=(
            f"batch sizes {', '.join(map(str, BATCHES))}, one epoch of 1cycle each, validation on {VALIDATION} samples at its end, flip "
            "and reflected crop as augmentation, the same list for everybody (Optuna's by enqueue_trial)",
            "the clock starts in a fresh process that has its imports and the images; it includes the start of worker processes and "
            "their imports, hptune's and Optuna's alike, hptune's opening of data and model, and journals where they are written",
            "Optuna's objective reads images through torchvision transforms in a DataLoader without loader processes",
            "both initialize and shuffle by their own rules: best losses agree in kind, not in digits",
            *sorted(sources),
        ),
        seconds=time.perf_counter() - began,
        raw=raw,
    )


def hptune_executor(images: Images, net: str, trials: list[Trial], folder: str) -> Ran:
    """hptune's executor with its default workers, journalled as the pipeline does it."""
    from hptune.engine.problem import open_problem
    from hptune.engine.worker import perform
    from hptune.executors.factory import make_executor, resolve
    from hptune.store.journal import Journal
    from hptune.store.layout import RunLayout, write_curve

    config = experiment(images, net, augment=AUGMENT)
    layout = RunLayout(Path(mkdtemp(dir=folder)))
    began = time.perf_counter()
    with ExitStack() as stack:
        _, workers = resolve("process", "auto", "cpu")
        executor = stack.enter_context(make_executor("process", perform, workers, 1))
        executor.start()  # as a session does: workers import while this process opens the problem
        problem = open_problem(config)
        check_same_data(images, problem.task)
        journal = stack.enter_context(Journal(layout.journal))
        specs = [_spec(problem.task, len(images.x), trial) for trial in trials]
        records = []
        for _, outcome in executor.map([(config, spec) for spec in specs]):
            write_curve(layout, outcome.record.trial_id, outcome.curve)
            journal.append("trial", outcome.record.to_json())
            records.append(outcome.record)
    seconds = time.perf_counter() - began
    if any(record.status in ("failed", "out_of_memory") for record in records):
        raise RuntimeError(next(str(record.error) for record in records if record.error))
    return Ran(seconds=seconds, steps=sum(r.steps for r in records), best=min(r.val_loss for r in records if r.usable))


def _spec(task: Any, samples: int, trial: Trial) -> Any:
    from hptune.schedules import Schedule
    from hptune.trial import Hyperparameters, StopRule, TrialSpec

    steps = samples // trial.batch_size
    return TrialSpec(
        task=task.task_id,
        hyperparameters=Hyperparameters(**asdict(trial), momentum_min=0.85),
        schedule=Schedule(kind="one_cycle", shape="torch", warmup_fraction=0.3, lr_ratio=25, tail_ratio=1e4),
        steps=steps,
        seed=0,
        repetition=0,
        evaluate_at=(steps,),
        numerics=task.numerics,
        stop=StopRule(factor=1e9),  # Optuna's objective stops nothing either
    )


def optuna_one_job(images: Images, net: str, trials: list[Trial], folder: str) -> Ran:
    """One trial after the other, all cores for each."""
    from hptune.executors.factory import available_cores

    return _optuna_here(images, net, trials, jobs=1, threads=available_cores(), folder=folder)


def optuna_one_job_one_thread(images: Images, net: str, trials: list[Trial], folder: str) -> Ran:
    """One trial after the other, on one core."""
    return _optuna_here(images, net, trials, jobs=1, threads=1, folder=folder)


def optuna_threads(images: Images, net: str, trials: list[Trial], folder: str) -> Ran:
    """As many trials at a time as there are cores, in threads."""
    from hptune.executors.factory import available_cores

    return _optuna_here(images, net, trials, jobs=available_cores(), threads=1, folder=folder)


def optuna_processes(images: Images, net: str, trials: list[Trial], folder: str) -> Ran:
    """A process a core, started by spawn, which share the study through a journal file."""
    from hptune.executors.factory import available_cores

    path = str(Path(mkdtemp(dir=folder)) / "study.log")
    context, count = get_context("spawn"), available_cores()
    shares = [len(trials[i::count]) for i in range(count)]  # how many each takes; which ones, the order of asking decides
    began = time.perf_counter()
    study = _study(trials, path)
    workers = [context.Process(target=_optuna_worker, args=(images, net, path, share)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"an Optuna process ended with exit code {worker.exitcode}")
    return _ran(study, time.perf_counter() - began)


def _optuna_here(images: Images, net: str, trials: list[Trial], *, jobs: int, threads: int, folder: str) -> Ran:
    import torch

    del folder
    torch.set_num_threads(threads)
    began = time.perf_counter()
    study = _study(trials, None)
    with silence():
        study.optimize(_objective(images, net), n_trials=len(trials), n_jobs=jobs)
    return _ran(study, time.perf_counter() - began)


def _optuna_worker(images: Images, net: str, path: str, share: int) -> None:
    import optuna
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with silence():
        optuna.load_study(study_name="search", storage=_storage(path)).optimize(_objective(images, net), n_trials=share)


def _study(trials: list[Trial], path: str | None) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="search", storage=_storage(path) if path else None, direction="minimize")
    for trial in trials:
        study.enqueue_trial(asdict(trial))
    return study


def _storage(path: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(path))


def _ran(study: Any, seconds: float) -> Ran:
    from optuna.trial import TrialState

    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    losses = [trial.value for trial in done if math.isfinite(trial.value)]
    return Ran(seconds=seconds, steps=sum(trial.user_attrs["steps"] for trial in done), best=min(losses))


def _objective(images: Images, net: str) -> Callable[[Any], float]:
    """The objective as users write it; a loss that is not finite is returned as a large number, since Optuna fails such trials."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    def objective(trial: Any) -> float:
        batch_size = trial.suggest_categorical("batch_size", BATCHES)
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        momentum = trial.suggest_float("momentum", 0.8, 0.99)
        weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
        train = DataLoader(pictures(images, augment=True), batch_size=batch_size, shuffle=True, drop_last=True)
        held_out = DataLoader(pictures(images, augment=False, validation=True), batch_size=VALIDATION_BATCH)
        model, criterion = make_model(images, net), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, nesterov=True, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=lr, total_steps=len(train), base_momentum=0.85, max_momentum=momentum
        )
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            schedule.step()
        trial.set_user_attr("steps", len(train))
        model.eval()
        with torch.no_grad():
            total = sum(float(criterion(model(x), y)) * len(y) for x, y in held_out)
        loss = total / len(images.x_val)
        return loss if math.isfinite(loss) else 1e9

    return objective


WAYS: dict[str, Callable[[Images, str, list[Trial], str], Ran]] = {
    "optuna, one job": optuna_one_job,
    "optuna, one job, one thread": optuna_one_job_one_thread,
    "optuna, threads": optuna_threads,
    "optuna, processes": optuna_processes,
    HPTUNE: hptune_executor,
}


def _rows(net: str, found: dict[str, list[Ran]]) -> list[dict[str, Any]]:
    own = [ran.seconds for ran in found[HPTUNE]]
    return [
        {
            "net": net,
            "way": name,
            "seconds": str(Spread.of([ran.seconds for ran in runs])),
            "steps": "/".join(map(str, sorted({ran.steps for ran in runs}))),
            "best val loss": str(Spread.of([ran.best for ran in runs])),
            f"times {HPTUNE}": str(ratios([ran.seconds for ran in runs], own)),
        }
        for name, runs in found.items()
    ]


def _ratio(found: dict[str, list[Ran]]) -> float:
    """How many times longer the best of Optuna's ways takes."""
    seconds = {name: [ran.seconds for ran in runs] for name, runs in found.items()}
    fastest = min((name for name in seconds if name != HPTUNE), key=lambda name: Spread.of(seconds[name]).median)
    return ratios(seconds[fastest], seconds[HPTUNE]).median


def _targets(best: dict[str, float]) -> tuple[Target, ...]:
    each = [at_least(f"{net}: best of Optuna's ways / hptune", EACH_WANTED, ratio) for net, ratio in best.items()]
    return (at_least("best of Optuna's ways / hptune, geometric mean", MEAN_WANTED, geometric_mean(list(best.values()))), *each)
