"""Where the parts of a data set are held and how their batches come to the device. Nothing here changes a number of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from hptune.engine.arrays import Arrays, leaves
from hptune.engine.datasets import Items
from hptune.engine.feed import can_fork, loader_workers
from hptune.engine.parts import DatasetPart, Part, TensorPart
from hptune.engine.sources import Samples

SHARE_FOR_DATA = 0.5  # of the device's free memory; models, activations and workspaces want the rest
SHOWN = {"train": "training", "val": "validation", "test": "test"}

Collate = Callable[[Sequence[Any]], Any]


def place(
    parts: Mapping[str, Samples],
    statistics: Any,
    collate: Collate | None,
    device: torch.device,
    *,
    workers: int | Literal["auto"],
    room: int | None = None,
) -> tuple[dict[str, Part], list[str]]:
    """Return each part as trials use it, with sentences on what is not as usual: arrays that are streamed, Datasets that are read.

    `statistics` are those of `TensorPart`, `workers` is `data.workers`. `room`: bytes that arrays may take on the device; measured
    where not given.
    """
    count = loader_workers(workers, device)
    arrays = {name: part for name, part in parts.items() if isinstance(part, Arrays)}
    outside, notes = _streamed(arrays, room_on(device) if room is None else room)
    placed: dict[str, Part] = {}
    for name, part in parts.items():
        if isinstance(part, Items):
            placed[name] = DatasetPart(part.dataset, part.indices, collate, device, part.where, workers=count)
        else:
            placed[name] = TensorPart(part, statistics, device, resident=name not in outside)
    return placed, notes + ([] if arrays else [_reading(count, workers)])


def streamed(parts: Mapping[str, Arrays], device: torch.device) -> set[str]:
    """The names of the parts that do not fit on `device`."""
    return _streamed(parts, room_on(device))[0]


def room_on(device: torch.device) -> int | None:
    """Bytes of the device's memory that a data set may take; None on a CPU, where it is held in any case."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE_FOR_DATA)
    if device.type == "mps":
        return int((torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) * SHARE_FOR_DATA)
    return None


def size_of(arrays: Arrays) -> int:
    """Bytes of a part's arrays."""
    return sum(leaf.nbytes for _, leaf in leaves(arrays.x)) + arrays.y.nbytes


def _streamed(parts: Mapping[str, Arrays], room: int | None) -> tuple[set[str], list[str]]:
    """The names of the parts that do not fit, and a sentence on them; the training part, read most often, has the first choice."""
    if room is None:
        return set(), []
    sizes = {name: size_of(parts[name]) for name in SHOWN if name in parts}
    left, streamed = room, []
    for name, size in sizes.items():
        if size <= left:
            left -= size
        else:
            streamed.append(name)
    if not streamed:
        return set(), []
    names = " and ".join(SHOWN[name] for name in streamed)
    data = f"the {names} data ({_shown(sum(sizes[name] for name in streamed))})"
    others = " beside the other parts" if len(streamed) < len(sizes) else ""
    half = f"half of the device's free memory ({_shown(room)})"
    return set(streamed), [f"{data} do not fit into {half}{others}: they are streamed from main memory"]


def _reading(count: int, wanted: int | Literal["auto"]) -> str:
    if count:
        return f"items are read by {count} loader worker{'s' if count > 1 else ''}"
    unheard = "" if can_fork() or wanted in ("auto", 0) else ": data.workers needs a system that can fork"
    return f"items are read by the process that trains{unheard}"


def _shown(size: int) -> str:
    """A size in memory for people, such as 12.3 GB."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit / 10), (1e3, "kB"))
    return f"{size / unit:.1f} {name}"
