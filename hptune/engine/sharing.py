"""One copy of a data set in main memory for all worker processes of a machine.

The process that has opened the problem puts the arrays into an anonymous memory file, which no name in any folder refers to: it is
gone with the last process that uses it, however that ends. A small handle tells workers where to find it; they map the file, copy
on write, instead of reading, dividing and hashing the data themselves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hptune.config.schema import Experiment
from hptune.engine.arrays import Arrays, map_tree
from hptune.engine.parts import Parts, TensorPart
from hptune.engine.workload import Problem
from hptune.trial import content_hash

ALIGNMENT = 64  # bytes: a cache line, and more than any dtype or vector instruction asks for


@dataclass(frozen=True, slots=True)
class _Place:
    """One array in the file: where it begins, in bytes, and what it is."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """How another process of this machine finds the data set `key` (see `data_key`); small, and made to be pickled.

    `file`: device, inode and size of the file at `path`, which refers to another one, or none, once the owner has closed it.
    `parts`: for each part that there is its arrays, as places, and their statistics. `about`: the other fields of `Parts`.
    """

    key: str
    path: str
    file: tuple[int, int, int]
    parts: Mapping[str, tuple[Any, _Place, Any]]
    about: Mapping[str, Any]


def data_key(experiment: Experiment) -> str:
    """A hash of what decides which data set there is, how it is divided and where it is held."""
    return content_hash([experiment.data.model_dump(mode="json"), experiment.seed, experiment.device])


@contextmanager
def shared(problem: Problem) -> Iterator[tuple[Problem, Handle | None]]:
    """Share the problem's data within: yield the problem on the shared copy, so that its own can be freed, and the handle.

    They are the problem itself and None where there is nothing to share: Datasets, other devices than the CPU, systems without memory
    files, no memory left. Workers that have attached keep the data afterwards.
    """
    descriptor = _memory_file() if _sharable(problem) else None
    if descriptor is None:
        yield problem, None
        return
    try:
        handle = _filled(descriptor, problem)
        parts = attach(handle) if handle is not None else None
        if parts is not None:
            problem = replace(problem, parts=parts)  # and let go of the first one
        yield problem, None if parts is None else handle
    finally:
        os.close(descriptor)


def attach(handle: Handle) -> Parts | None:
    """Map the data set of `handle` into this process; None where its owner no longer has it, or it cannot be reached from here."""
    try:
        if not _is_still(handle):
            return None
        memory = torch.from_file(handle.path, shared=False, size=handle.file[2], dtype=torch.uint8)
    except (OSError, RuntimeError):
        return None
    cpu = torch.device("cpu")
    parts = {}
    for name, (x, y, statistics) in handle.parts.items():
        arrays = Arrays(map_tree(lambda place: _mapped(memory, place), x), _mapped(memory, y))
        parts[name] = TensorPart(arrays, statistics, cpu)
    return Parts.of(parts, handle.about)


def _memory_file() -> int | None:
    """A descriptor of an anonymous file in memory, closed in processes that are started; None where the system has none."""
    if not hasattr(os, "memfd_create") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.memfd_create("hptune data")
    except OSError:
        return None


def _sharable(problem: Problem) -> bool:
    return problem.device.type == "cpu" and all(isinstance(part, TensorPart) for part in problem.parts.held.values())


def _filled(descriptor: int, problem: Problem) -> Handle | None:
    """Write the arrays to the file; None where memory does not suffice."""
    layout: dict[str, tuple[Any, _Place, Any]] = {}
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:

            def put(leaf: Tensor) -> _Place:
                file.write(bytes(-file.tell() % ALIGNMENT))
                place = _Place(file.tell(), leaf.dtype, tuple(leaf.shape))
                file.write(leaf.contiguous().flatten().view(torch.uint8).numpy().data)
                return place

            for name, part in problem.parts.held.items():
                assert isinstance(part, TensorPart)
                layout[name] = (map_tree(put, part.arrays.x), put(part.arrays.y), part.statistics)
    except OSError:
        return None
    return Handle(
        key=data_key(problem.experiment),
        path=f"/proc/{os.getpid()}/fd/{descriptor}",
        file=_identity(os.fstat(descriptor)),
        parts=layout,
        about=problem.parts.about,
    )


def _is_still(handle: Handle) -> bool:
    """Whether the path leads to the file it led to: descriptors and process ids are given to others in time."""
    found = Path(handle.path).stat()
    return stat.S_ISREG(found.st_mode) and _identity(found) == handle.file


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_size


def _mapped(memory: Tensor, place: _Place) -> Tensor:
    size = place.dtype.itemsize * torch.Size(place.shape).numel()
    return memory[place.offset : place.offset + size].view(place.dtype).view(place.shape)
