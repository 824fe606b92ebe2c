"""Metrics: built in by name, or the user's own, measured over a whole part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hptune.config.schema import Metric
from hptune.engine.arguments import check_arguments
from hptune.engine.losses import RunningMean, aligned, bind_two, two_tensors
from hptune.engine.targets import user_code
from hptune.errors import UserCodeError


@dataclass(frozen=True, slots=True)
class MetricFunction:
    """A function of (output, target); `averages` says that batch means, weighted by size, give its value for the whole exactly."""

    function: Callable[[Any, Any], Tensor]
    averages: bool

    def __call__(self, output: Any, target: Any) -> Tensor:
        """Return the metric of these samples as a 0-dim tensor."""
        return self.function(output, target)


def build_metric(section: Metric) -> MetricFunction:
    """Return the metric of `section`; `none` is NaN everywhere.

    It raises ConfigError where outputs and targets do not fit it, UserCodeError where the user's own raises or returns no number.
    """
    if section.target is not None:
        function = bind_two(section.target, section.args, what="building the metric")
        return MetricFunction(_from_target(section.target, function), averages=False)
    name = section.name or ""
    check_arguments(BUILT_IN[name], section.args, name=name, key="metric.args")
    return MetricFunction(BUILT_IN[name], averages=True)


class Meter:
    """Measures a metric over a part, batch by batch.

    A user's metric sees the outputs of the whole part at once, on the CPU; where they cannot be concatenated (tuples, unlike
    shapes), the mean over batches stands in, weighted by their sizes.
    """

    def __init__(self, metric: MetricFunction) -> None:
        self._metric = metric
        self._mean = RunningMean()
        self._batches: list[tuple[Any, Any, int]] = []

    def add(self, output: Any, target: Any, samples: int) -> None:
        """Take in the outputs and targets of a batch."""
        self.take(self.seen(output, target), samples)

    def seen(self, output: Any, target: Any) -> Any:
        """What is to be known of a batch: its metric, on its device, or else all there is, on the CPU. `take` takes it in."""
        return self._metric(output, target) if self._metric.averages else (on_cpu(output), on_cpu(target))

    def take(self, seen: Any, samples: int) -> None:
        """Take in what `seen` returned for a batch, in this process or another."""
        if self._metric.averages:
            self._mean.add(seen, samples)
        else:
            self._batches.append((*seen, samples))

    def value(self) -> float:
        """Return the metric of all that was added; NaN before the first batch."""
        if self._metric.averages or not self._batches:
            return self._mean.value()
        outputs, targets = _concatenated([b[0] for b in self._batches]), _concatenated([b[1] for b in self._batches])
        if outputs is not None and targets is not None:
            return float(self._metric(outputs, targets))
        mean = RunningMean()
        for output, target, samples in self._batches:
            mean.add(self._metric(output, target), samples)
        return mean.value()


def accuracy(output: Any, target: Any) -> Tensor:
    """Share of right answers: the largest of several logits is the class; one logit, or one per yes/no label, is yes above 0."""
    logits, labels = two_tensors(output, target, "metric accuracy", "metric")
    if logits.ndim >= 2 and logits.shape[1] > 1 and labels.shape == logits.shape[:1] + logits.shape[2:]:
        return (logits.argmax(dim=1) == labels).float().mean()
    logits, labels = aligned(logits, labels, "metric accuracy", "metric")
    return ((logits > 0) == (labels > 0.5)).float().mean()


def mse(output: Any, target: Any) -> Tensor:
    """Mean squared error; shapes as for the loss of that name."""
    predicted, wanted = aligned(output, target, "metric mse", "metric")
    return (predicted - wanted).square().mean()


def mae(output: Any, target: Any) -> Tensor:
    """Mean absolute error; shapes as for the loss `mse`."""
    predicted, wanted = aligned(output, target, "metric mae", "metric")
    return (predicted - wanted).abs().mean()


def none(_: Any, __: Any) -> Tensor:
    """NaN: no metric was asked for."""
    return torch.tensor(float("nan"))


BUILT_IN: dict[str, Callable[..., Tensor]] = {"accuracy": accuracy, "mse": mse, "mae": mae, "none": none}


def _from_target(name: str, function: Callable[..., Any]) -> Callable[[Any, Any], Tensor]:
    def metric(output: Any, target: Any) -> Tensor:
        with user_code("computing the metric", name):
            value = function(output, target)
        try:
            return torch.tensor(float(value), dtype=torch.float64)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            form = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserCodeError(f"metric target {name} returned {form}: return one number") from error

    return metric


def on_cpu(value: Any) -> Any:
    """The tensors inside tuples, lists and dicts, in main memory and without what they were computed from."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, tuple | list):
        return tuple(map(on_cpu, value))
    if isinstance(value, dict):
        return {key: on_cpu(entry) for key, entry in value.items()}
    return value


def _concatenated(values: list[Any]) -> Tensor | None:
    """Return the batches as one tensor, or None where they are not tensors of like samples."""
    if all(isinstance(value, Tensor) and value.ndim for value in values) and len({value.shape[1:] for value in values}) == 1:
        return torch.cat(values)
    return None
