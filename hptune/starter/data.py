"""A look at data before there is a config: what they are, how many, and which settings would suit. No pixel and no array is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hptune.config.schema import DATA_NAMES, DOWNLOADED, folder_name
from hptune.engine.folders import class_folders, image_files, opened, part_folders
from hptune.engine.npz import HOW_TO_WRITE, Header, names_shown, npz_headers
from hptune.errors import DataError, InputError

BY_NAME = ("digits", *DOWNLOADED)
HEADERS_READ = 40  # images whose sizes are looked at, spread over the folder
SIDES = (224, 128, 64, 32)  # pixels to resize to: the largest that most images reach
WIDE_ENOUGH = 64  # pixels a side from which torchvision's networks keep something to look at
NAMES_SHOWN = 6
UNEVEN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at the data showed, and the config values that it suggests.

    `block`: the config's data block, `path` the key in it whose value is a path as the user gave it. `samples`: of the training part,
    before anything is held out; None where it is not known. `sentences`: what was found, for the reader. `comments`: by key of `block`.
    """

    name: str
    block: Mapping[str, Any]
    path: str | None = None
    samples: int | None = None
    sentences: tuple[str, ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "cross_entropy"
    metric: str = "accuracy"
    optimizer: str = "sgd"
    lr: float = 0.01
    epochs: int = 30
    confirm_seeds: int = 5


def look_at(given: str) -> Found:
    """Return what the data called `given` are: the name of a known set, a folder of images, or an `.npz` file.

    Raises InputError where it is none of these, DataError where it could not be used.
    """
    if given in BY_NAME:
        return _known_set(given)
    path = Path(given).expanduser()
    if path.is_dir():
        return _pictures(given, path)
    if path.suffix == ".npz" or path.is_file():
        return _archive(given, path)
    raise InputError(f"--data {given}: neither {', '.join(BY_NAME)}, nor a folder of images, an .npz file, or FILE.py:NAME{_near(given)}")


def _near(given: str) -> str:
    from hptune.config.fields import suggestion

    around = Path(given).parent
    beside = [str(around / child.name) for child in around.iterdir()] if around.is_dir() else []
    return suggestion(given, [*(name for name in DATA_NAMES if name in BY_NAME), *beside])


def _known_set(name: str) -> Found:
    if name == "digits":
        return Found(
            name=name, block={"name": name}, samples=1797, model="small_cnn", model_args={"width": 16},
            sentences=("digits: 1,797 handwritten digits of 8x8 pixels, 10 classes; comes with scikit-learn",),
        )  # fmt: skip
    block: dict[str, Any] = {"name": name, "root": "~/.cache/hptune", "download": True}
    comments = {"root": "where the files are, or go", "download": "fetch them if they are not there"}
    if name.startswith("cifar"):
        return Found(
            name=name, block={**block, "val_fraction": 0.1, "augment": ["flip", "crop:4"]}, comments=comments, samples=50_000,
            sentences=(f"{name}: 50,000 training images of 32x32 pixels in colour; wants a GPU",),
            model="resnet20", lr=0.1, confirm_seeds=3,
        )  # fmt: skip
    return Found(
        name=name, block={**block, "limit": 10_000}, samples=10_000,
        comments={**comments, "limit": "use only so many training images: quicker; remove the line for all 60,000"},
        sentences=(f"{name}: 60,000 training images of 28x28 pixels, gray, 10 classes",),
        model="small_cnn", lr=0.05, epochs=10, confirm_seeds=3,
    )  # fmt: skip


def _pictures(given: str, root: Path) -> Found:
    """A folder with one folder of images for each class, or with train/ and val/ that have those."""
    parts = part_folders(root)
    classes = class_folders(parts["train"])
    files = {part: image_files(folder, classes) for part, folder in parts.items()}
    train = files["train"]
    side, sizes = _sides([file for file, _ in train])
    size = next((pixels for pixels in SIDES if pixels <= side), SIDES[-1])
    block: dict[str, Any] = {"name": "image_folder", "root": given, "size": size, "augment": ["flip"]}
    lacking = [part for part in ("val", "test") if part not in parts]
    block |= {f"{part}_fraction": share for part, share in (("val", 0.2), ("test", 0.1)) if part in lacking}
    counts = Counter(label for _, label in train)
    rare, frequent = min(counts, key=lambda k: counts[k]), max(counts, key=lambda k: counts[k])
    others = "".join(f", {len(found):,} in {part}" for part, found in files.items() if part != "train")
    sentences = [
        f"{given}: {len(train):,} images{' in train' if others else ''}{others}; {len(classes)} classes ({_listed(classes)})",
        f"{sizes}: resized to {size}x{size}",
    ]
    if counts[frequent] > UNEVEN * counts[rare]:
        sentences.append(f"the classes are uneven: {classes[rare]} has {counts[rare]:,} images, {classes[frequent]} {counts[frequent]:,}")
    return Found(
        name=folder_name(root.resolve().name),
        block=block,
        path="root",
        samples=len(train),
        sentences=tuple(sentences),
        comments={
            "size": f"pictures become {size}x{size} pixels",
            "augment": "leave out where left and right matter, as in text",
            **({"val_fraction": "what hyper-parameters are chosen on"} if "val" in lacking else {}),
        },
        model="resnet18" if size >= WIDE_ENOUGH else "small_cnn",
        epochs=20,
        confirm_seeds=3,
    )


def _sides(files: list[Path]) -> tuple[int, str]:
    """The median of the images' shorter sides, and a sentence on their sizes, from the headers of some."""
    chosen = files[:: max(1, len(files) // HEADERS_READ)][:HEADERS_READ]
    sizes = []
    for file in chosen:
        with opened(file) as image:
            sizes.append(image.size)
    side = int(median(min(size) for size in sizes))
    low, high = min(sizes, key=math.prod), max(sizes, key=math.prod)
    looked = "all" if len(chosen) == len(files) else f"{len(chosen)} looked at"
    if len(set(sizes)) == 1:
        return side, f"images of {low[0]}x{low[1]} pixels ({looked})"
    return side, f"images of {low[0]}x{low[1]} to {high[0]}x{high[1]} pixels ({looked})"


def _archive(given: str, path: Path) -> Found:
    """An `.npz` with x_train and y_train, by the headers of its arrays."""
    held = npz_headers(path)
    lacking = [name for name in ("x_train", "y_train") if name not in held]
    if lacking:
        raise DataError(f"{path} has no {' and '.join(lacking)}: it holds {names_shown(held)}; {HOW_TO_WRITE}")
    x, y = held["x_train"], held["y_train"]
    if not x[0] or not y[0] or x[0][0] != y[0][0]:
        raise DataError(f"x_train of {path} has shape {x[0]}, y_train {y[0]}: give one target for each sample")
    parts = [part for part in ("val", "test") if {f"x_{part}", f"y_{part}"} <= held.keys()]
    block: dict[str, Any] = {"name": "arrays", "path": given}
    block |= {f"{part}_fraction": 0.2 for part in ("val", "test") if part not in parts}
    loss, metric, kind = _task(y)
    if loss != "cross_entropy" and len(parts) < 2:
        block["split"] = "random"
    model, args, inputs = _network(x)
    own = f"; its own {' and '.join(parts)} part{'s' * (len(parts) > 1)}" if parts else ""
    sentences = [f"{given}: {x[0][0]:,} training samples, {inputs}; {kind}{own}"]
    if model is None:
        sentences.append("no built-in network takes whole numbers (token ids?): name your own with --model FILE.py:NAME")
    return Found(
        name=folder_name(path.stem),
        block=block,
        path="path",
        samples=x[0][0],
        sentences=tuple(sentences),
        comments={"val_fraction": "what hyper-parameters are chosen on"} if "val" not in parts else {},
        model=model,
        model_args=args,
        loss=loss,
        metric=metric,
        optimizer="sgd" if model == "small_cnn" else "adamw",
        lr=0.01 if model == "small_cnn" else 1e-3,
        epochs=30 if x[0][0] < 30_000 else 10,
    )


def _task(y: Header) -> tuple[str, str, str]:
    """Loss, metric and a phrase, for the targets' shape and type."""
    shape, kind = y
    if kind.kind in "iub" and len(shape) == 1:
        return "cross_entropy", "accuracy", f"y holds class labels ({kind}): classification"
    if kind.kind == "b":
        return "bce_with_logits", "none", f"y holds {shape[1:]} yes-or-no values a sample: several labels at once"
    each = "one number" if shape[1:] in ((), (1,)) else f"{shape[1:]} numbers"
    return "mse", "mae", f"y holds {each} a sample ({kind}): regression"


def _network(x: Header) -> tuple[str | None, dict[str, Any], str]:
    """A network that takes such inputs, with its args, and a phrase on the inputs."""
    shape, kind = x
    if kind.kind == "u" and kind.itemsize == 1 and len(shape) in (3, 4):
        return "small_cnn", {"width": 16}, f"images of {'x'.join(map(str, shape[1:]))} (uint8)"
    phrase = f"{shape[1]} features each ({kind})" if len(shape) == 2 else f"of shape {shape[1:]} each ({kind})"
    if kind.kind in "iu":
        return None, {}, phrase
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return "small_cnn", {"width": 16}, f"images of {'x'.join(map(str, shape[1:]))} ({kind})"
    return "mlp", {"hidden": [64, 64], "dropout": 0.0}, phrase


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
