"""From `data:` to parts on the device: read, check, draw, divide, normalize, identify."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hptune.config.schema import Data
from hptune.engine.arrays import Arrays, Indices, leaves, shape_of
from hptune.engine.datasets import Items, identify, shapes
from hptune.engine.parts import DatasetPart, MapDataset, Normalization, Part, Parts, TensorPart, batches, statistics_of
from hptune.engine.placing import place
from hptune.engine.sources import Samples, Source, load_source, source_of_objects
from hptune.engine.splits import balanced_order, divide, draw
from hptune.engine.targets import bind_target
from hptune.errors import ConfigError, DataError

__all__ = ["DatasetPart", "MapDataset", "Part", "Parts", "TensorPart", "batches", "load_parts", "parts_from_objects"]

UNEVEN = 10  # times as many samples

_LIMIT, _SPLIT, _VAL_ORDER, _TEST_ORDER = range(4)  # independent random streams of one seed


def load_parts(section: Data, *, seed: int, device: torch.device, room: int | None = None) -> Parts:
    """Return the data set that `section` describes, divided by `seed`, on `device`.

    Arrays that take more than `room` bytes there are streamed from main memory instead; half of the free memory where not given.
    Raises DataError where it cannot be trained on, ConfigError where a key does not fit it, UserCodeError where a target fails.
    """
    return _prepare(load_source(section), section, seed, device, room)


def parts_from_objects(
    train: Any, val: Any = None, test: Any = None, *, section: Data, seed: int, device: torch.device, room: int | None = None
) -> Parts:
    """The same for parts at hand: each a pair `(x, y)` of arrays or tensors, or a map-style Dataset.

    A part left out is taken from `train` as `section` says (`val_fraction`, `test_fraction`, `split`).
    """
    if isinstance(section.split, dict):
        raise ConfigError("group needs an array of an .npz file: divide the objects yourself, or use random", key="data.split")
    return _prepare(source_of_objects(train, val, test, section=section, where="the data given"), section, seed, device, room)


def _prepare(source: Source, section: Data, seed: int, device: torch.device, room: int | None = None) -> Parts:
    classes, notes = _classes(source)
    parts, more = _divide(source, section, seed)
    notes += more + _lost_classes(parts) + _uneven_classes(parts["train"].labels)
    identity, more = _fingerprint(parts, source.identity)
    notes += more
    train = parts["train"]
    collate = bind_target(section.collate.target, section.collate.args, positional=1) if section.collate is not None else None
    statistics = None if isinstance(train, Items) else statistics_of(train.x)
    sample_shape, target_shape = shapes(train, collate) if isinstance(train, Items) else _shapes(train)
    placed, more = place(parts, statistics, collate, device, workers=section.workers, room=room)
    notes += more
    image = statistics if isinstance(statistics, Normalization) else None
    return Parts(
        train=placed["train"],
        val=placed["val"],
        test=placed.get("test"),
        classes=classes,
        sample_shape=sample_shape,
        target_shape=target_shape,
        fingerprint=identity,
        notes=tuple(notes),
        mean=tuple(value / 255 for value in image.mean) if image else None,
        std=tuple(value / 255 for value in image.std) if image else None,
    )


def _shapes(arrays: Arrays) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    return shape_of(arrays.x)[1:] if isinstance(arrays.x, Tensor) else None, shape_of(arrays.y)[1:]


def _classes(source: Source) -> tuple[int, list[str]]:
    """The number of classes, 0 without integer targets, after checking that the parts agree with each other."""
    parts = source.parts
    _check_same_form({name: part for name, part in parts.items() if isinstance(part, Arrays)}, source.where)
    labels = {name: part.labels for name, part in parts.items()}
    trained = labels["train"]
    if trained is None:
        integers = [part.y for part in parts.values() if isinstance(part, Arrays) and not part.y.is_floating_point()]
        return (max(int(y.max()) for y in integers) + 1 if integers else 0), []
    known = np.unique(trained)
    for name, values in labels.items():
        if values is None:
            raise DataError(f"the train part of {source.where} has integer labels, the {name} part has none: use the same kind in both")
        if values.min() < 0:
            raise DataError(f"the {name} part of {source.where} has a label {values.min()}: labels count from 0; for regression use floats")
        unknown = values[~np.isin(values, known)]
        if len(unknown):
            raise DataError(
                f"the {name} part of {source.where} has {len(unknown)} labels that the train part lacks, such as {unknown[0]}: "
                f"its labels are {_listed(known)}"
            )
    if len(known) == 1:
        raise DataError(f"{source.where} has only one class, label {known[0]}: there is nothing to tell apart; for regression use floats")
    classes = int(known[-1]) + 1
    gap = f"labels count from 0 to {classes - 1}, of which only {len(known)} occur: the model gets {classes} outputs"
    return classes, [gap] if len(known) < classes else []


def _check_same_form(parts: Mapping[str, Arrays], where: str) -> None:
    """Raise DataError unless every part has the train part's structure, dtypes, axes and, for images and features, shape."""
    forms = {name: {"y": part.y, **dict(leaves(part.x))} for name, part in parts.items()}
    for name, form in forms.items():
        if form.keys() != forms["train"].keys():
            raise DataError(f"the train part of {where} has {_listed(list(forms['train']))}, the {name} part {_listed(list(form))}")
        for key, leaf in form.items():
            first = forms["train"][key]
            fixed = first.dtype == torch.uint8 or first.ndim == 2
            if leaf.dtype != first.dtype or leaf.ndim != first.ndim or (fixed and leaf.shape[1:] != first.shape[1:]):
                shown = [f"{each.dtype} of shape {shape_of(each)}".removeprefix("torch.") for each in (first, leaf)]
                raise DataError(f"{key} of {where} is {shown[0]} in the train part but {shown[1]} in the {name} part: make them alike")


