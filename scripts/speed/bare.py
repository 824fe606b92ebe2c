"""The engine's training step against the shortest loop a user would write by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hptune.config.schema import Experiment
from hptune.engine.problem import open_problem
from hptune.engine.training import Training, conditions
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, TrialSpec
from speed.data import DATA_OF, Images, check_same_data, experiment, make_images, make_model
from speed.machine import has_bf16
from speed.options import Options
from speed.processes import isolated, say
from speed.results import Comparison, Spread, Target, at_most, geometric_mean

BATCHES = (32, 256)
SAMPLES, VALIDATION = 8192, 1000
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4
CHUNK_SECONDS = 0.1  # of one loop at a time: short beside the machine's moods, long beside the clock's resolution
FEWEST_CHUNKS, MOST_CHUNKS = 5, 60
WARM_UP_STEPS = 3
CONTROL = "bare again"  # the same loop a second time: how far from 1 its ratio lies is what the others' ratios are uncertain by
CONVOLUTIONAL = ("small_cnn", "lenet", "resnet20")


@dataclass(slots=True, kw_only=True)
class Bare:
    """Hand-written training on tensors in memory: normalized once up front, gathered by a permutation, torch's own SGD."""

    model: torch.nn.Module
    x: Tensor
    y: Tensor
    batch_size: int
    done: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
        self.model.train()

    def advance(self, steps: int) -> None:
        model, optimizer, size = self.model, self.optimizer, self.batch_size
        for _ in range(steps):
            start = self.done * size % (len(self.x) // size * size)
            if start == 0:
                self.order = torch.randperm(len(self.x))
            at = self.order[start : start + size]
            optimizer.zero_grad()
            functional.cross_entropy(model(self.x[at]), self.y[at]).backward()
            optimizer.step()
            self.done += 1


def compare(options: Options) -> Comparison:
    """Measure every net at every batch size."""
    began = time.perf_counter()
    budget = 4.0 if options.quick else 40.0
    images = {
        name: make_images(name, options.folder, samples=SAMPLES, validation=VALIDATION) for name in {DATA_OF[n] for n in options.nets}
    }
    rows = []
    for net in options.nets:
        for batch_size in BATCHES:
            found = [isolated(measure, images[DATA_OF[net]], net, batch_size, budget) for _ in range(options.repetitions)]
            rows.append(_row(net, batch_size, found))
            say(f"bare {net} {batch_size}: {', '.join(f'{name} {ratio:.3f}' for name, ratio in found[-1]['ratios'].items())}")
    return Comparison(
        name="bare",
        title="The engine's step beside a hand-written loop",
        rows=tuple(_shown(row) for row in rows),
        targets=_targets(rows),
        notes=(
            "milliseconds a step, one thread, evaluations and checkpoints not counted: medians of short chunks of steps taken in turn; "
            "ratios are medians of those within a round of chunks; in brackets the extremes over repetitions, each in a fresh process",
            f"`{CONTROL}` is the same hand-written loop once more: its ratio should be 1; how far off it is is the noise of the rest: "
            "a verdict closer to its limit than that noise is none",
            "denormals are flushed in both loops; the engine does so by itself, a hand-written loop that does not can be many times slower",
            "the hand-written loop holds normalized float32 images, the engine uint8 ones that it normalizes a batch at a time",
            *sorted(held.source for held in images.values()),
        ),
        seconds=time.perf_counter() - began,
        raw={"measurements": rows},
    )


def measure(images: Images, net: str, batch_size: int, budget: float) -> dict[str, Any]:
    """Alternate chunks of steps of all loops for about `budget` seconds; return seconds a step by loop."""
    configs = {precision: experiment(images, net, precision=precision) for precision in ("fp32", "auto")}
    contestants: dict[str, Callable[[int], None]] = {}
    torch.manual_seed(0)
    contestants["bare"] = _bare(images, net, batch_size).advance
    contestants[CONTROL] = _bare(images, net, batch_size).advance
    engine = {name: _training(images, config, batch_size) for name, config in configs.items()}
    settled = engine["auto"].spec.numerics
    if settled == engine["fp32"].spec.numerics:
        del engine["auto"]  # the same computation: one measurement serves both
    contestants.update({name: training.advance for name, training in engine.items()})
    with conditions(engine["fp32"].problem, engine["fp32"].spec):
        chunks = alternate(contestants, budget)
    medians = {name: Spread.of(seconds).median for name, seconds in chunks.items()}
    return {
        "seconds_per_step": medians,
        "ratios": paired(chunks),
        "auto": f"{settled.precision}{' channels-last' if settled.channels_last else ''}",
    }


def alternate(contestants: dict[str, Callable[[int], None]], budget: float) -> dict[str, list[float]]:
    """Take chunks of steps in turn; return each chunk's seconds a step. The order turns round every time."""
    for advance in contestants.values():
        advance(WARM_UP_STEPS)
    slowest = max(_seconds(advance, 1) for advance in contestants.values())
    steps = max(1, round(CHUNK_SECONDS / slowest))
    rounds = min(MOST_CHUNKS, max(FEWEST_CHUNKS, round(budget / (steps * slowest * len(contestants)))))
    found: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for _ in range(rounds):
        for name in names:
            found[name].append(_seconds(contestants[name], steps) / steps)
        names.reverse()
    return found


def paired(chunks: dict[str, list[float]]) -> dict[str, float]:
    """Median over rounds of each loop's ratio to the hand-written ones of its own round, so that a slow moment is in both.

    The engine is compared with the mean of the two hand-written loops, the control with the first of them.
    """
    first, second = chunks["bare"], chunks[CONTROL]
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    of = {name: first if name == CONTROL else mean for name in chunks if name != "bare"}
    return {name: statistics.median(a / b for a, b in zip(chunks[name], of[name], strict=True)) for name in of}


def _seconds(advance: Callable[[int], None], steps: int) -> float:
    began = time.perf_counter()
    advance(steps)
    return time.perf_counter() - began


def _bare(images: Images, net: str, batch_size: int) -> Bare:
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (images.mean, images.std))
    x = torch.from_numpy(images.x)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    x = ((x.float() / 255 - mean) / std).contiguous()
    return Bare(model=make_model(images, net), x=x, y=torch.from_numpy(images.y), batch_size=batch_size)


