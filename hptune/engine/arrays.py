"""What may come in as an array, and what is held of it: conversions, image layout, and the checks that end in a DataError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hptune.errors import DataError

Tree = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""A model's input: a tensor, or a tuple or dict of tensors with the samples along the first axis."""
Indices = NDArray[np.int64]
Layout = Literal["channels_first", "channels_last"]
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Arrays:
    """One part of a data set in main memory: `x` and `y` with the same number of samples along the first axis."""

    x: Tree
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class labels, shape (samples,), or None where `y` holds anything else."""
        return self.y.numpy() if self.y.ndim == 1 and self.y.dtype == torch.int64 else None

    def subset(self, indices: Indices) -> Arrays:
        """The samples at `indices`, in that order."""
        chosen = torch.from_numpy(indices)
        return Arrays(map_tree(lambda leaf: leaf[chosen], self.x), self.y[chosen])


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply `function` to every leaf of a tree (and to the leaves of `others` at the same places)."""
    if isinstance(tree, tuple):
        return tuple(map_tree(function, *leaves) for leaves in zip(tree, *others, strict=True))
    if isinstance(tree, dict):
        return {key: map_tree(function, tree[key], *(other[key] for other in others)) for key in tree}
    return function(tree, *others)


def leaves(tree: Tree, name: str = "x") -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a tree with a name to show: `x`, `x[1]`, `x['mask']`."""
    if isinstance(tree, tuple):
        yield from ((f"{name}[{i}]", leaf) for i, leaf in enumerate(tree))
    elif isinstance(tree, dict):
        yield from ((f"{name}[{key!r}]", leaf) for key, leaf in tree.items())
    else:
        yield name, tree


def as_arrays(x: Any, y: Any, *, part: str, layout: Layout | None) -> Arrays:
    """Convert and check one part; `part` says which, for messages ("the train part of data.npz").

    `x`: an array or tensor, or a tuple or dict of them; uint8 leaves come out as images (samples, channels, height, width).
    Raises DataError for what cannot be trained on.
    """
    if isinstance(x, tuple | dict) and not x:
        raise DataError(f"x of {part} is an empty {type(x).__name__}: give at least one array")
    tree: Tree
    if isinstance(x, dict):
        if not all(isinstance(key, str) for key in x):
            raise DataError(f"the keys of x of {part} must be words: they become arguments of the model; got {', '.join(map(repr, x))}")
        tree = {key: _input(leaf, f"x[{key!r}] of {part}", layout) for key, leaf in x.items()}
    elif isinstance(x, tuple):
        tree = tuple(_input(leaf, f"x[{i}] of {part}", layout) for i, leaf in enumerate(x))
    else:
        tree = _input(x, f"x of {part}", layout)
    arrays = Arrays(tree, _as_target(y, f"y of {part}"))
    for name, leaf in leaves(tree):
        if len(leaf) != len(arrays.y):
            raise DataError(f"{name} of {part} has {len(leaf)} samples, y has {len(arrays.y)}: give one target for each sample")
    if not len(arrays):
        raise DataError(f"{part} is empty: give it at least one sample")
    return arrays


def _input(value: Any, what: str, layout: Layout | None) -> Tensor:
    tensor = as_tensor(value, what)
    if tensor.dtype == torch.uint8:
        tensor = as_images(tensor, what, layout)
    elif tensor.dtype != torch.bool and not tensor.is_floating_point():
        tensor = tensor.to(torch.int64)
    _check_values(tensor, what)
    return tensor


def _as_target(value: Any, what: str) -> Tensor:
    if isinstance(value, dict) or (isinstance(value, tuple) and value and np.ndim(value[0])):
        raise DataError(f"{what} is a {type(value).__name__}: give one array; for several, return a Dataset and write a step target")
    tensor = as_tensor(value, what)
    tensor = tensor if tensor.is_floating_point() else tensor.to(torch.int64)
    _check_values(tensor, what)
    return tensor


def as_tensor(value: Any, what: str) -> Tensor:
    """Return an array, tensor, data frame or list of numbers as a contiguous tensor in main memory; float64 becomes float32.

    Raises DataError for text, objects, ragged lists, complex numbers and scalars.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(f"{what} is ragged: its samples have different shapes ({error}): pad them, or return a Dataset") from error
        if array.dtype.kind not in "biuf":
            kind = {"O": "Python objects (or rows of different length)", "U": "text", "S": "text", "c": "complex numbers"}
            held = kind.get(array.dtype.kind, f"values of type {str(array.dtype)[:60]}")
            raise DataError(f"{what} holds {held}: it must hold numbers, in an array of one shape")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            if array.size and array.max() > np.iinfo(np.int64).max:
                raise DataError(f"{what} holds the integer {array.max()}: the largest that can be used is 2**63 - 1")
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # torch has no long double
            array = array.astype(np.float64)
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=not array.flags.writeable)
        tensor = torch.from_numpy(array)
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
        raise DataError(f"{what} is a {tensor.dtype} tensor of layout {tensor.layout}: it must hold plain real numbers")
    if tensor.ndim == 0:
        raise DataError(f"{what} is a single number: it must be an array with the samples along its first axis")
    return (tensor.float() if tensor.dtype == torch.float64 else tensor).contiguous()


def as_images(tensor: Tensor, what: str, layout: Layout | None) -> Tensor:
    """Return uint8 images as (samples, channels, height, width).

    Three axes are one channel; four are channels last where the last axis is 1, 3 or 4, channels first where the second is.
    Raises DataError where both or neither fits and `layout` does not say.
    """
    if tensor.ndim == 3:
        return tensor[:, None]
    shape = shape_of(tensor)
    if tensor.ndim != 4:
        raise DataError(f"{what} is uint8 of shape {shape}: uint8 means images, with 3 axes or 4; give other numbers as float32 or int64")
    first, last = tensor.shape[1] in CHANNELS, tensor.shape[3] in CHANNELS
    if layout is None and first == last:
        fits = "both channels first and channels last fit" if first else "no axis has 1, 3 or 4 channels"
        raise DataError(f"{what} has shape {shape}, where {fits}: set data.layout to channels_first or channels_last")
    if layout == "channels_last" or (layout is None and last):
        return tensor.permute(0, 3, 1, 2).contiguous()
    return tensor


def _check_values(tensor: Tensor, what: str) -> None:
    """Raise DataError where a sample holds no values, or values that are not finite."""
    if len(tensor) and not tensor[0].numel():
        raise DataError(f"{what} has shape {shape_of(tensor)}: its samples hold no values")
    if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
        return
    bad = ~tensor.isfinite()
    first = tuple(int(i) for i in bad.nonzero()[0])
    raise DataError(
        f"{what} holds {int(bad.sum())} values that are NaN or infinite, the first at index {first if len(first) > 1 else first[0]}: "
        "remove these samples or fill the values in; float32 ends at 3.4e38"
    )


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape as plain integers, as messages show it."""
    return tuple(tensor.shape)
