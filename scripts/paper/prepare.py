"""The data sets as the configs read them: one .npz file each, made from torchvision's where it is missing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from hptune.errors import DataError

KINDS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def prepare(path: Path) -> bool:
    """Write `path`, named after its data set, from torchvision's files beside it, downloaded if need be; True where it was missing.

    Raises DataError where there is no such set, or it cannot be had.
    """
    if path.is_file():
        return False
    from torchvision import datasets

    if path.stem not in KINDS:
        raise DataError(f"{path} is missing, and torchvision has no such data set")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = getattr(datasets, KINDS[path.stem])
    parts = {}
    for part in ("train", "test"):
        try:
            held = kind(str(path.parent), train=part == "train", download=True)
        except Exception as error:  # whatever downloads end with
            raise DataError(f"{path.stem} could not be downloaded: {error}") from error
        parts[f"x_{part}"], parts[f"y_{part}"] = np.asarray(held.data), np.asarray(held.targets, dtype=np.int64)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, **parts)
    Path(file.name).replace(path)
    return True
