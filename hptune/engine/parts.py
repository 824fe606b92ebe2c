"""The parts a model trains on and is measured on: batches on the device, by index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate

from hptune.engine.arrays import Arrays, Indices, Tree, map_tree
from hptune.engine.feed import CPU, IndexBatches, ItemBatches, gather_ahead, map_batch, read_batches
from hptune.engine.targets import user_code

PARTS = ("train", "val", "test")


class MapDataset(Protocol):
    """A map-style torch Dataset: items by number, and how many there are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Part(Protocol):
    """Samples that can be taken by index."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Any:
        """Return the batch of the samples at `indices` (int64, in main memory) on the device.

        It is `(x, y)`: `x` a tensor, or a tuple or dict of tensors, images normalized to float32; `y` a tensor. Where a Dataset's
        `collate` (or its items) form something else, the batch is that, for a `step` target to take apart.
        """
        ...

    def feed(self, batches: IndexBatches, seed: int, /, start: int = 0) -> Generator[Any, None, None]:
        """Yield the batches of `batches` from number `start` on, in order, each as `take` returns it, read ahead where that pays.

        Whatever random numbers a Dataset's items draw depends on `seed` and the batch's number in `batches` alone, and the global
        random states are left as they were. Closing the generator ends the threads and processes that read for it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A data set, divided and on the device.

    `classes`: number of classes, 0 where targets are not integers. `sample_shape` and `target_shape`: the shapes of one sample's input
    and target, images as (channels, height, width); None where there is no single tensor. `mean` and `std`: of each image channel
    over the training part, pixels counted from 0 to 1; None where the input is not one image. `fingerprint`: SHA-256 of the content
    of all parts as divided. `notes`: sentences worth showing.
    """

    train: Part
    val: Part
    test: Part | None
    classes: int
    sample_shape: tuple[int, ...] | None
    target_shape: tuple[int, ...] | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, parts: Mapping[str, Part], about: Mapping[str, Any]) -> Parts:
        """Put together what `held` and `about` give."""
        return cls(train=parts["train"], val=parts["val"], test=parts.get("test"), **about)

    @property
    def held(self) -> dict[str, Part]:
        """The parts that there are, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    @property
    def about(self) -> dict[str, Any]:
        """The other fields."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in PARTS}


@dataclass(frozen=True, slots=True)
class Normalization:
    """Statistics of uint8 images, one entry a channel, on the scale 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Tensor) -> Normalization:
        """Exact statistics of uint8 images (samples, channels, height, width), from counts; a constant channel is left unscaled."""
        values = torch.arange(256, dtype=torch.float64)
        counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
        for start in range(0, len(images), 1024):  # counting widens pixels eightfold
            for channel, pixels in enumerate(images[start : start + 1024].unbind(1)):
                counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
        shares = counts / counts.sum(1, keepdim=True)
        mean = shares @ values
        std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
        return cls(tuple(mean.tolist()), tuple(torch.where(std > 0, std, 255.0).tolist()))

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and reciprocal deviation as float32 tensors of shape (1, channels, 1, 1)."""
        mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return mean.to(device, torch.float32), std.reciprocal().to(device, torch.float32)


class TensorPart:
    """Arrays in compact form; images are normalized and narrow floats widened a batch at a time, on the device.

    `statistics` has the structure of the input: a Normalization for each leaf of images, None for any other. `resident`: the arrays
    are held on the device; if not, they stay in main memory and batches go to the device one by one. The batches are the same.
    """

    def __init__(self, arrays: Arrays, statistics: Any, device: torch.device, *, resident: bool = True) -> None:
        self.statistics, self.resident, self.device = statistics, resident, device
        home = device if resident else CPU
        self.arrays = Arrays(map_tree(lambda leaf: leaf.to(home), arrays.x), arrays.y.to(home))
        self._scales = map_tree(lambda _, images: images and images.tensors(device), arrays.x, statistics)

    def __len__(self) -> int:
        return len(self.arrays)

    def take(self, indices: Tensor) -> tuple[Tree, Tensor]:
        """See `Part.take`."""
        held = self.arrays
        if not self.resident:
            return self._moved(self._gathering(indices)())
        at = indices.to(self.device, non_blocking=True)
        # On a CPU index_select copies whole rows, several times as fast as indexing by a tensor does.
        x: Tree = map_tree(lambda leaf, scale: _normalized(leaf.index_select(0, at), scale), held.x, self._scales)
        return x, _widened(held.y.index_select(0, at))

    def feed(self, batches: IndexBatches, _seed: int, /, start: int = 0) -> Generator[tuple[Tree, Tensor], None, None]:
        """See `Part.feed`; nothing is drawn."""
        if self.resident:
            return take_each(self, batches, start)
        return (self._moved(rows) for rows in gather_ahead(self._gathering, batches, start))

    def _gathering(self, indices: Tensor) -> Callable[[], Arrays]:
        """Return what copies the rows at `indices` together; memory is allocated here, as on CUDA that must not be done in a thread."""
        pin = self.device.type == "cuda"
        held = self.arrays
        with torch.inference_mode(False):  # threads are never in it, and may not write to what was made there
            into = map_tree(lambda leaf: torch.empty((len(indices), *leaf.shape[1:]), dtype=leaf.dtype, pin_memory=pin), (held.x, held.y))

        def gather() -> Arrays:
            return Arrays(*map_tree(lambda leaf, rows: torch.index_select(leaf, 0, indices, out=rows), (held.x, held.y), into))

        return gather

    def _moved(self, rows: Arrays) -> tuple[Tree, Tensor]:
        x, y = (map_tree(lambda leaf: leaf.to(self.device, non_blocking=True), tree) for tree in (rows.x, rows.y))
        return map_tree(_normalized, x, self._scales), _widened(y)


def take_each(part: Part, batches: IndexBatches, start: int = 0) -> Generator[Any, None, None]:
    """Take the batches from number `start` on, one when the one before is done with."""
    return (part.take(batches[number]) for number in range(start, len(batches)))


def statistics_of(x: Tree) -> Any:
    """Statistics of a training part's input, in its structure: None for leaves that are no images (uint8)."""
    return map_tree(lambda leaf: Normalization.of(leaf) if leaf.dtype == torch.uint8 else None, x)