def _divide(source: Source, section: Data, seed: int) -> tuple[dict[str, Samples], list[str]]:
    """Draw `limit` training samples, take from them the parts that the source lacks, and bring held-out parts into a fair order."""
    how = section.split if isinstance(section.split, str) else "group"
    labels = source.train.labels if how != "random" else None
    chosen = draw(len(source.train), section.limit, labels, _stream(seed, _LIMIT))
    notes = []
    if section.limit is not None and section.limit > len(source.train):
        notes.append(f"data.limit is {section.limit}, but {source.where} has {len(source.train)} training samples: all are used")
    split = divide(
        len(chosen),
        how=how,
        val=section.val_fraction if "val" not in source.parts else None,
        test=section.test_fraction if "test" not in source.parts else None,
        labels=None if labels is None else labels[chosen],
        groups=None if source.groups is None else source.groups[chosen],
        rng=_stream(seed, _SPLIT),
    )
    if how == "stratified" and labels is None and (split.val is not None or split.test is not None):
        notes.append("a stratified split needs class labels: this one is random")
    parts = {"train": source.train if len(split.train) == len(source.train) else source.train.subset(chosen[split.train])}
    for name, drawn, stream in (("val", split.val, _VAL_ORDER), ("test", split.test, _TEST_ORDER)):
        own = source.parts.get(name)
        if drawn is not None:
            parts[name] = source.train.subset(chosen[drawn])
        elif own is not None:
            parts[name] = own if how == "time" else own.subset(_fair_order(own, _stream(seed, stream)))
    return parts, notes


def _fair_order(part: Samples, rng: np.random.Generator) -> Indices:
    """An order in which the first so many samples, or any block, stand for the whole: sources are often sorted by class."""
    return rng.permutation(len(part)) if part.labels is None else balanced_order(part.labels, rng, rare="last")


def _lost_classes(parts: Mapping[str, Samples]) -> list[str]:
    """A note where the limit or the split left a class without training samples."""
    labels = {name: part.labels for name, part in parts.items()}
    known = labels["train"]
    held_out = [values for name, values in labels.items() if name != "train" and values is not None]
    lost = np.setdiff1d(np.concatenate(held_out), known) if known is not None and held_out else np.array([])
    if not len(lost):
        return []
    return [f"no training sample is left of {len(lost)} classes ({_listed(lost)}): raise data.limit, or use a stratified split"]


def _uneven_classes(labels: NDArray[np.int64] | None) -> list[str]:
    """A note where one class has many times the training samples of another."""
    if labels is None:
        return []
    present, samples = np.unique(labels, return_counts=True)
    rare, frequent = int(samples.argmin()), int(samples.argmax())
    if samples[frequent] < UNEVEN * samples[rare]:
        return []
    shown = [f"label {present[at]} has {samples[at]:,}" for at in (rare, frequent)]
    return [f"the classes are uneven: of the training samples {' and '.join(shown)}; mean loss and accuracy hardly see the rare ones"]


def _fingerprint(parts: Mapping[str, Samples], identity: str) -> tuple[str, list[str]]:
    """SHA-256 of all parts as used: arrays by content, dtype and shape; Datasets by `datasets.identify` and the source's `identity`."""
    digest = hashlib.sha256()
    notes = []
    for name, part in parts.items():
        digest.update(f"{name} {len(part)} ".encode())
        if isinstance(part, Items):
            found, stable = identify(part)
            digest.update(f"{found} {identity} ".encode())
            if not stable:
                notes.append(f"items of the {name} part differ from reading to reading: it is recognized by length and source alone")
        else:
            for key, leaf in (("y", part.y), *leaves(part.x)):
                digest.update(f"{key} {leaf.dtype} {shape_of(leaf)} ".encode())
                digest.update(leaf.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest(), notes


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _listed(values: Sequence[Any] | NDArray[Any]) -> str:
    return ", ".join(str(value) for value in values[:10]) + (", …" if len(values) > 10 else "")
