"""The images everybody trains on: real ones from the folder HPTUNE_DATA, or else stand-ins of the same shape."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from hptune.config.loader import from_tree
from hptune.config.schema import Experiment
from hptune.engine.nets import build_built_in
from hptune.trial import Task

CLASSES = 10
AUGMENT = ("flip", "crop:4")
SHAPES = {"fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}
DATA_OF = {"mlp": "fashion_mnist", "small_cnn": "fashion_mnist", "lenet": "fashion_mnist", "resnet20": "cifar10"}
NETS = tuple(DATA_OF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """uint8 images with their labels in a file of hptune's own layout; `source` says what they are."""

    path: Path
    source: str
    x: NDArray[np.uint8]  # (samples, height, width) or (samples, height, width, channels)
    y: NDArray[np.int64]
    x_val: NDArray[np.uint8]
    y_val: NDArray[np.int64]
    mean: tuple[float, ...]  # of each channel, pixels counted from 0 to 1, as users write them down for Normalize
    std: tuple[float, ...]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        height, width, *channels = self.x.shape[1:]
        return (channels[0] if channels else 1, height, width)


def make_images(name: str, folder: Path, *, samples: int, validation: int) -> Images:
    """Take `samples` and `validation` images of a data set, or their stand-in, and write them below `folder`."""
    x, y, source = _real(name) or _stand_in(name, samples + validation)
    x, y = x[: samples + validation], y[: samples + validation].astype(np.int64)
    path = folder / f"{name}-{samples}-{validation}.npz"
    parts = {"x": x[:samples], "y": y[:samples], "x_val": x[samples:], "y_val": y[samples:]}
    np.savez(path, x_train=parts["x"], y_train=parts["y"], x_val=parts["x_val"], y_val=parts["y_val"])
    return Images(path=path, source=f"{name}: {source}", **parts, **_statistics(parts["x"]))


def experiment(images: Images, net: str, **blocks: Any) -> Experiment:
    """The config of a training of `net` on `images`; `blocks` are further blocks of it."""
    # No test part: it would be taken from the training samples, and the others train on all of them.
    data = {"name": "arrays", "path": str(images.path), "test_fraction": 0, "augment": list(blocks.pop("augment", ()))}
    tree = {"version": 1, "data": data, "model": {"name": net}, "device": "cpu", **blocks}
    return from_tree(tree, images.path.parent).experiment


def check_same_data(images: Images, task: Task) -> None:
    """Raise unless hptune trains and validates on exactly as many samples as everybody else: a comparison on less would flatter."""
    if (task.train_samples, task.val_samples) != (len(images.x), len(images.x_val)):
        raise ValueError(f"hptune has {task.train_samples} + {task.val_samples} samples, the others {len(images.x)} + {len(images.x_val)}")


def make_model(images: Images, net: str) -> Any:
    """The network itself, for whoever trains it without hptune."""
    return build_built_in(net, {}, images.sample_shape, CLASSES)


class Pictures(Dataset[tuple[Any, int]]):
    """Items as torchvision's data sets give them: an array made a PIL image, transformed, with its label."""

    def __init__(self, x: NDArray[np.uint8], y: NDArray[np.int64], transform: Callable[[Image.Image], Any]) -> None:
        self.x, self.y, self.transform = x, y.tolist(), transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.x[index])), self.y[index]


def pictures(images: Images, *, augment: bool, validation: bool = False) -> Pictures:
    """The training or validation images behind torchvision transforms, with the augmentation of `AUGMENT`."""
    from torchvision import transforms

    side = images.sample_shape[1]
    random = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(side, padding=4, padding_mode="reflect")] if augment else []
    transform = transforms.Compose([*random, transforms.ToTensor(), transforms.Normalize(images.mean, images.std)])
    return Pictures(images.x_val, images.y_val, transform) if validation else Pictures(images.x, images.y, transform)


def _statistics(x: NDArray[np.uint8]) -> dict[str, tuple[float, ...]]:
    pixels = (x[..., None] if x.ndim == 3 else x).astype(np.float64) / 255
    return {"mean": tuple(pixels.mean((0, 1, 2)).tolist()), "std": tuple(pixels.std((0, 1, 2)).tolist())}


def _real(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], str] | None:
    folder = os.environ.get("HPTUNE_DATA")
    path = Path(folder) / f"{name}.npz" if folder else None
    if path is None or not path.is_file():
        return None
    with np.load(path) as held:
        return held["x_train"], held["y_train"], "its own training images"


def _stand_in(name: str, samples: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
    """Handwritten digits, enlarged and repeated with a little noise: what matters here is shape and that it can be learned."""
    from sklearn.datasets import load_digits

    digits, shape = load_digits(), SHAPES[name]
    draw = np.random.default_rng(0)
    chosen = draw.integers(len(digits.images), size=samples)
    small = digits.images[chosen] * 15.0
    rows, columns = (np.arange(side) * 8 // side for side in shape[:2])
    large = small[:, rows][:, :, columns]
    large = np.repeat(large[..., None], shape[2], axis=3) if len(shape) == 3 else large
    noisy = np.clip(large + draw.normal(0, 10, large.shape), 0, 255).astype(np.uint8)
    return (
        noisy,
        digits.target[chosen].astype(np.int64),
        f"a stand-in of its shape from scikit-learn's digits (no {name}.npz in HPTUNE_DATA)",
    )
