"""The optimizer's update, over tensors: SGD with (Nesterov) momentum and AdamW.

torch.optim's SGD takes momentum only as a number, so a captured or compiled step could not change it. Here learning rate,
momentum and weight decay are arguments of each step, as numbers or as 0-dim tensors whose values are never looked at. Results equal
`torch.optim.SGD(dampening=0)` and `torch.optim.AdamW` to rounding. As in PyTorch, and unlike Caffe (Smith's runs), the LR
stands outside the velocity: v = momentum · v + gradient, parameter -= LR · v; the two differ while the LR changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hptune.config.schema import Optimizer
from hptune.engine.weights import matching_names

Value = float | Tensor
"""A number, or a 0-dim tensor on the parameters' device."""

NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True, slots=True)
class Factors:
    """A parameter's ratios to the common learning rate and weight decay; equal ones, of one dtype, are updated together."""

    lr: float
    decay: float
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Slot:
    """A trained parameter with its state: the velocity (AdamW: first moment) and AdamW's second moment."""

    name: str
    parameter: nn.Parameter
    factors: Factors
    first: Tensor
    second: Tensor | None


class Updater:
    """Updates a model's trained parameters from their gradients; make it once the model is on its device.

    Parameters without a gradient are left alone, as in torch.optim. AdamW's number of steps is one for the whole model.
    Raises ConfigError where a pattern of `optimizer.groups` matches no parameter.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._settings = optimizer
        factors = _factors(model, optimizer)
        adamw = optimizer.name == "adamw"
        self._slots = [
            Slot(name, p, factors[name], torch.zeros_like(p), torch.zeros_like(p) if adamw else None)
            for name, p in model.named_parameters()
            if p.requires_grad
        ]
        self.parameters = tuple(slot.parameter for slot in self._slots)
        device = self.parameters[0].device
        self._steps = torch.zeros((), device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)

    @torch.no_grad()
    def step(self, lr: Value, momentum: Value, weight_decay: Value) -> None:
        """Update once: clip the gradients' global norm where asked, then apply SGD or AdamW (`momentum` is its beta1).

        `weight_decay` is coupled L2 for sgd; for adamw it is decoupled: each step takes off LR · weight decay of a parameter.
        """
        if self._settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._settings.gradient_clip)
        self._steps += 1
        groups: dict[Factors, list[Slot]] = {}
        for slot in self._slots:
            if slot.parameter.grad is not None:
                groups.setdefault(slot.factors, []).append(slot)
        for factors, slots in groups.items():
            update = self._sgd if self._settings.name == "sgd" else self._adamw
            update(factors, slots, *(_as_dtype(value, factors.dtype) for value in (lr, momentum, weight_decay)))

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def reset(self) -> None:
        """Return to the state before the first step, in place."""
        for tensor in self._tensors().values():
            tensor.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the state by name."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned, in place; ValueError where the names or shapes are another model's or optimizer's."""
        own = self._tensors()
        unlike = {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape} | (own.keys() ^ state.keys())
        if unlike:
            raise ValueError(f"this optimizer state belongs to another model or optimizer: {', '.join(sorted(unlike)[:3])}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"steps": self._steps}
        for slot in self._slots:
            tensors[f"first.{slot.name}"] = slot.first
            if slot.second is not None:
                tensors[f"second.{slot.name}"] = slot.second
        return tensors

    def _sgd(self, factors: Factors, slots: list[Slot], lr: Value, momentum: Value, weight_decay: Value) -> None:
        parameters, gradients, velocities = _columns(slots)
        if factors.decay:
            decayed = list(torch._foreach_mul(parameters, weight_decay * factors.decay))
            torch._foreach_add_(decayed, gradients)
            gradients = decayed
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, gradients)
        if self._settings.nesterov:
            change = torch._foreach_mul(velocities, momentum)
            torch._foreach_add_(change, gradients)
            torch._foreach_mul_(change, lr * factors.lr)
        else:
            change = torch._foreach_mul(velocities, lr * factors.lr)
        torch._foreach_sub_(parameters, change)

    def _adamw(self, factors: Factors, slots: list[Slot], lr: Value, beta1: Value, weight_decay: Value) -> None:
        parameters, gradients, first = _columns(slots)
        second = [slot.second for slot in slots if slot.second is not None]
        beta2 = self._settings.beta2
        if factors.decay:
            torch._foreach_mul_(parameters, 1 - lr * factors.lr * weight_decay * factors.decay)
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, torch._foreach_mul(gradients, 1 - beta1))
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        correction1 = self._bias_correction(beta1).to(factors.dtype)
        correction2 = self._bias_correction(beta2).to(factors.dtype)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, correction2.sqrt())
        torch._foreach_add_(scale, self._settings.eps)
        change = torch._foreach_div(first, scale)
        torch._foreach_mul_(change, lr * factors.lr / correction1)
        torch._foreach_sub_(parameters, change)

    def _bias_correction(self, beta: Value) -> Tensor:
        """Return 1 − beta**steps, exact also where beta is close to 1."""
        log = (beta.to(self._steps.dtype) if isinstance(beta, Tensor) else torch.full_like(self._steps, beta)).log()
        return -torch.expm1(self._steps * log)


def _columns(slots: list[Slot]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    gradients = [slot.parameter.grad for slot in slots if slot.parameter.grad is not None]
    return [slot.parameter for slot in slots], gradients, [slot.first for slot in slots]


def _as_dtype(value: Value, dtype: torch.dtype) -> Value:
    return value.to(dtype) if isinstance(value, Tensor) else value


def _factors(model: nn.Module, optimizer: Optimizer) -> dict[str, Factors]:
    """Return every parameter's factors: the last matching group's, no decay for biases and normalization where so asked."""
    lr_and_decay = {name: (1.0, 1.0) for name, _ in model.named_parameters()}
    for group in optimizer.groups:
        for name in matching_names(model, group.match, key="optimizer.groups"):
            lr_and_decay[name] = (group.lr_factor, group.decay_factor)
    if not optimizer.decay_bias_and_norm:
        for name in _biases_and_norms(model):
            lr_and_decay[name] = (lr_and_decay[name][0], 0.0)
    return {name: Factors(*lr_and_decay[name], p.dtype) for name, p in model.named_parameters()}


def _biases_and_norms(model: nn.Module) -> list[str]:
    """Return the names that end in `bias`, the parameters of PyTorch's normalization layers, and vectors of the user's own."""
    names = []
    for name, parameter in model.named_parameters():
        path, _, last = name.rpartition(".")
        owner = model.get_submodule(path)
        own_norm = "norm" in type(owner).__name__.lower() and parameter.ndim <= 1
        if last.endswith("bias") or isinstance(owner, NORMALIZATIONS) or own_norm:
            names.append(name)
    return names
