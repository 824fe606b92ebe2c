"""The built-in networks: what Smith's report trained, at its sizes, and small ones for small data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hptune.engine.arguments import check_arguments
from hptune.engine.nets.deep import densenet40, resnet20, resnet56, wide_resnet32
from hptune.engine.nets.small import cifar3, lenet, linear, mlp, small_cnn
from hptune.errors import ConfigError

Shape = tuple[int, ...]

FLAT: dict[str, Callable[..., nn.Module]] = {"linear": linear, "mlp": mlp}
IMAGE: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": small_cnn,
    "lenet": lenet,
    "cifar3": cifar3,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "wide_resnet32": wide_resnet32,
    "densenet40": densenet40,
}
BUILT_IN = {**FLAT, **IMAGE}

# Shortest side of an image in pixels, and what both sides must be divisible by.
SIDES = {"small_cnn": (4, 1), "lenet": (16, 1), "cifar3": (8, 1), "wide_resnet32": (4, 4), "densenet40": (4, 1)}


def build_built_in(name: str, args: Mapping[str, Any], sample_shape: Shape, outputs: int) -> nn.Module:
    """Return the built-in network `name`, freshly initialized from torch's global random state.

    `sample_shape` is one sample's shape; image networks need (channels, height, width), `linear` and `mlp` flatten any. The
    output has shape (batch, outputs). Raises ConfigError where `args` or the shape do not fit.
    """
    builder = BUILT_IN[name]
    check_arguments(builder, args, name=name, key="model.args")
    if name in IMAGE:
        _check_image(name, sample_shape)
    return builder(sample_shape, outputs, **args)


def _check_image(name: str, shape: Shape) -> None:
    if len(shape) != 3:
        fits = " or ".join(FLAT)
        raise ConfigError(f"{name} takes images (channels, height, width), but a sample has shape {shape}: use {fits}", key="model.name")
    shortest, multiple = SIDES.get(name, (1, 1))
    height, width = shape[1:]
    if min(height, width) < shortest:
        message = f"{name} needs images of at least {shortest}x{shortest} pixels, these have {height}x{width}: use small_cnn or resnet20"
        raise ConfigError(message, key="model.name")
    if height % multiple or width % multiple:
        message = f"{name} needs image sides divisible by {multiple}, these are {height}x{width}: use small_cnn or resnet20"
        raise ConfigError(message, key="model.name")
