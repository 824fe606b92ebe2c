"""How fast a problem trains by batch size, and where a step's time goes: measured, and the trainings thrown away."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hptune.engine.memory import free_memory, is_out_of_memory, peak_memory, reset_peak_memory
from hptune.engine.numerics import autocast
from hptune.engine.peaks import peak_flops
from hptune.engine.randomness import generator
from hptune.engine.trainer import WARM_UP_STEPS, describe_error, timing_spec
from hptune.engine.training import Training, conditions
from hptune.engine.update import Updater
from hptune.engine.workload import Problem
from hptune.trial import TrialSpec

MOST_STEPS = 20_000  # of one batch size
ROUNDS = 10  # aimed at: a median of fewer is noisy, and shorter blocks are mostly clock and synchronization
FEWEST_ROUNDS = 3
LR = 1e-6  # no step's time depends on it, and weights that stay where they are keep every loss finite

Action = Callable[[int], object]
"""Does something so many times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a step at one batch size costs; None where it was not measured.

    `status`: `not_tried` where a smaller batch did not fit into memory. `seconds`: median of a whole step as trainings take it.
    `compute_seconds`: of forward pass, loss, backward pass and update alone, on a batch that lies on the device; `reading_seconds`
    of bringing a batch there; `augmentation_seconds` of augmenting it. `steps`: whole steps timed; `spread`: half the distance
    between the quartiles of their times, as a share of the median. `flops`: of the model's matrix products, convolutions and
    attention in a step, forward and backward (what torch's counter knows; fused recurrent layers are not among it).
    `peak_flops`: FLOP/s of the device by its data sheet. `memory`: peak bytes, see `engine.memory`.
    """

    batch_size: int
    status: Literal["measured", "out_of_memory", "failed", "not_tried"] = "measured"
    seconds: float | None = None
    compute_seconds: float | None = None
    reading_seconds: float | None = None
    augmentation_seconds: float | None = None
    steps: int = 0
    spread: float | None = None
    flops: float | None = None
    peak_flops: float | None = None
    memory: int | None = None
    error: str | None = None

    @property
    def samples_per_second(self) -> float | None:
        """Training samples per second of whole steps."""
        return self.batch_size / self.seconds if self.seconds else None

    @property
    def flops_per_second(self) -> float | None:
        """Model FLOP/s of whole steps."""
        return self.flops / self.seconds if self.seconds and self.flops else None

    @property
    def peak_share(self) -> float | None:
        """Model FLOP/s as a share of the device's peak."""
        return self.flops_per_second / self.peak_flops if self.flops_per_second and self.peak_flops else None

    @property
    def outside_compute(self) -> float | None:
        """Share of a whole step's time that is not compute."""
        return max(0.0, 1 - self.compute_seconds / self.seconds) if self.seconds and self.compute_seconds is not None else None

    @property
    def outside(self) -> dict[str, float]:
        """`outside_compute` by where it goes: data reading, augmentation, and the rest, which is Python."""
        if not self.seconds or self.outside_compute is None:
            return {}
        left, shares = self.outside_compute, {}
        for name, seconds in (("reading", self.reading_seconds), ("augmentation", self.augmentation_seconds)):
            shares[name] = min(left, (seconds or 0.0) / self.seconds)  # measured alone it can take longer than in a step
            left -= shares[name]
        return {**shares, "python": left}


def bench(problem: Problem, sizes: Sequence[int], *, seconds: float, begin: Callable[[int], object] = lambda _: None) -> tuple[Speed, ...]:
    """Measure each batch size for about `seconds`, in ascending order; `begin` is told each before its turn.

    A size that does not fit into memory, or at which the user's code fails, is a row that says so. Sizes must not exceed the
    training part. Nothing of the trainings remains in the process.
    """
    rows: list[Speed] = []
    for size in sorted(set(sizes)):
        begin(size)
        too_large = any(row.status == "out_of_memory" for row in rows)
        rows.append(Speed(batch_size=size, status="not_tried") if too_large else measure_speed(problem, size, seconds))
    return tuple(rows)


def measure_speed(problem: Problem, batch_size: int, seconds: float) -> Speed:
    """Measure one batch size."""
    spec = _spec(problem, batch_size)
    free_memory(problem.device)
    reset_peak_memory(problem.device)
    try:
        with conditions(problem, spec):
            found = _measured(problem, spec, seconds)
    except (Exception, SystemExit) as error:
        status: Literal["out_of_memory", "failed"] = "out_of_memory" if is_out_of_memory(error) else "failed"
        found = Speed(batch_size=batch_size, status=status, error=describe_error(error))
    free_memory(problem.device)
    return found


@dataclass(slots=True)
class _Pieces:
    """The pieces of a step, each to be repeated alone: our own plain ones, whatever `Training` does to be faster."""

    problem: Problem
    training: Training
    spec: TrialSpec
    updater: Updater = field(init=False)
    generator: torch.Generator = field(init=False)
    indices: itertools.cycle[Tensor] = field(init=False)
    read: Any = field(init=False)
    ready: Any = field(init=False)

    def __post_init__(self) -> None:
        samples, size = len(self.problem.parts.train), self.spec.hyperparameters.batch_size
        self.updater = Updater(self.training.model, self.problem.experiment.optimizer)
        self.generator = generator(self.spec.seed, "augment", device=self.problem.device)
        self.indices = itertools.cycle(torch.split(torch.randperm(samples), size)[: samples // size])
        self.read = self.problem.parts.train.take(next(self.indices))
        self.ready = self.problem.augmented(self.read, self.generator)

    def compute(self, times: int) -> None:
        own, numerics = self.spec.hyperparameters, self.spec.numerics
        for _ in range(times):
            self.updater.zero_grad()
            with autocast(numerics):
                loss = self.problem.forward(self.training.model, self.ready, numerics)[0]
            torch.autograd.backward(loss)
            self.updater.step(own.lr, own.momentum, own.weight_decay)

    def reading(self, times: int) -> None:
        for _ in range(times):
            self.problem.parts.train.take(next(self.indices))

    def augmentation(self, times: int) -> None:
        for _ in range(times):
            self.problem.augmented(self.read, self.generator)


def _spec(problem: Problem, batch_size: int) -> TrialSpec:
    own = problem.experiment.baseline_hyperparameters().but(lr=LR, batch_size=batch_size)
    return timing_spec(problem, own, problem.task.numerics.on_one_device().for_batch(batch_size), steps=MOST_STEPS)


def _measured(problem: Problem, spec: TrialSpec, seconds: float) -> Speed:
    device = problem.device
    with closing(Training(problem, spec)) as training:
        training.advance(WARM_UP_STEPS)
        memory = peak_memory(device)
        pieces = _Pieces(problem, training, spec)
        actions: dict[str, Callable[[int], object]] = {"step": training.advance, "compute": pieces.compute, "reading": pieces.reading}
        if problem.augment is not None:
            actions["augmentation"] = pieces.augmentation
        rounds = _in_turn(actions, seconds, device, most=MOST_STEPS - WARM_UP_STEPS)
    times = rounds.typical()
    return Speed(
        batch_size=spec.hyperparameters.batch_size,
        seconds=times["step"],
        compute_seconds=times["compute"],
        reading_seconds=times["reading"],
        augmentation_seconds=times.get("augmentation"),
        steps=rounds.block * len(rounds.seconds["step"]),
        spread=rounds.spread(),
        flops=float(problem.task.flops * spec.hyperparameters.batch_size) or None,
        peak_flops=peak_flops(spec.numerics),
        memory=memory,
    )


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Seconds of a step and of its pieces, one entry a round, each the mean of `block` repetitions."""

    block: int
    seconds: Mapping[str, Sequence[float]]

    def typical(self) -> dict[str, float]:
        """The median step, and of each piece the median share of the same round's step: a machine that slows down slows both."""
        steps = self.seconds["step"]
        step = statistics.median(steps)
        return {
            name: step * statistics.median(own / whole for own, whole in zip(values, steps, strict=True))
            for name, values in self.seconds.items()
        }

    def spread(self) -> float:
        """Half the distance between the quartiles of the steps over their median."""
        low, middle, high = statistics.quantiles(self.seconds["step"], n=4, method="inclusive")
        return (high - low) / 2 / middle


def _in_turn(actions: Mapping[str, Action], seconds: float, device: torch.device, *, most: int) -> _Rounds:
    """Time all actions in blocks, in turn, for `seconds`; each is done at most `most` times and a few rounds in any case."""
    began = time.perf_counter()
    once = sum(_seconds_of(action, 1, device) for action in actions.values())
    block = max(1, min(most // (2 * ROUNDS), round(seconds / ROUNDS / once)))
    found: dict[str, list[float]] = {name: [] for name in actions}
    rounds = 0
    while rounds < FEWEST_ROUNDS or (time.perf_counter() - began < seconds and 1 + (rounds + 1) * block <= most):
        for name, action in actions.items():
            found[name].append(_seconds_of(action, block, device) / block)
        rounds += 1
    return _Rounds(block, found)


def _seconds_of(action: Action, times: int, device: torch.device) -> float:
    _wait_for(device)
    began = time.perf_counter()
    action(times)
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
