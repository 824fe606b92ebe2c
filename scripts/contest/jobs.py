"""The training jobs that searches are compared on: small enough for a core, real data first, some of them held out.

Rules of the stages are chosen on the development jobs; what is claimed is read on the others. A job whose results have led to a
change of the rules belongs to development from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pool = tuple[Array, Array]
"""Samples and their targets."""

BATCH_SIZES = [16, 32, 64, 128, 256]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A network, its data and its full length.

    `pool` gives all samples, of which each repetition draws its own `train`, `val` and `test` many without replacement; None where
    the data are not at hand. `noisy`: share of the training and validation labels that are replaced by random ones.
    """

    name: str
    held_out: bool
    pool: Callable[[], Pool | None]
    train: int
    val: int
    test: int
    epochs: float
    model: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    augment: tuple[str, ...] = ()
    noisy: float = 0.0

    def write(self, repetition: int, path: Path) -> None:
        """Write the repetition's parts as `arrays` reads them."""
        pool = self.pool()
        if pool is None:
            raise FileNotFoundError(f"{self.name}: its data are not in HPTUNE_DATA")
        x, y = pool
        draw = np.random.default_rng([repetition, *self.name.encode()])
        chosen = draw.permutation(len(x))[: self.train + self.val + self.test]
        x, y = x[chosen], y[chosen]
        seen = self.train + self.val
        if self.noisy:
            wrong = draw.random(seen) < self.noisy
            y[:seen][wrong] = draw.integers(y.max() + 1, size=int(wrong.sum()))
        ends = (self.train, seen)
        parts = {name: np.split(values, ends) for name, values in (("x", x), ("y", y))}
        np.savez(path, **{f"{name}_{part}": a[i] for name, a in parts.items() for i, part in enumerate(("train", "val", "test"))})

    def tree(self, repetition: int, path: Path) -> dict[str, Any]:
        """The config of the job's search, without its budget."""
        return {
            "name": self.name,
            "data": {"name": "arrays", "path": str(path), "augment": list(self.augment)},
            "model": dict(self.model),
            "budget": {"epochs": self.epochs, "search_epochs": self.epochs / 5},
            "stages": {"batch_size": {"values": BATCH_SIZES, "compare": "samples"}},
            "device": "cpu",
            "executor": {"name": "serial", "threads": 1},
            "seed": repetition,
            **self.settings,
        }


def _digits() -> Pool:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images * (255 / 16)).round().astype(np.uint8), found.target.astype(np.int64)


