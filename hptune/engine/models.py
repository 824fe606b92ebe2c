"""The network of an experiment: built in, from torchvision, or the user's own; pretrained and partly frozen where asked."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from hptune.config.fields import quoted
from hptune.config.schema import Model
from hptune.engine.arguments import suggestion
from hptune.engine.memory import is_out_of_memory
from hptune.engine.nets import BUILT_IN, build_built_in
from hptune.engine.targets import call_target, load_target
from hptune.engine.weights import freeze, load_weights, match_weights, read_weights
from hptune.errors import ConfigError, UserCodeError, abridged

Shape = tuple[int, ...]

LONGEST_REASON = 300  # characters of what torch or torchvision says
SMALL_IMAGE = 64  # pixels a side; torchvision's classification models are published for about 224


def build_model(section: Model, *, sample_shape: Shape | None, outputs: int, token_ids: bool = False) -> nn.Module:
    """Return the network of `section` on the CPU, in training mode, initialized from torch's global random state.

    `sample_shape` is the shape of one input sample, None where a sample is not one tensor; `token_ids` says that it holds
    integers. `outputs` is the number of classes, or the width of a regression target. Nothing is ever downloaded.

    Raises ConfigError where name, args, weights or patterns do not fit, UserCodeError where the user's code does not.
    """
    if section.target is not None:
        model = _from_target(section.target, section.args)
    else:
        model = _by_name(section.name or "", section.args, _image_or_flat(section.name, sample_shape, token_ids), outputs)
    if section.pretrained is not None:
        load_weights(model, section.pretrained)
    freeze(model, section.freeze)
    return model.train()


def model_notes(section: Model, model: nn.Module, sample_shape: Shape | None) -> tuple[str, ...]:
    """Return sentences worth showing about `model` as built from `section`: small images, one channel, unused weights."""
    notes = []
    if section.name is not None and section.name not in BUILT_IN and sample_shape is not None:
        notes += _torchvision_notes(section.name, model, sample_shape)
    if section.pretrained is not None:
        match = match_weights(model, read_weights(section.pretrained))
        if match.left_out:
            notes.append(f"{section.pretrained}: {', '.join(match.left_out)} did not match and start from random values")
    return tuple(notes)


def frozen_modules(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the modules with buffers inside wholly frozen parts of `model`: held in eval mode, their statistics stay as they are."""
    frozen = [part for part in model.modules() if (own := list(part.parameters())) and not any(p.requires_grad for p in own)]
    inside = {id(module): module for part in frozen for module in part.modules() if any(True for _ in module.buffers(recurse=False))}
    return tuple(inside.values())


def _image_or_flat(name: str | None, sample_shape: Shape | None, token_ids: bool) -> Shape:
    remedy = "write a model of your own and name it in model.target"
    if sample_shape is None:
        raise ConfigError(
            f"{name} takes one tensor a sample, but these samples are tuples, dicts or of unlike shapes: {remedy}", key="model.name"
        )
    if token_ids:
        raise ConfigError(f"{name} takes floating-point numbers, but these samples hold integers (token ids?): {remedy}", key="model.name")
    return sample_shape


def _by_name(name: str, args: dict[str, Any], sample_shape: Shape, outputs: int) -> nn.Module:
    if name in BUILT_IN:
        try:
            return build_built_in(name, args, sample_shape, outputs)
        except (RuntimeError, TypeError, MemoryError) as error:  # torch's, for sizes beyond the memory or beyond 64 bits
            raise _does_not_take(name, error) from error
    from torchvision import models

    published = models.list_models(module=models)
    if name not in published:
        known = [*BUILT_IN, *published]
        remedy = suggestion(name, known) or f": use one of {', '.join(BUILT_IN)}, a torchvision classification model, or a target"
        raise ConfigError(f"unknown model {quoted(name)}{remedy}", key="model.name")
    return _from_torchvision(name, args, sample_shape, outputs)


