"""A training step on several devices: each rank takes its rows of the batch, gradients are averaged while they are computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hptune.engine.workload import Problem

SENDING_BUFFERS = next(
    name for name in ("forward_sync_buffers", "broadcast_buffers") if name in inspect.signature(DistributedDataParallel).parameters
)
"""The newer and the older name of the option that gives all ranks the first one's buffers in every step."""


class _MeanLoss(nn.Module):
    """`batch -> mean loss` as the forward pass of a module around the network: a `step` target gets the bare network, as ever."""

    def __init__(self, model: nn.Module, loss_of: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss_of = loss_of

    def forward(self, batch: Any) -> Tensor:
        return self._loss_of(batch)


def in_parallel(problem: Problem, model: nn.Module, loss_of: Callable[[Any], Tensor]) -> DistributedDataParallel:
    """Return `loss_of`, whose backward pass leaves the mean of all ranks' gradients, the same bits on each.

    What the networks that come with the program and with torchvision do is known: every trained parameter gets a gradient, and no buffer
    is read in training. The user's own may do otherwise, which takes another look at each pass and one more message.
    """
    own = problem.experiment.model.target is not None or problem.step is not None
    make: Callable[..., DistributedDataParallel] = DistributedDataParallel
    return make(_MeanLoss(model, loss_of), gradient_as_bucket_view=True, find_unused_parameters=own, **{SENDING_BUFFERS: own})
