"""Loss and metric of a model over a part of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hptune.engine.losses import RunningMean
from hptune.engine.metrics import Meter
from hptune.engine.models import frozen_modules
from hptune.engine.numerics import autocast
from hptune.engine.parts import Part
from hptune.engine.randomness import seeded
from hptune.engine.workload import Problem
from hptune.pulse import PULSE
from hptune.trial import Numerics

TEST_BLOCKS = 32
VAL_BLOCKS = 16  # fewer: they are measured in every trial


@dataclass(frozen=True, slots=True)
class Measurement:
    """Means over samples; `block_losses` over equal, contiguous blocks of them, in order."""

    loss: float
    metric: float
    block_losses: tuple[float, ...]


def measure(
    problem: Problem, model: nn.Module, part: Part, numerics: Numerics, *, limit: int | None = None, blocks: int = 1
) -> Measurement:
    """Measure `model` in eval mode on `part`, or on `limit` of its samples at even distances, always the same ones.

    The ragged last batch counts. Training mode and random state are as before.
    """
    chosen = chosen_samples(len(part), limit)
    at_once = min(problem.evaluation_batch, numerics.micro_batch or problem.evaluation_batch)
    means = [RunningMean() for _ in range(min(blocks, len(chosen)))]
    pieces = [
        (mean, piece) for mean, block in zip(means, chosen.tensor_split(len(means)), strict=True) for piece in torch.split(block, at_once)
    ]
    meter = Meter(problem.metric)
    with _evaluating(problem, model), autocast(numerics), closing(part.feed([piece for _, piece in pieces], 0)) as feed:
        for (mean, piece), batch in zip(pieces, feed, strict=True):
            PULSE.beat()
            loss, output, target = problem.forward(model, batch, numerics)
            mean.add(loss, len(piece))
            meter.add(output, target, len(piece))
        metric = meter.value()
    losses = tuple(mean.value() for mean in means)
    total = _sum([loss * mean.samples for loss, mean in zip(losses, means, strict=True)])
    return Measurement(total / len(chosen), metric, losses)


def _sum(values: list[float]) -> float:
    """The exact sum; infinite or NaN where `fsum` refuses: infinities of both signs, or more than a float holds."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)


def chosen_samples(samples: int, limit: int | None) -> Tensor:
    """Indices of all samples, or of `limit` at even distances: fair also where the part is ordered by time."""
    if limit is None or limit >= samples:
        return torch.arange(samples)
    return torch.arange(limit) * samples // limit


def set_training(model: nn.Module) -> None:
    """Put the model in training mode, all but its frozen parts, whose statistics stay as they are."""
    model.train()
    for module in frozen_modules(model):
        module.eval()


@contextmanager
def _evaluating(problem: Problem, model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients. Whatever is drawn at random is the same at every evaluation, and the training draws none less.

    The user's own modules get `no_grad`: what they cache must serve in training too, which tensors made in inference mode cannot.
    """
    own = problem.experiment.model.target is not None or problem.experiment.step is not None
    model.eval()
    try:
        with torch.no_grad() if own else torch.inference_mode(), seeded(0, problem.device):
            yield
    finally:
        set_training(model)