def _from_torchvision(name: str, args: dict[str, Any], sample_shape: Shape, outputs: int) -> nn.Module:
    from torchvision import models

    if len(sample_shape) != 3 or sample_shape[0] not in (1, 3):
        raise ConfigError(
            f"{name} takes images of 1 or 3 channels, but a sample has shape {sample_shape}: use linear or mlp", key="model.name"
        )
    for argument, remedy in (("weights", "name a local file in model.pretrained"), ("num_classes", "it follows from the data")):
        if argument in args:
            raise ConfigError(f"leave out {argument}: {remedy}", key=f"model.args.{argument}")
    single_output = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    try:
        model: nn.Module = models.get_model(name, weights=None, **{"num_classes": outputs, **single_output, **args})
    except Exception as error:  # whatever its constructors meet in args they were not written for
        raise _does_not_take(f"torchvision's {name}", error) from error
    if sample_shape[0] == 1:
        model.register_forward_pre_hook(_repeat_channel)
    _check_fit(name, model, sample_shape)
    return model


def _does_not_take(name: str, error: Exception) -> ConfigError:
    if is_out_of_memory(error):
        return ConfigError(f"{name} of this size does not fit into memory: make it smaller", key="model.args")
    reason = abridged(str(error).strip().partition("\n")[0], LONGEST_REASON) or type(error).__name__
    return ConfigError(f"{name} does not take these: {reason}", key="model.args")


def _repeat_channel(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Show a 3-channel network a grey image three times; a hook, so that parameter names stay torchvision's."""
    return (inputs[0].expand(-1, 3, -1, -1), *inputs[1:])


def _check_fit(name: str, model: nn.Module, sample_shape: Shape) -> None:
    try:
        _dry_run(model, sample_shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        size = "x".join(map(str, sample_shape[1:]))
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{name} cannot take images of {size} pixels ({reason}): use a built-in such as resnet20", key="model.name"
        ) from error


def _dry_run(model: nn.Module, sample_shape: Shape) -> None:
    """Run one blank sample through in eval mode: no statistic moves and no random number is drawn."""
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, *sample_shape))
    model.train(was_training)


def _torchvision_notes(name: str, model: nn.Module, sample_shape: Shape) -> list[str]:
    notes = []
    if sample_shape[0] == 1:
        notes.append(f"{name} takes 3 channels: the one channel of these images is repeated")
    if min(sample_shape[1:]) < SMALL_IMAGE and (smallest := _smallest_image(model, sample_shape)) is not None:
        size, left = "x".join(map(str, sample_shape[1:])), "x".join(map(str, smallest))
        notes.append(
            f"{name} as published shrinks {size} images to {left}: its first layers are meant for 224x224; "
            "a built-in such as resnet20 is made for small images"
        )
    return notes


def _smallest_image(model: nn.Module, sample_shape: Shape) -> tuple[int, int] | None:
    """Return height and width after the last convolution that looks at neighbours; None without one."""
    sizes: list[tuple[int, int]] = []

    def record(_: nn.Module, __: Any, output: Tensor) -> None:
        sizes.append((output.shape[2], output.shape[3]))

    spatial = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)]
    handles = [module.register_forward_hook(record) for module in spatial]
    _dry_run(model, sample_shape)
    for handle in handles:
        handle.remove()
    return sizes[-1] if sizes else None


def _from_target(target: str, args: dict[str, Any]) -> nn.Module:
    code = load_target(target)
    # An instance is one object for all trials: each trains a copy of its own.
    model = copy.deepcopy(code) if isinstance(code, nn.Module) else call_target(target, args, what="building the model")
    if not isinstance(model, nn.Module):
        raise UserCodeError(f"model target {target} returned {type(model).__name__}, not a torch.nn.Module")
    parameters = list(model.parameters())
    if not parameters:
        raise UserCodeError(f"model target {target} has no parameters: nothing could be trained")
    if any(isinstance(p, UninitializedParameter) for p in parameters):
        raise UserCodeError(f"model target {target} has lazy layers of unknown size: pass a sample through it before returning it")
    return model
