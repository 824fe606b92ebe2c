"""A data set on its way to another machine, and what a worker there needs to work as if it were here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hptune.engine.arrays import Arrays, map_tree
from hptune.engine.parts import Parts, TensorPart
from hptune.engine.placing import streamed


@dataclass(frozen=True, slots=True)
class _Packed:
    """A tensor as bytes, of whatever type: numpy arrays travel without a copy, and are read where they arrive."""

    content: NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A data set's arrays: for each part that there is its input, its target, the statistics. `about`: the other fields of `Parts`."""

    parts: Mapping[str, tuple[Any, _Packed, Any]]
    about: Mapping[str, Any]


class Box(Protocol):
    """What leads to something that lies elsewhere."""

    def open(self) -> Any:
        """Return it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What goes with every trial to another machine; small, and made to be pickled.

    `key`: of the data set (see `sharing.data_key`). `box`: leads to its `Parcel`, None where a worker must read the data itself. `folders`:
    folders below the worker's current one, and whose copies they are. `identity`: the task's, for telling what is not the same there.
    """

    key: str
    box: Box | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)

    def homeward(self, text: str) -> str:
        """Put the places of the user's files at home for those they have here."""
        for here, home in self.folders.items():
            text = text.replace(str(Path(here).resolve()), home).replace(f"{here}/", f"{home}/")
        return text


def pack(parts: Parts) -> Parcel | None:
    """Pack a data set held in main memory; None for Datasets, whose items lie where their code finds them."""
    packed: dict[str, tuple[Any, _Packed, Any]] = {}
    for name, part in parts.held.items():
        if not isinstance(part, TensorPart):
            return None
        packed[name] = (map_tree(_packed, part.arrays.x), _packed(part.arrays.y), part.statistics)
    return Parcel(parts=packed, about=parts.about)


def unpack(parcel: Parcel, device: torch.device) -> Parts:
    """Return the data set on `device`; parts that do not fit there are streamed, as they would be had they been read here."""
    arrays = {name: Arrays(map_tree(_unpacked, x), _unpacked(y)) for name, (x, y, _) in parcel.parts.items()}
    kept_here = streamed(arrays, device)
    parts = {
        name: TensorPart(arrays[name], statistics, device, resident=name not in kept_here)
        for name, (_, _, statistics) in parcel.parts.items()
    }
    return Parts.of(parts, parcel.about)


def _packed(leaf: Tensor) -> _Packed:
    return _Packed(leaf.contiguous().flatten().view(torch.uint8).numpy(), leaf.dtype, tuple(leaf.shape))


def _unpacked(leaf: _Packed) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not writable")  # nor is anything of a data set written to
        return torch.from_numpy(leaf.content).view(leaf.dtype).view(leaf.shape)
