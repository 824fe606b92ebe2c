"""Losses: built in by name, or the user's own; and the exact mean of batch means over a part with a ragged last batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hptune.config.schema import Component
from hptune.engine.arguments import Fraction, Positive, check_arguments
from hptune.engine.targets import bind_target, call_target, load_target, user_code
from hptune.errors import ConfigError, UserCodeError

Loss = Callable[[Any, Any], Tensor]
"""(output, target) of a batch -> mean loss, a 0-dim tensor."""


def build_loss(section: Component, *, device: torch.device | None = None) -> Loss:
    """Return the loss of `section`; a target that is an nn.Module class has its buffers put on `device`.

    The loss raises ConfigError where output and target are of shapes or types it cannot compare (nothing is broadcast),
    UserCodeError where the user's own raises or returns anything but a 0-dim tensor.
    """
    if section.target is not None:
        return _from_target(section.target, bind_two(section.target, section.args, what="building the loss", device=device))
    function = BUILT_IN[section.name or ""]
    check_arguments(function, section.args, name=section.name or "", key="loss.args")
    args = section.args

    def loss(output: Any, target: Any) -> Tensor:
        return function(output, target, **args)

    return loss


class RunningMean:
    """The mean over samples of values that are means over batches, kept on their device until it is asked for."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self.samples = 0

    def add(self, value: Tensor, samples: int) -> None:
        """Count `value`, a 0-dim tensor, for `samples` samples."""
        self._sum = self._sum + value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64) * samples
        self.samples += samples

    def value(self) -> float:
        """Return the mean so far (one transfer from the device); NaN before the first sample."""
        return float(self._sum) / self.samples if self.samples else float("nan")


def cross_entropy(output: Any, target: Any, *, label_smoothing: Fraction = 0.0) -> Tensor:
    """Mean cross entropy of logits (batch, classes, …) and class indices (batch, …), or class probabilities shaped as the logits."""
    output, target = two_tensors(output, target, "loss cross_entropy", "loss")
    indices = output.ndim >= 2 and target.shape == output.shape[:1] + output.shape[2:] and not target.is_floating_point()
    probabilities = output.ndim >= 2 and target.shape == output.shape and target.is_floating_point()
    if not (indices or probabilities):
        raise _misfit("loss cross_entropy", "(batch, classes) with integer class labels (batch)", output, target)
    return functional.cross_entropy(output, target.long() if indices else target, label_smoothing=label_smoothing)


def mse(output: Any, target: Any) -> Tensor:
    """Mean squared error over all values; shapes must agree, (batch, 1) and (batch,) counting as the same."""
    return functional.mse_loss(*aligned(output, target, "loss mse", "loss"))


def l1(output: Any, target: Any) -> Tensor:
    """Mean absolute error, on shapes as for `mse`."""
    return functional.l1_loss(*aligned(output, target, "loss l1", "loss"))


def smooth_l1(output: Any, target: Any, *, beta: Positive = 1.0) -> Tensor:
    """Mean of an error that is squared below `beta` and absolute above, on shapes as for `mse`."""
    return functional.smooth_l1_loss(*aligned(output, target, "loss smooth_l1", "loss"), beta=beta)


def bce_with_logits(output: Any, target: Any) -> Tensor:
    """Mean binary cross entropy of logits and 0/1 labels or probabilities, on shapes as for `mse`."""
    return functional.binary_cross_entropy_with_logits(*aligned(output, target, "loss bce_with_logits", "loss"))


BUILT_IN: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "l1": l1,
    "smooth_l1": smooth_l1,
    "bce_with_logits": bce_with_logits,
}


def two_tensors(output: Any, target: Any, what: str, key: str) -> tuple[Tensor, Tensor]:
    """Return output and target, the output in float32 where it is of half precision; ConfigError unless each is one tensor."""
    for value, role in ((output, "the model's output"), (target, "the target")):
        if not isinstance(value, Tensor):
            raise ConfigError(f"{what} needs {role} to be one tensor, got {type(value).__name__}: write a {key} target", key=key)
    return (output.float() if output.dtype in (torch.float16, torch.bfloat16) else output), target


def aligned(output: Any, target: Any, what: str, key: str) -> tuple[Tensor, Tensor]:
    """Return output and target of one shape and type; (batch, 1) and (batch,) are the same, any other difference is a ConfigError."""
    output, target = two_tensors(output, target, what, key)
    if output.shape == target.shape:
        return output, target.to(output.dtype)
    wider, narrower = (output, target) if output.ndim > target.ndim else (target, output)
    if wider.shape != (*narrower.shape, 1) or narrower.ndim != 1:
        raise _misfit(what, "the same shape as the target", output, target)
    return output.reshape(-1), target.reshape(-1).to(output.dtype)


def bind_two(target: str, args: dict[str, Any], *, what: str, device: torch.device | None = None) -> Callable[..., Any]:
    """Return a user's function of (output, target) with `args` bound; a class is instantiated with `args` first."""
    if not isinstance(load_target(target), type):
        return bind_target(target, args, positional=2)
    instance = call_target(target, args, what=what)
    if not callable(instance):
        raise UserCodeError(f"{target} makes objects that cannot be called with (output, target)")
    return instance.to(device) if isinstance(instance, nn.Module) else instance


def _from_target(name: str, function: Callable[..., Any]) -> Loss:
    def loss(output: Any, target: Any) -> Tensor:
        with user_code("computing the loss", name):
            value = function(output, target)
        if not isinstance(value, Tensor):
            raise UserCodeError(f"loss target {name} returned {type(value).__name__}, not a tensor")
        if value.ndim or not value.is_floating_point():
            shape = f"{value.dtype} of shape {tuple(value.shape)}"
            raise UserCodeError(f"loss target {name} returned {shape}: return one floating-point number, the mean over the batch")
        return value

    return loss


def _misfit(what: str, needs: str, output: Tensor, target: Tensor) -> ConfigError:
    shapes = f"outputs of shape {tuple(output.shape)} and targets of shape {tuple(target.shape)}, {target.dtype}"
    return ConfigError(f"{what} needs {needs}, got {shapes}", key=what.partition(" ")[0])
