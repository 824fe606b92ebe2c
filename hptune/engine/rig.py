"""A network with its optimizer state, its augmentation's generator and the step over them: what one training works on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hptune.engine.measure import set_training
from hptune.engine.step import Step
from hptune.engine.update import Updater
from hptune.engine.workload import Problem
from hptune.trial import Numerics


class Rig:
    """Made around a network on its device; one that is costly to make (compiled, captured) serves one trial after the other.

    `begin` then puts a trial's fresh weights into the same memory. What a module keeps outside parameters and buffers is not renewed
    there: `Program` refuses modules that do so.
    """

    def __init__(self, problem: Problem, model: nn.Module, numerics: Numerics) -> None:
        self.model = model
        self.updater = Updater(model, problem.experiment.optimizer)
        self.generator = torch.Generator(problem.device)
        self.step = Step(problem, model, self.updater, numerics, self.generator)
        set_training(model)

    def begin(self, fresh: nn.Module) -> None:
        """Take over the weights and buffers of `fresh` and forget the optimizer's state, in place."""
        self.load(tensors(fresh))
        self.updater.reset()
        set_training(self.model)

    def load(self, values: Iterator[Tensor] | list[Tensor]) -> None:
        """Copy `values`, in the order of `tensors`, into parameters and buffers."""
        with torch.no_grad():
            for own, new in zip(tensors(self.model), values, strict=True):
                own.copy_(new)


def tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, those no state dict holds included, in the order of their modules."""
    yield from model.parameters()
    yield from model.buffers()
