"""The first step of an experiment, tried before anything is run, so that what does not fit together is said at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hptune.engine.flops import count_flops
from hptune.engine.measure import Measurement, measure, set_training
from hptune.engine.memory import free_memory, is_out_of_memory
from hptune.engine.numerics import autocast, for_cost, in_force
from hptune.engine.order import whole
from hptune.engine.program import capturable, rig_for
from hptune.engine.randomness import generator, seeded
from hptune.engine.targets import user_code
from hptune.engine.update import Updater
from hptune.engine.workload import Problem, as_pair, predict
from hptune.errors import ConfigError, DataError, HptuneError
from hptune.trial import Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the first step showed: the numerics of all trials, FLOPs of a training sample, and sentences about what had to give way."""

    numerics: Numerics
    flops: int
    notes: tuple[str, ...]


def probe(problem: Problem) -> Settled:
    """Take one training step and measure a few validation samples; nothing is kept. Settle the numerics by what they need.

    Where a batch does not fit into memory, half of it is tried at a time, and so on; where the network takes no channels-last images,
    contiguous ones; where it cannot be compiled, the plain step. Raises ConfigError, DataError or UserCodeError where sizes, shapes,
    types or values do not fit together.
    """
    settled = problem.task.numerics
    size = settled.share(_batch_size(problem))  # of one device, which is tried as if it were alone
    numerics, notes = settled.on_one_device(), list[str]()
    while True:
        try:
            flops, measured = _first_step(problem, numerics, size)
            break
        except Exception as error:
            milder = _milder(numerics, size, error)
            if milder is None:
                raise
        numerics, note = milder
        notes.append(note)
        free_memory(problem.device)
    notes += _without_a_result(problem, measured)
    numerics = for_cost(numerics, problem.experiment, flops=flops, train_samples=len(problem.parts.train))
    if numerics.compiled and (reason := _reason_against_compiling(problem, numerics, size)):
        numerics = replace(numerics, compiled=False)
        notes.append(f"the training step is not compiled: {reason}")
    if capturable(problem, numerics):
        _engine_step(problem, numerics, size)
        notes += [f"steps are launched one by one, not replayed: {problem.kept.refusal}"] if problem.kept.refusal else []
    numerics = replace(numerics, replicas=settled.replicas, sync_batch_norm=settled.sync_batch_norm)
    return Settled(numerics=numerics, flops=flops, notes=tuple(notes))


def _batch_size(problem: Problem) -> int:
    """The largest batch size that the config trains at by itself, once all are known to fit the training part and the devices."""
    experiment, samples, devices = problem.experiment, len(problem.parts.train), problem.task.numerics.replicas
    sizes = {"baseline": experiment.baseline_hyperparameters().batch_size}
    if experiment.hyperparameters is not None:
        sizes["hyperparameters"] = experiment.hyperparameters.batch_size
    for block, size in sizes.items():
        if size > samples:
            raise ConfigError(f"{size} is more than the {samples} training samples: use at most {samples}", key=f"{block}.batch_size")
        if size < devices:
            raise ConfigError(
                f"{size} samples leave some of {devices} devices without any: use at least {devices}", key=f"{block}.batch_size"
            )
    return max(sizes.values())


def _first_step(problem: Problem, numerics: Numerics, size: int) -> tuple[int, Measurement]:
    """Try a step and an evaluation; return the floating-point operations of one sample, forward and backward, and what was measured."""
    experiment = problem.experiment
    at_once = min(size, numerics.micro_batch or size)
    with in_force(numerics), seeded(experiment.seed, problem.device), _blaming(problem, size):
        model = problem.fresh_model(numerics)
        updater = Updater(model, experiment.optimizer)
        set_training(model)
        flops = count_flops(lambda: _check_step(problem, model, numerics, at_once))
        own = experiment.baseline_hyperparameters()
        updater.step(own.lr, own.momentum, own.weight_decay)
        measured = measure(problem, model, problem.parts.val, numerics, limit=at_once)
    return flops // at_once, measured


def _without_a_result(problem: Problem, measured: Measurement) -> list[str]:
    """Sentences on a loss or metric that nothing can be ranked by; a later step may still mend it."""
    notes = []
    if not math.isfinite(measured.loss):
        notes.append(
            f"after one step at the baseline the validation loss is {measured.loss:g}, while the training loss was finite before it: "
            "is the baseline's LR far too large, or does the model or the loss differ in eval mode?"
        )
    elif problem.experiment.rank_by == "metric" and not math.isfinite(measured.metric):
        notes.append(f"after one step at the baseline the metric is {measured.metric:g}: a trial that ends so cannot win")
    return notes


