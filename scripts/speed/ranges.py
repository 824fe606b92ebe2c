"""LR range tests: two seeds by hptune's executor against other tools' own."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from hptune.config.schema import Experiment
from hptune.engine.problem import open_problem
from hptune.engine.worker import perform
from hptune.engine.workload import Problem
from hptune.executors.base import Failure
from hptune.executors.factory import available_cores, make_executor, resolve
from hptune.executors.process import ProcessExecutor
from hptune.knowledge import Progress, stage_knowledge
from hptune.stages.lr_range import RANGE_POINTS, LrRange, range_samples
from hptune.trial import StopRule, TrialOutcome, TrialSpec
from speed.data import AUGMENT, DATA_OF, Images, check_same_data, experiment, make_images
from speed.options import Options
from speed.peers import PEERS, Outcome, Ramp, Setting, time_peer
from speed.processes import own_process, say
from speed.results import Comparison, Spread, Target, at_least, ratios

SAMPLES, VALIDATION = 10_000, 1000
BATCH, LOW, HIGH, SEEDS = 64, 1e-5, 10.0, 2
STEPS = {"mlp": 100, "small_cnn": 100, "lenet": 100, "resnet20": 30}
QUICK_STEPS = {"mlp": 20, "small_cnn": 15, "lenet": 15, "resnet20": 6}
WANTED = {"mlp": 8.0, "small_cnn": 2.5, "lenet": 2.5, "resnet20": 2.0}
PACKAGES = {"torch-lr-finder": "torch_lr_finder", "fastai": "fastai", "lightning": "lightning"}
HPTUNE, TRAINING_ALONE = "hptune", "hptune without validation"
NEVER = StopRule(factor=1e9)


def compare(options: Options) -> Comparison:
    """All nets in turn; within one, everybody in turn in each repetition."""
    began = time.perf_counter()
    peers = [name for name in PEERS if importlib.util.find_spec(PACKAGES[name])]
    images = {
        name: make_images(name, options.folder, samples=SAMPLES, validation=VALIDATION) for name in {DATA_OF[n] for n in options.nets}
    }
    rows: list[dict[str, Any]] = []
    targets: list[Target] = []
    raw: dict[str, Any] = {}
    for net in options.nets:
        steps = (QUICK_STEPS if options.quick else STEPS)[net]
        ramp = Ramp(net=net, batch_size=BATCH, steps=steps, low=LOW, high=HIGH, seeds=tuple(range(SEEDS)))
        settings, found = _measure(images[DATA_OF[net]], ramp, peers, options)
        more, target = _judged(net, settings, found)
        rows += more
        targets += target
        raw[net] = {name: [{"seconds": o.seconds, "steps": o.steps} for o in outcomes] for name, outcomes in found.items()}
    missing = [name for name in PEERS if name not in peers]
    return Comparison(
        name="ranges",
        title=f"LR range tests, {SEEDS} seeds",
        rows=tuple(rows),
        targets=tuple(targets),
        notes=(
            f"batch {BATCH}, LR {LOW:g} to {HIGH:g}, flip and reflected crop as augmentation; nobody stops at divergence; imports, data "
            "loading and the start of hptune's workers are not counted",
            "peers run their seeds one after the other with all cores, hptune runs its seeds side by side, one thread each; the number of "
            "loader processes and threads of a peer is the fastest in one trial of the same length on one seed",
            f"hptune measures {RANGE_POINTS} validation points on the samples its rule allows, which no peer does; "
            f"`{TRAINING_ALONE}` is the same ramp with one point, for what that costs",
            "hptune ends a ramp at a loss that is not finite, the peers go on: ratios are of seconds a step actually taken",
            *[f"{name} is not installed and was not measured" for name in missing],
            *sorted(held.source for held in images.values()),
        ),
        seconds=time.perf_counter() - began,
        raw=raw,
    )


def plan_ramps(problem: Problem, ramp: Ramp, *, validate: bool) -> list[TrialSpec]:
    """The ramps as the stage plans them, at the length and with the stop rule of this comparison."""
    config = problem.experiment
    settings = config.stages.lr_range.model_dump() if config.stages.lr_range else {}
    planned = LrRange().plan(stage_knowledge("lr_range", config, problem.task, Progress(), settings=settings), [])
    points = sorted({max(1, round(ramp.steps * (i + 1) / RANGE_POINTS)) for i in range(RANGE_POINTS)}) if validate else [ramp.steps]
    stop = replace(NEVER, window=max(1, ramp.steps // RANGE_POINTS), relative_to_best=True)
    limit = min(range_samples(ramp.steps * ramp.batch_size), problem.task.val_samples)
    return [replace(spec, steps=ramp.steps, evaluate_at=tuple(points), stop=stop, validation_limit=limit) for spec in planned]


def _measure(
    images: Images, ramp: Ramp, peers: list[str], options: Options
) -> tuple[dict[str, Setting], dict[str, list[Outcome]]]:  # fmt: skip
    config = experiment(
        images, ramp.net, augment=AUGMENT, seeds=SEEDS, baseline={"lr": 0.1, "batch_size": BATCH},
        stages={"lr_range": {"min_lr": LOW, "max_lr": HIGH}},
    )  # fmt: skip
    problem = open_problem(config)
    check_same_data(images, problem.task)
    ramps = {HPTUNE: plan_ramps(problem, ramp, validate=True), TRAINING_ALONE: plan_ramps(problem, ramp, validate=False)}
    found: dict[str, list[Outcome]] = {name: [] for name in (*peers, *ramps)}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(own_process()) for name in peers}
        settings = {name: _best_setting(processes[name], name, images, ramp, quick=options.quick) for name in peers}
        executor = stack.enter_context(warm_executor(config, ramps[HPTUNE][0]))
        for _ in range(options.repetitions):
            for name in peers:
                found[name].append(processes[name].submit(time_peer, name, images, ramp, settings[name]).result())
                say(f"ranges {ramp.net}: {name} {found[name][-1].seconds:.1f} s ({settings[name]})")
            for name, specs in ramps.items():
                found[name].append(_time_hptune(executor, config, specs))
                say(f"ranges {ramp.net}: {name} {found[name][-1].seconds:.1f} s")
    return settings, found


def _best_setting(process: ProcessPoolExecutor, name: str, images: Images, ramp: Ramp, *, quick: bool) -> Setting:
    """The fastest of a few ways to use the cores, by one trial each; a first run that nobody times has everything imported."""
    cores = available_cores()
    pairs = [(0, 1), (2, 1), (0, cores)] if quick else [(workers, threads) for workers in (0, 1, 2) for threads in sorted({1, cores})]
    choices = [Setting(workers=workers, threads=threads) for workers, threads in pairs]
    process.submit(time_peer, name, images, replace(ramp, steps=6, seeds=(99,)), choices[0]).result()
    one = replace(ramp, seeds=ramp.seeds[:1])
    return min(choices, key=lambda setting: process.submit(time_peer, name, images, one, setting).result().seconds)


@contextmanager
def warm_executor(config: Experiment, spec: TrialSpec) -> Iterator[ProcessExecutor]:
    """hptune's default workers, every one of which has its data loaded and a few steps behind it."""
    _, workers = resolve("process", "auto", "cpu")
    with make_executor("process", perform, workers, 1) as executor:
        assert isinstance(executor, ProcessExecutor)
        seen: set[int] = set()
        while len(seen) < workers:
            short = [replace(spec, steps=3, evaluate_at=(3,), seed=1000 + i) for i in range(2 * workers)]
            seen |= {outcome.record.worker for outcome in _outcomes(executor, config, short)}
        yield executor