def _raw_digits() -> Pool:
    """The pixels as scikit-learn has them, from 0 to 16: inputs that nobody has scaled."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data.astype(np.float32), found.target.astype(np.int64)


def _spiral() -> Pool:
    """Three arms of a turn and a half each."""
    draw = np.random.default_rng(0)
    y = np.arange(3000) % 3
    radius = np.sqrt(draw.random(3000))
    angle = 3 * np.pi * radius + 2 * np.pi * y / 3 + draw.normal(0, 0.15, 3000)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) * 2
    return x.astype(np.float32), y.astype(np.int64)


def _stored(name: str) -> Pool | None:
    """The training part of a data set in the folder HPTUNE_DATA."""
    folder = os.environ.get("HPTUNE_DATA")
    path = Path(folder) / f"{name}.npz" if folder else None
    if path is None or not path.is_file():
        return None
    with np.load(path) as held:
        return held["x_train"], held["y_train"]


FASHION, MAGIC, MNIST, CIFAR, ADULT, HOUSING = (
    partial(_stored, name) for name in ("fashion_mnist", "magic04", "mnist", "cifar10", "adult", "california_housing")
)
LENET = {"name": "lenet"}
CNN, NARROW = ({"name": "small_cnn", "args": {"width": width}} for width in (8, 4))
MLP, DEEPER = ({"name": "mlp", "args": {"hidden": hidden}} for hidden in ([64], [64, 64]))
ADAMW = {"optimizer": {"name": "adamw"}}
REGRESSION = {"loss": "mse", "metric": "mse"}

JOBS = (
    Job(name="digits-cnn", held_out=False, pool=_digits, train=1000, val=300, test=497, epochs=20, model=CNN),
    Job(name="digits-few", held_out=False, pool=_digits, train=150, val=50, test=1500, epochs=60, model=MLP),
    Job(name="fashion-cnn", held_out=False, pool=FASHION, train=5000, val=1000, test=2000, epochs=5, model=NARROW),
    Job(name="magic-adamw", held_out=False, pool=MAGIC, train=4000, val=1000, test=4000, epochs=20, model=MLP, settings=ADAMW),
    Job(name="spiral", held_out=False, pool=_spiral, train=600, val=300, test=2000, epochs=100, model=DEEPER),
    Job(name="digits-mlp", held_out=False, pool=_raw_digits, train=1000, val=300, test=497, epochs=30, model=MLP),
    Job(name="digits-noisy", held_out=False, pool=_digits, train=1000, val=300, test=497, epochs=40, model=MLP, noisy=0.3),
    Job(name="mnist-lenet", held_out=False, pool=MNIST, train=2000, val=500, test=2000, epochs=5, model=LENET),
    Job(name="cifar-cnn", held_out=False, pool=CIFAR, train=4000, val=1000, test=2000, epochs=5, model=NARROW, augment=("flip",)),
    Job(name="adult-mlp", held_out=False, pool=ADULT, train=4000, val=1000, test=4000, epochs=20, model=MLP),
    Job(name="housing", held_out=False, pool=HOUSING, train=4000, val=1000, test=4000, epochs=20, model=DEEPER, settings=REGRESSION),
    Job(name="digits-few-cnn", held_out=False, pool=_digits, train=200, val=100, test=1400, epochs=40, model=CNN),
    Job(name="fashion-mlp", held_out=False, pool=FASHION, train=3000, val=1000, test=4000, epochs=10, model=MLP),
    Job(name="mnist-noisy", held_out=False, pool=MNIST, train=2000, val=500, test=2000, epochs=10, model=NARROW, noisy=0.2),
    Job(name="mnist-adamw", held_out=False, pool=MNIST, train=2000, val=500, test=2000, epochs=5, model=LENET, settings=ADAMW),
    Job(name="cifar-lenet", held_out=False, pool=CIFAR, train=2000, val=500, test=2000, epochs=5, model=LENET, augment=("flip",)),
    Job(name="magic-sgd", held_out=False, pool=MAGIC, train=4000, val=1000, test=4000, epochs=20, model=DEEPER),
    Job(name="adult-adamw", held_out=False, pool=ADULT, train=4000, val=1000, test=4000, epochs=20, model=MLP, settings=ADAMW),
    Job(
        name="housing-adamw", held_out=False, pool=HOUSING, train=4000, val=1000, test=4000, epochs=20,
        model=MLP, settings={**REGRESSION, **ADAMW},
    ),
    Job(name="mnist-mlp", held_out=True, pool=MNIST, train=1000, val=500, test=4000, epochs=20, model=MLP),
    Job(name="mnist-cnn", held_out=True, pool=MNIST, train=2000, val=500, test=4000, epochs=5, model=NARROW),
    Job(name="fashion-lenet", held_out=True, pool=FASHION, train=2000, val=500, test=4000, epochs=5, model=LENET),
    Job(name="cifar-mlp", held_out=True, pool=CIFAR, train=2000, val=500, test=4000, epochs=10, model=MLP),
    Job(name="magic-few", held_out=True, pool=MAGIC, train=500, val=300, test=4000, epochs=60, model=MLP),
    Job(name="digits-adamw", held_out=True, pool=_digits, train=1000, val=300, test=497, epochs=10, model=CNN, settings=ADAMW),
    Job(name="adult-few-adamw", held_out=True, pool=ADULT, train=500, val=300, test=4000, epochs=40, model=MLP, settings=ADAMW),
    Job(
        name="fashion-noisy-adamw", held_out=True, pool=FASHION, train=2000, val=500, test=4000, epochs=10,
        model=MLP, settings=ADAMW, noisy=0.3,
    ),
    Job(
        name="housing-few", held_out=True, pool=HOUSING, train=1000, val=500, test=4000, epochs=40,
        model=DEEPER, settings=REGRESSION,
    ),
)  # fmt: skip
