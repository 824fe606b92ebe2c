"""Where samples come from: each source as a train part and, where it has them, a validation and a test part of its own."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from hptune.config.schema import Data
from hptune.engine.arrays import Arrays, as_arrays
from hptune.engine.datasets import Items, as_items, tensors_of
from hptune.engine.images import read_image_folder
from hptune.engine.npz import names_shown, read_npz
from hptune.engine.targets import call_target, source_hash
from hptune.errors import ConfigError, DataError, said_by

Samples = Arrays | Items
VISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""torchvision's classes. They, and scikit-learn, take seconds to import: only whoever reads these sources waits for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source holds, checked but not divided.

    `where` names it in messages; `parts` has `train` and those of `val` and `test` that are its own. `groups`: one entry a training
    sample. `identity`: the hash that stands for content that is not read as a whole.
    """

    where: str
    parts: Mapping[str, Samples]
    groups: NDArray[np.generic] | None = None
    identity: str = ""

    @property
    def train(self) -> Samples:
        """The training samples, from which parts that are missing are taken."""
        return self.parts["train"]


def load_source(section: Data) -> Source:
    """Read the source that `data` names. Raises DataError, ConfigError or UserCodeError."""
    readers: dict[str, Callable[[Data], Source]] = {"digits": _digits, "image_folder": _image_folder, "arrays": _npz, "custom": _custom}
    if section.layout is not None and section.name not in ("arrays", "custom"):
        raise ConfigError(f"{section.name} has its own layout: leave it out", key="data.layout")
    source = readers.get(section.name, _vision)(section)
    if section.collate is not None and not isinstance(source.train, Items):
        raise ConfigError("a collate serves Datasets, but this source holds arrays: leave it out", key="data.collate")
    if isinstance(section.split, dict) and source.groups is None:
        raise ConfigError(f"group names an array of an .npz file, and {source.where} is none: use another split", key="data.split")
    return source


def source_of_objects(train: Any, val: Any, test: Any, *, section: Data, where: str, identity: str = "") -> Source:
    """A source of parts given as objects: each `(x, y)` or a map-style Dataset, all of one kind; `val` and `test` may be None."""
    named = {"train": train, "val": val, "test": test}
    given = {name: value for name, value in named.items() if value is not None or name == "train"}
    parts = {name: _part(value, f"the {name} part of {where}", section) for name, value in given.items()}
    if len({type(part) for part in parts.values()}) > 1:
        raise DataError(f"{where} mixes arrays and Datasets: give all parts as pairs (x, y), or all as Datasets")
    return Source(where=where, parts=parts, identity=identity)


def _part(value: Any, what: str, section: Data) -> Samples:
    value = tensors_of(value) or value if section.collate is None else value
    if isinstance(value, DataLoader):
        raise DataError(f"{what} is a DataLoader: give its Dataset, hptune forms the batches")
    if isinstance(value, IterableDataset):
        raise DataError(f"{what} is an IterableDataset: give a map-style Dataset, with a length and items by number")
    if isinstance(value, tuple | list) and len(value) == 2:
        return as_arrays(value[0], value[1], part=what, layout=section.layout)
    collection = isinstance(value, tuple | list | dict | np.ndarray | torch.Tensor)
    if collection or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise DataError(f"{what} is a {type(value).__name__}: give a pair (x, y) of arrays, or a map-style Dataset")
    return as_items(value, where=what, collated=section.collate is not None)


def _custom(section: Data) -> Source:
    """The user's own parts; `target` is set, as the schema demands."""
    target = section.target or ""
    parts = call_target(target, section.args, what="loading the data")
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
        held = f"{len(parts)} values" if isinstance(parts, tuple | list) else f"a {type(parts).__name__}"
        raise DataError(f"{target} returned {held}: return (train, val) or (train, val, test), each a pair (x, y) or a map-style Dataset")
    train, val, test = (*parts, None)[:3]
    return source_of_objects(train, val, test, section=section, where=target, identity=source_hash(target))