def _training(images: Images, config: Experiment, batch_size: int) -> Training:
    problem = open_problem(config)
    check_same_data(images, problem.task)
    steps = 10**6  # more than will be taken
    spec = TrialSpec(
        task=problem.task.task_id,
        hyperparameters=Hyperparameters(lr=LR, batch_size=batch_size, momentum=MOMENTUM, momentum_min=MOMENTUM, weight_decay=WEIGHT_DECAY),
        schedule=Schedule(kind="constant"),
        steps=steps,
        seed=0,
        repetition=0,
        evaluate_at=(steps,),
        numerics=replace(problem.task.numerics, threads=1),
    )
    with conditions(problem, spec):
        return Training(problem, spec)


def _row(net: str, batch_size: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    per_step = [one["seconds_per_step"] for one in found]
    row: dict[str, Any] = {"net": net, "batch": batch_size, "auto settles to": found[0]["auto"]}
    for name in per_step[0]:
        row[f"{name} ms"] = asdict(Spread.of([1000 * one[name] for one in per_step]))
        if name != "bare":
            row[f"{name} / bare"] = asdict(Spread.of([one["ratios"][name] for one in found]))
    return row


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: str(Spread(**value)) if isinstance(value, dict) else value for name, value in row.items()}


def _targets(rows: list[dict[str, Any]]) -> tuple[Target, ...]:
    fp32 = [row["fp32 / bare"]["median"] for row in rows]
    auto = [row["auto / bare"]["median"] for row in rows if row["net"] in CONVOLUTIONAL and "auto / bare" in row]
    noise = [row[f"{CONTROL} / bare"]["median"] for row in rows]
    control = f" (control {geometric_mean(noise):.3g}, from {min(noise):.3g} to {max(noise):.3g})"
    targets = [at_most("fp32 / bare, geometric mean", 1.05, geometric_mean(fp32)), at_most("fp32 / bare, worst", 1.10, max(fp32))]
    targets = [replace(target, measured=target.measured + control) for target in targets]
    if has_bf16() and auto:
        return (*targets, at_most("auto / bare on convolutional nets, geometric mean", 0.6, geometric_mean(auto)))
    without = "no bf16 instructions" if not has_bf16() else "no convolutional net"
    return (*targets, Target(what="auto / bare on convolutional nets", wanted="<= 0.6", measured=without, met=None))