def _milder(numerics: Numerics, size: int, error: Exception) -> tuple[Numerics, str] | None:
    """Numerics under which the step may succeed after all, and a sentence that says so; None where nothing is left to give."""
    if is_out_of_memory(error):
        at_once = min(numerics.micro_batch or size, size)
        half = -(-at_once // 2)
        note = f"{at_once} samples at once do not fit into memory: gradients are accumulated over {half} at a time"
        return (replace(numerics, micro_batch=half), note) if at_once > 1 else None
    if numerics.channels_last:
        return replace(numerics, channels_last=False), "the network does not take images in channels-last order: they are contiguous"
    return None


def _reason_against_compiling(problem: Problem, numerics: Numerics, size: int) -> str | None:
    """Take a compiled step, which also leaves what was compiled to the trials; return what went wrong."""
    try:
        _engine_step(problem, numerics, size)
    except Exception as error:
        problem.kept.drop()
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _engine_step(problem: Problem, numerics: Numerics, size: int) -> None:
    """Take one step as trials do: making a program takes some by itself."""
    with in_force(numerics), seeded(problem.experiment.seed, problem.device):
        rig, program = rig_for(problem, size, numerics)
        if program is None:
            at_once = min(size, numerics.micro_batch or size)
            rig.step([(problem.parts.train.take(torch.arange(at_once)), whole(at_once))], 0.0, 0.0, 0.0)


def _check_step(problem: Problem, model: nn.Module, numerics: Numerics, size: int) -> None:
    """Forward and backward pass of a random batch, with a look at everything in between."""
    indices = torch.randperm(len(problem.parts.train), generator=generator(problem.experiment.seed, "probe"))[:size]
    batch = problem.augmented(problem.parts.train.take(indices), generator(0, "probe", device=problem.device))
    with autocast(numerics):
        if problem.step is None:
            x, target = as_pair(batch)
            output = predict(model, x, numerics)
            _check_classes(problem, output, target)
            loss = problem.loss(output, target)
            if not isinstance(loss, Tensor) or loss.ndim:
                raise ConfigError("the loss must return one number, the mean over the batch, as a 0-dim tensor", key="loss")
        else:
            loss, output, _ = problem.forward(model, batch, numerics)
    _check_finite(batch, output, loss)
    if not loss.requires_grad:
        raise ConfigError("the loss does not depend on any trained parameter: is something detached, or frozen?", key="loss")
    torch.autograd.backward(loss)


def _check_classes(problem: Problem, output: Any, target: Any) -> None:
    classes = problem.parts.classes
    labelled = isinstance(target, Tensor) and not target.is_floating_point() and problem.experiment.loss.name == "cross_entropy"
    if labelled and classes and isinstance(output, Tensor) and output.ndim >= 2 and output.shape[1] < classes:
        raise ConfigError(
            f"the model has {output.shape[1]} outputs, but labels go up to {classes - 1}: it needs {classes} outputs", key="model"
        )


def _check_finite(batch: Any, output: Any, loss: Tensor) -> None:
    """Say where a loss that is not finite before any training comes from."""
    if bool(loss.isfinite()):
        return
    inputs = [tensor for tensor in _tensors(batch) if tensor.is_floating_point()]
    if not all(bool(tensor.isfinite().all()) for tensor in inputs):
        raise DataError("a batch of training samples holds NaN or infinite values: remove these samples or fill the values in")
    if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
        largest = max((float(tensor.abs().max()) for tensor in inputs if tensor.numel()), default=0.0)
        raise DataError(
            f"the untrained model's output is not finite; inputs reach {largest:.3g}: scale them to about 1, or look at its layers"
        )
    raise ConfigError(f"the loss of the untrained model is {loss.item():g}: the loss does not fit these outputs and targets", key="loss")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


@contextmanager
def _blaming(problem: Problem, size: int) -> Iterator[None]:
    """Say whose mistake an exception is: the user's code's, or of a built-in model that does not fit the data."""
    experiment = problem.experiment
    target = experiment.step.target if experiment.step is not None else experiment.model.target
    try:
        if target is not None:
            with user_code("taking the first training step", target):
                yield
        else:
            yield
    except Exception as error:
        if is_out_of_memory(error):
            raise ConfigError(f"a batch of {size} samples does not fit into memory: use less", key="baseline.batch_size") from error
        if isinstance(error, HptuneError):
            raise
        reason = " ".join(str(error).split())[:300]
        shape = problem.parts.sample_shape
        raise ConfigError(
            f"{experiment.model.name} cannot be trained on batches of {size} samples of shape {shape} ({type(error).__name__}: {reason})",
            key="model",
        ) from error
