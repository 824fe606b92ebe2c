"""Map-style torch Datasets as parts of a data set: their labels, what their items hold, and what identifies them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from hptune.engine.arrays import Indices
from hptune.engine.parts import MapDataset, default_batch
from hptune.engine.targets import object_hash, user_code
from hptune.errors import DataError
from hptune.pulse import PULSE

SAMPLED_ITEMS = 32


@dataclass(frozen=True, slots=True)
class Items:
    """One part of a data set whose samples are read one by one; `where` names it in messages."""

    dataset: MapDataset
    where: str
    indices: Indices
    labels: NDArray[np.int64] | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, indices: Indices) -> Items:
        """The samples at `indices`, in that order."""
        return Items(self.dataset, self.where, self.indices[indices], None if self.labels is None else self.labels[indices])


def as_items(dataset: Any, *, where: str, collated: bool) -> Items:
    """Check a Dataset and find its labels; `collated` says that the user's own collate will form its batches.

    Raises DataError where it is empty or its items cannot be trained on as they are.
    """
    with user_code("asking its length", where):
        samples = len(dataset)
    if not samples:
        raise DataError(f"{where} is empty: give it at least one sample")
    item = _read(dataset, 0, where)
    labels = None
    if not collated:
        _check_item(item, where)
        if isinstance(item, tuple | list) and len(item) == 2 and _is_label(item[1]):
            labels = _labels(dataset, int(item[1]), where)
    return Items(dataset, where, np.arange(samples), labels)


def shapes(items: Items, collate: Callable[[Sequence[Any]], Any] | None) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Shapes of one sample's input and target, None where the batch has no single tensor for it."""
    with user_code("forming a batch of its first sample", items.where):
        batch = (collate or default_batch)([items.dataset[int(items.indices[0])]])
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        return None, None
    x, y = (tuple(value.shape[1:]) if isinstance(value, Tensor) and value.ndim else None for value in batch)
    return x, y


def tensors_of(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """The `(x, y)` of a TensorDataset of two tensors, or of a Subset of one: these need no reading item by item."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors[0], dataset.tensors[1]
    if type(dataset) is Subset:
        inner = tensors_of(dataset.dataset)
        chosen = torch.as_tensor(dataset.indices, dtype=torch.int64)
        return None if inner is None else (inner[0][chosen], inner[1][chosen])
    return None


def identify(items: Items) -> tuple[str, bool]:
    """Return a SHA-256 of length, chosen indices, labels, the Dataset's source and some of its items, and whether items count.

    Items are read under fixed random states. They count only if a second reading agrees: those of a Dataset with a random state of
    its own would make it another data set every time.
    """
    digest = hashlib.sha256(f"{len(items.dataset)} {object_hash(items.dataset)} ".encode())
    digest.update(np.ascontiguousarray(items.indices).tobytes())
    digest.update(b"" if items.labels is None else np.ascontiguousarray(items.labels).tobytes())
    readings = [_digest_of_items(items) for _ in range(2)]
    stable = readings[0] == readings[1]
    digest.update(readings[0] if stable else b"")
    return digest.hexdigest(), stable


def _digest_of_items(items: Items) -> bytes:
    digest = hashlib.sha256()
    with _fixed_randomness():
        for at in np.unique(np.linspace(0, len(items) - 1, SAMPLED_ITEMS).round().astype(np.int64)):
            _digest(_read(items.dataset, int(items.indices[at]), items.where), digest.update)
    return digest.digest()


def _digest(value: Any, update: Callable[[bytes], None]) -> None:
    """Feed a value's content to `update`; of what is neither numbers, text nor a collection, its type's name."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().float().numpy() if value.dtype == torch.bfloat16 else value.detach().cpu().numpy()
    if isinstance(value, dict):
        value = [entry for key in value for entry in (key, value[key])]
    if isinstance(value, tuple | list):
        update(f"{len(value)} items".encode())
        for entry in value:
            _digest(entry, update)
    elif isinstance(value, str | bytes | int | float | bool | None):
        update(f"{value!r} ".encode())
    elif hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
        update(f"{array.dtype} {array.shape} ".encode())
        update(array.tobytes() if array.dtype.kind != "O" else b"")
    else:
        update(type(value).__qualname__.encode())


@contextmanager
def _fixed_randomness() -> Iterator[None]:
    """Seed the global random states within, and leave them as they were."""
    kept_python, kept_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(kept_python)
            np.random.set_state(kept_numpy)


def _read(dataset: MapDataset, index: int, where: str) -> Any:
    PULSE.beat()
    with user_code(f"reading its item {index}", where):
        return dataset[index]


def _check_item(item: Any, where: str) -> None:
    """Raise DataError for an item that cannot be stacked or trained on, with what would help."""
    x = item[0] if isinstance(item, tuple | list) and len(item) == 2 else item
    if type(x).__module__.startswith("PIL."):
        raise DataError(f"item 0 of {where} holds a PIL image: give the Dataset a transform that ends in a float tensor, such as ToTensor")
    if isinstance(x, Tensor | np.ndarray) and str(x.dtype).endswith("uint8"):
        raise DataError(f"item 0 of {where} holds a uint8 {type(x).__name__}: items go to the model as they are, so return floats")
    with user_code("stacking its first item: for items that do not stack, give data.collate", where):
        default_batch([item])


def _is_label(y: Any) -> bool:
    if isinstance(y, Tensor | np.ndarray):
        return y.ndim == 0 and not (y.is_floating_point() if isinstance(y, Tensor) else y.dtype.kind == "f")
    return isinstance(y, int | np.integer)


def _labels(dataset: Any, first: int, where: str) -> NDArray[np.int64]:
    """Labels from a `targets` attribute, as torchvision's sets have it, or else by reading every item once.

    An attribute of another length, or one that differs from the `first` item's label (a target transform), does not count.
    """
    known = _targets_attribute(dataset)
    if known is not None and len(known) == len(dataset) and known[0] == first:
        return known
    return np.array([int(_read(dataset, index, where)[1]) for index in range(len(dataset))], dtype=np.int64)


def _targets_attribute(dataset: Any) -> NDArray[np.int64] | None:
    if isinstance(dataset, Subset):
        inner = _targets_attribute(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices)]
    targets = getattr(dataset, "targets", None)
    if isinstance(targets, list | tuple | Tensor | np.ndarray):
        array = np.asarray(targets)
        if array.ndim == 1 and array.dtype.kind in "biu":
            return array.astype(np.int64)
    return None