def _normalized(batch: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
    return _widened(batch) if scale is None else batch.float().sub_(scale[0]).mul_(scale[1])


class DatasetPart:
    """Chosen items of a map-style Dataset, read and stacked a batch at a time, by `workers` processes of their own where there are any.

    `collate` makes a batch of a list of items; without one they are stacked as torch's `default_collate` does, with tuples for
    lists, float32 for wider floats and int64 for integers. `where` names the Dataset in messages.
    """

    def __init__(
        self,
        dataset: MapDataset,
        indices: Indices,
        collate: Callable[[Sequence[Any]], Any] | None,
        device: torch.device,
        where: str,
        *,
        workers: int = 0,
    ) -> None:
        self._dataset, self._indices, self._device, self._where = dataset, indices, device, where
        self._collate = collate or default_batch
        self._workers = workers

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Tensor) -> Any:
        """See `Part.take`. Items draw from the global random states."""
        return to_device(self._read(indices), self._device)

    def feed(self, batches: IndexBatches, seed: int, /, start: int = 0) -> Generator[Any, None, None]:
        """See `Part.feed`."""
        items = ItemBatches(self._read, batches, seed)
        with contextlib.closing(read_batches(items, start, workers=self._workers, pin=self._device.type == "cuda")) as read:
            for batch in read:
                yield to_device(batch, self._device)

    def _read(self, indices: Tensor) -> Any:
        with user_code("reading a batch", self._where):
            batch = self._collate([self._dataset[int(self._indices[i])] for i in indices.tolist()])
        return tuple(batch) if isinstance(batch, tuple | list) and len(batch) == 2 else batch


def default_batch(items: Sequence[Any]) -> Any:
    """Stack items as `default_collate` does, in the forms the rest of the engine expects."""
    return _plain(default_collate(list(items)))


def to_device(value: Any, device: torch.device) -> Any:
    """Move every tensor inside tuples, lists and dicts, and whatever else has a `to` method, to the device."""

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.to(device, non_blocking=True)
        return leaf.to(device) if hasattr(leaf, "to") else leaf

    return map_batch(moved, value)


def batches(part: Part, batch_size: int, limit: int | None = None) -> Iterator[Any]:
    """Yield the part's batches in its own order, the ragged last one included; of its first `limit` samples where given."""
    samples = len(part) if limit is None else min(limit, len(part))
    for start in range(0, samples, batch_size):
        yield part.take(torch.arange(start, min(start + batch_size, samples)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    return _widened(value) if isinstance(value, Tensor) else value


def _widened(tensor: Tensor) -> Tensor:
    """Floats of any width as float32, integers as int64, truth values as they are."""
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype == torch.bool else tensor.to(torch.int64)