def _time_hptune(executor: ProcessExecutor, config: Experiment, specs: list[TrialSpec]) -> Outcome:
    began = time.perf_counter()
    outcomes = _outcomes(executor, config, specs)
    return Outcome(seconds=time.perf_counter() - began, steps=sum(outcome.record.steps for outcome in outcomes))


def _outcomes(executor: ProcessExecutor, config: Experiment, specs: list[TrialSpec]) -> list[TrialOutcome]:
    results = [result for _, result in executor.map([(config, spec) for spec in specs])]
    for result in results:
        if isinstance(result, Failure) or result.record.status in ("failed", "out_of_memory"):
            raise RuntimeError(result.error if isinstance(result, Failure) else str(result.record.error))
    return results


def _judged(net: str, settings: dict[str, Setting], found: dict[str, list[Outcome]]) -> tuple[list[dict[str, Any]], list[Target]]:
    per_step = {name: [o.seconds / o.steps for o in outcomes] for name, outcomes in found.items()}
    rows = []
    for name, outcomes in found.items():
        row: dict[str, Any] = {"net": net, "tool": name, "setting": str(settings.get(name, "one worker a core"))}
        row["seconds"] = str(Spread.of([o.seconds for o in outcomes]))
        row["steps"] = "/".join(map(str, sorted({o.steps for o in outcomes})))
        row["ms a step"] = str(Spread.of([1000 * value for value in per_step[name]]))
        row[f"times {HPTUNE}"] = str(ratios(per_step[name], per_step[HPTUNE]))
        rows.append(row)
    if not settings:
        return rows, []
    best = min(settings, key=lambda name: Spread.of(per_step[name]).median)
    target = at_least(f"{net}: best peer ({best}) / hptune", WANTED[net], ratios(per_step[best], per_step[HPTUNE]).median)
    return rows, [target]
