"""Loss and metric of a model over a part of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hptune.engine.losses import RunningMean
from hptune.engine.metrics import Meter, on_cpu
from hptune.engine.models import frozen_modules
from hptune.engine.numerics import autocast
from hptune.engine.parts import Part
from hptune.engine.randomness import seeded
from hptune.engine.ranks import ranks_of
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

    The ragged last batch counts. Training mode and random state are as before. Several ranks take every so many-th batch each, all with
    the first one's buffers; what they see is put together in order, as if one had seen it all, and the first one's result is that of all.
    """
    chosen = chosen_samples(len(part), limit)
    at_once = min(problem.evaluation_batch, numerics.micro_batch or problem.evaluation_batch)
    means = [RunningMean() for _ in range(min(blocks, len(chosen)))]
    pieces = [
        (mean, piece) for mean, block in zip(means, chosen.tensor_split(len(means)), strict=True) for piece in torch.split(block, at_once)
    ]
    meter = Meter(problem.metric)
    ranks = ranks_of(numerics)
    ranks.share_buffers(model)
    own = ranks.own([piece for _, piece in pieces])
    seen: list[tuple[Tensor, Any]] = []
    with _evaluating(problem, model), autocast(numerics), closing(part.feed(own, 0)) as feed:
        for _, batch in zip(own, feed, strict=True):
            PULSE.beat()
            loss, output, target = problem.forward(model, batch, numerics)
            seen.append((loss, meter.seen(output, target)))
        found = ranks.put_together(seen if ranks.size == 1 else on_cpu(seen))
        measurement = Measurement(math.nan, math.nan, ())
        if found is not None:
            for (mean, piece), (loss, of_metric) in zip(pieces, found, strict=True):
                mean.add(loss, len(piece))
                meter.take(of_metric, len(piece))
            losses = tuple(mean.value() for mean in means)
            total = _sum([loss * mean.samples for loss, mean in zip(losses, means, strict=True)])
            measurement = Measurement(total / len(chosen), meter.value(), losses)
    return ranks.from_first(measurement)


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
