"""One training step, written once: gather, augment, forward, loss, backward, update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hptune.engine.numerics import autocast
from hptune.engine.update import Updater, Value
from hptune.engine.workload import Problem
from hptune.trial import Numerics

FIRST_SCALE, SMALLEST_SCALE = 2.0**16, 2.0**-10
STEPS_TO_GROW = 2000  # as torch.amp.GradScaler


class Step:
    """Takes batches to updates of one model. It reads nothing back from the device, except under fp16 (`LossScale`).

    With `numerics.micro_batch` a batch goes through in pieces whose gradients add up to the batch's: equal to rounding, batch norm
    aside, which then sees the pieces. `generator` draws the augmentation.
    """

    def __init__(self, problem: Problem, model: nn.Module, updater: Updater, numerics: Numerics, generator: torch.Generator) -> None:
        self._problem, self._model, self._updater = problem, model, updater
        self._numerics, self._generator = numerics, generator
        self._autocast = autocast(numerics)
        self.scale = LossScale() if numerics.precision == "fp16" else None

    def __call__(self, indices: Tensor, lr: Value, momentum: Value, weight_decay: Value) -> Tensor | None:
        """Train on the samples at `indices`; return their mean loss before the update, a 0-dim tensor on the device.

        None where fp16 gradients overflowed: the update was skipped, and the schedule must not advance.
        """
        self._updater.zero_grad()
        loss = self._gradients(indices)
        if self.scale is not None and not self.scale.unscale(self._updater.parameters):
            return None if self.scale.value >= SMALLEST_SCALE else torch.full_like(loss, torch.nan)
        self._updater.step(lr, momentum, weight_decay)
        return loss

    def _gradients(self, indices: Tensor) -> Tensor:
        size = self._numerics.micro_batch
        if size is None or size >= len(indices):
            loss = self._forward(indices)
            self._backward(loss)
            return loss.detach()
        total: Tensor | None = None
        for piece in torch.split(indices, size):
            loss = self._forward(piece) * (len(piece) / len(indices))
            self._backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _forward(self, indices: Tensor) -> Tensor:
        problem = self._problem
        batch = problem.augmented(problem.parts.train.take(indices), self._generator)
        with self._autocast:
            return problem.forward(self._model, batch, self._numerics)[0]

    def _backward(self, loss: Tensor) -> None:
        scaled = loss if self.scale is None else loss * self.scale.value
        torch.autograd.backward(scaled)


class LossScale:
    """Dynamic loss scaling for fp16, by the rules of `torch.amp.GradScaler`; it looks at each step's gradients on the host."""

    def __init__(self) -> None:
        self.value = FIRST_SCALE
        self._good_steps = 0

    def unscale(self, parameters: tuple[nn.Parameter, ...]) -> bool:
        """Divide the gradients by the scale; return False, and halve it, where one is not finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.value)
        if not all(bool(norm.isfinite()) for norm in torch._foreach_norm(gradients)):
            self.value, self._good_steps = self.value / 2, 0
            return False
        self._good_steps += 1
        if self._good_steps == STEPS_TO_GROW:
            self.value, self._good_steps = self.value * 2, 0
        return True

    def state(self) -> list[float]:
        """What `restore` takes."""
        return [self.value, self._good_steps]

    def restore(self, state: list[Any]) -> None:
        """Continue from `state`."""
        self.value, self._good_steps = float(state[0]), int(state[1])