def _digits(_section: Data) -> Source:
    """1797 handwritten digits, 8×8 pixels of 0 to 16, from scikit-learn's own files; there is no test part."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = torch.from_numpy(bundled.images.astype(np.uint8))[:, None]
    return Source(where="digits", parts={"train": Arrays(images, torch.from_numpy(bundled.target.astype(np.int64)))})


def _vision(section: Data) -> Source:
    """A torchvision set with its own test part."""
    from torchvision import datasets

    root = Path(section.root or "data").absolute()
    kind = getattr(datasets, VISION[section.name])
    folder, files = _expected_files(kind, root)
    wanted = f"put {', '.join(files)} into {folder}"
    try:
        missing = [name for name in files if not (folder / name).is_file()]
    except OSError as error:  # a folder that may not be searched
        raise DataError(f"{folder} cannot be read ({said_by(error)}): {wanted}") from error
    if missing and not section.download:
        lacks = f"{section.name} is not in {root} (data.root): {missing[0]} is missing"
        raise DataError(f"{lacks}: {wanted}, or set data.download: true to fetch it")
    parts = {}
    for name in ("train", "test"):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                held = kind(str(root), train=name == "train", download=section.download)
        except Exception as error:
            failed = "could not be downloaded" if missing else f"in {folder} is damaged"
            raise DataError(f"{section.name} {failed} ({said_by(error)}): {wanted}") from error
        where = f"the {name} part of {section.name} in {folder}"
        parts[name] = as_arrays(held.data, held.targets, part=where, layout="channels_last")
    return Source(where=section.name, parts=parts)


def _expected_files(kind: Any, root: Path) -> tuple[Path, list[str]]:
    """The folder below `root` and the names of the raw files that torchvision reads."""
    if hasattr(kind, "resources"):  # the MNIST family
        return root / kind.__name__ / "raw", [name.removesuffix(".gz") for name, _ in kind.resources]
    return root / kind.base_folder, [name for name, _ in [*kind.train_list, *kind.test_list, (kind.meta["filename"], "")]]


def _image_folder(section: Data) -> Source:
    root = Path(section.root or ".")
    try:
        return Source(where=str(root), parts=read_image_folder(root, section.size))
    except OSError as error:  # a folder that may not be listed
        raise DataError(f"{root} cannot be read (data.root): {said_by(error)}") from error


def _npz(section: Data) -> Source:
    """`x_train, y_train` and optionally `x_val, y_val, x_test, y_test`; further arrays may serve as groups."""
    path = Path(section.path or "")
    held = read_npz(path)
    parts: dict[str, Samples] = {}
    for part in ("train", "val", "test"):
        names = (f"x_{part}", f"y_{part}")
        there = [name for name in names if name in held]
        if len(there) == 2:
            parts[part] = as_arrays(held[names[0]], held[names[1]], part=f"the {part} part of {path}", layout=section.layout)
        elif there or part == "train":
            lacking = " and ".join(name for name in names if name not in held)
            raise DataError(f"{path} has no {lacking}: it holds {names_shown(held)}")
    groups = _groups(held, section.split["group"], len(parts["train"]), path) if isinstance(section.split, dict) else None
    return Source(where=str(path), parts=parts, groups=groups)


def _groups(held: Mapping[str, NDArray[Any]], key: str, samples: int, path: Path) -> NDArray[np.generic]:
    if key not in held:
        close = difflib.get_close_matches(key, held, n=1)
        hint = f": did you mean {close[0]!r}?" if close else f": it holds {names_shown(held)}"
        raise ConfigError(f"{path} has no array {key!r}{hint}", key="data.split.group")
    if held[key].shape != (samples,):
        raise DataError(f"{key} of {path} has shape {held[key].shape}: groups need one entry for each of the {samples} training samples")
    return held[key]
