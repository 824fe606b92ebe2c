"""The problem of one experiment: data, model, loss and metric, built once in a process and shared by all its trials."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from hptune.config.schema import Component, Experiment, Metric, Model
from hptune.engine.augment import make_augment
from hptune.engine.data import Parts, load_parts, parts_from_objects
from hptune.engine.identity import object_identity, task_identity
from hptune.engine.losses import Loss, build_loss
from hptune.engine.metrics import build_metric
from hptune.engine.models import build_model, model_notes
from hptune.engine.numerics import first_numerics, resolve_device
from hptune.engine.probe import probe
from hptune.engine.randomness import seeded
from hptune.engine.targets import bind_target
from hptune.engine.workload import Problem, as_pair
from hptune.trial import Task, content_hash

__all__ = ["Problem", "experiment_key", "find_open", "open_objects", "open_problem"]

VALUE_LOSSES = ("mse", "l1", "smooth_l1", "bce_with_logits")
"""Losses whose outputs have the shape of the targets, also where these are integers."""

_open_ones: WeakValueDictionary[str, Problem] = WeakValueDictionary()


def experiment_key(experiment: Experiment) -> str:
    """A hash of the whole config, for finding what was opened from it."""
    return content_hash(experiment.model_dump(mode="json"))


def find_open(experiment: Experiment) -> Problem | None:
    """The problem that was opened from this config last and is still held by somebody in this process."""
    return _open_ones.get(experiment_key(experiment))


def open_problem(experiment: Experiment, parts: Parts | None = None) -> Problem:
    """Build data, model, loss and metric of `experiment`, and try one step; `parts` where the same data are at hand already.

    Raises ConfigError, DataError or UserCodeError for whatever does not fit together.
    """
    device = resolve_device(experiment.device)
    if parts is None:
        parts = load_parts(experiment.data, seed=experiment.seed, device=device)
    loss = build_loss(experiment.loss, device=device)
    shape, outputs, tokens = parts.sample_shape, _outputs(experiment.loss.name, parts), _holds_tokens(parts)

    def make_model() -> nn.Module:
        return build_model(experiment.model, sample_shape=shape, outputs=outputs, token_ids=tokens)

    with seeded(experiment.seed, device):
        model = make_model()
    problem = _open(
        experiment, device, parts, make_model, loss,
        identity=task_identity(experiment, parts.fingerprint),
        example=model,
        notes=(*parts.notes, *model_notes(experiment.model, model, shape)),
    )  # fmt: skip
    _open_ones[experiment_key(experiment)] = problem
    return problem


def open_objects(
    model: nn.Module, train: Any, val: Any, test: Any = None, *, loss: str | Loss = "cross_entropy", experiment: Experiment
) -> Problem:
    """The same for objects at hand, under the other settings of `experiment`; trials train copies of `model` as it is now.

    `train`, `val`, `test`: pairs `(x, y)` of arrays or tensors, or map-style Datasets. `loss`: a built-in name or `f(output, target)`.
    There is no metric.
    """
    device = resolve_device(experiment.device)
    parts = parts_from_objects(train, val, test, section=experiment.data, seed=experiment.seed, device=device)
    original = copy.deepcopy(model).cpu().train()
    kind = type(model)
    settings = experiment.model_copy(
        update={
            "model": Model(target=f"{kind.__module__}:{kind.__name__}"),
            "loss": Component(name=loss) if isinstance(loss, str) else Component(target=f"given:{_name_of(loss)}"),
            "metric": Metric(name="none"),
        }
    )
    return _open(
        settings, device, parts, lambda: copy.deepcopy(original),
        build_loss(settings.loss, device=device) if isinstance(loss, str) else loss,
        identity=object_identity(settings, parts.fingerprint, original, loss),
        example=original,
        notes=parts.notes,
    )  # fmt: skip


def _open(
    experiment: Experiment,
    device: torch.device,
    parts: Parts,
    make_model: Callable[[], nn.Module],
    loss: Loss,
    *,
    identity: Mapping[str, Any],
    example: nn.Module,
    notes: tuple[str, ...],
) -> Problem:
    step = experiment.step
    task = Task(
        task_id=content_hash(identity),
        identity=identity,
        train_samples=len(parts.train),
        val_samples=len(parts.val),
        test_samples=len(parts.test) if parts.test is not None else 0,
        classes=parts.classes,
        parameters=sum(p.numel() for p in example.parameters()),
        numerics=first_numerics(experiment, device, example),
        notes=notes,
    )
    problem = Problem(
        experiment=experiment,
        device=device,
        parts=parts,
        make_model=make_model,
        loss=loss,
        metric=build_metric(experiment.metric),
        step=bind_target(step.target, step.args, positional=2) if step is not None else None,
        augment=make_augment(experiment.data.augment),
        task=task,
    )
    settled = probe(problem)
    return replace(problem, task=replace(task, numerics=settled.numerics, flops=settled.flops, notes=(*notes, *settled.notes)))


def _outputs(loss: str | None, parts: Parts) -> int:
    """How many outputs a built-in network gets: one a class, or one a value of the target."""
    if parts.classes and loss not in VALUE_LOSSES:
        return parts.classes
    return math.prod(parts.target_shape) if parts.target_shape else 1


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "loss"


def _holds_tokens(parts: Parts) -> bool:
    """Whether the model's input is one tensor of integers."""
    if parts.sample_shape is None:
        return False
    x, _ = as_pair(parts.train.take(torch.zeros(1, dtype=torch.int64)))
    return isinstance(x, Tensor) and not x.is_floating_point()
