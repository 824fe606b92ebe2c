"""A problem as trials use it: the parts of the data, how to make the model, and how a batch becomes loss and output."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hptune.config.schema import Experiment
from hptune.engine.augment import Augment, Source
from hptune.engine.losses import Loss
from hptune.engine.metrics import MetricFunction
from hptune.engine.parts import Parts
from hptune.errors import UserCodeError
from hptune.trial import Numerics, Task

CPU_EVALUATION_BATCH, EVALUATION_BATCH = 256, 1024  # samples at most; on CPUs more fall out of the caches and take twice as long
EVALUATION_VALUES = 2**24  # input values at most, so that large images do not fill the memory


@dataclass(slots=True)
class Kept:
    """What trainings of a problem leave to the next ones in this process: captured programs by shape, compiled rigs, by numerics.

    `refusal`: why no step of this problem is captured, once that is known.
    """

    programs: dict[Any, Any] = field(default_factory=dict)
    compiled: dict[Any, Any] = field(default_factory=dict)
    refusal: str | None = None

    def drop(self) -> None:
        """Give the memory back."""
        self.programs.clear()
        self.compiled.clear()


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Problem:
    """What a trial needs besides its spec. `make_model` builds the network from torch's global random state, on the CPU."""

    experiment: Experiment
    device: torch.device
    parts: Parts
    make_model: Callable[[], nn.Module] = field(repr=False)
    loss: Loss = field(repr=False)
    metric: MetricFunction
    step: Callable[[nn.Module, Any], Any] | None = field(repr=False, default=None)
    augment: Augment | None = field(repr=False, default=None)
    task: Task
    kept: Kept = field(repr=False, compare=False, default_factory=Kept)

    def fresh_model(self, numerics: Numerics) -> nn.Module:
        """Return an untrained network on the device, its weights drawn from torch's global random state."""
        model = self.make_model().to(self.device)
        if numerics.sync_batch_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model.to(memory_format=torch.channels_last) if numerics.channels_last else model

    def augmented(self, batch: Any, source: Source) -> Any:
        """Return a training batch with its images augmented."""
        if self.augment is None:
            return batch
        images, target = as_pair(batch)
        return self.augment(images, source), target

    def forward(self, model: nn.Module, batch: Any, numerics: Numerics) -> tuple[Tensor, Any, Any]:
        """Return mean loss, output and target of a batch.

        The model gets a tensor as it is, a tuple as `model(*x)`, a dict as `model(**x)`. With a `step` target that function does all of
        this; the target is then the second of a pair, or else the whole batch.
        """
        if self.step is not None:
            return self._by_step(self.step, model, batch)
        x, target = as_pair(batch)
        output = predict(model, x, numerics)
        return self.loss(output, target), output, target

    def _by_step(self, step: Callable[[nn.Module, Any], Any], model: nn.Module, batch: Any) -> tuple[Tensor, Any, Any]:
        result = step(model, batch)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], Tensor) or result[0].ndim:
            name = self.experiment.step.target if self.experiment.step else "step"
            pair = isinstance(result, tuple) and len(result) == 2
            form = f"{_form(result[0])} as the loss" if pair else _form(result)
            raise UserCodeError(f"step target {name} returned {form}: return (loss, output), the loss a 0-dim tensor")
        target = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
        return result[0], result[1], target

    @property
    def evaluation_batch(self) -> int:
        """Samples of one batch when measuring."""
        values = math.prod(self.parts.sample_shape) if self.parts.sample_shape is not None else EVALUATION_VALUES // 256
        most = CPU_EVALUATION_BATCH if self.device.type == "cpu" else EVALUATION_BATCH
        return max(1, min(most, EVALUATION_VALUES // max(1, values)))


def predict(model: nn.Module, x: Any, numerics: Numerics) -> Any:
    """Call the model with one batch's input."""
    if isinstance(x, Tensor):
        return model(x.contiguous(memory_format=torch.channels_last) if numerics.channels_last and x.ndim == 4 else x)
    return model(**x) if isinstance(x, dict) else model(*x)


def as_pair(batch: Any) -> tuple[Any, Any]:
    """Return a batch as (x, y); UserCodeError where it is none and a `step` target would be needed."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    raise UserCodeError(f"a batch is {_form(batch)}, not a pair (x, y): give a step target, f(model, batch) -> loss, output")


def _form(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
