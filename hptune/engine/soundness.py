"""What can be seen in the data before any training that will spoil it: `hptune check` looks for it, a run does not take the time."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from hptune.analysis.wording import format_number
from hptune.engine.parts import Part, TensorPart
from hptune.engine.problem import VALUE_LOSSES
from hptune.engine.workload import Problem

LOOKED_AT = 4096  # samples of the training part whose values are looked at
ITEMS_LOOKED_AT = 64  # the same, where each has to be read
LARGE, SMALL = 30.0, 0.01  # root mean square of an input: a layer's first weights expect about 1
FEW_VALUES = 20  # different whole numbers, as classes have
LEAKED = 0.05  # share of the validation samples; tables of few columns repeat some by chance
COMPARED = 2000  # validation samples looked for in the training part
MOST_BYTES = 2**30  # of a training part that is searched


def data_notes(problem: Problem) -> list[str]:
    """Sentences on inputs far from unit scale, targets that do not suit the loss, and samples that both parts have."""
    batch = _sample(problem.parts.train)
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        return []
    x, y = batch
    notes = _scale(x) if isinstance(x, Tensor) and x.is_floating_point() else []
    if problem.experiment.loss.name in VALUE_LOSSES and problem.experiment.loss.name != "bce_with_logits" and isinstance(y, Tensor):
        notes += _few_values(y, problem.experiment.loss.name or "")
    return notes + _leak(problem.parts.train, problem.parts.val)


def _sample(part: Part) -> object:
    """A batch of samples spread over the part, as the model sees them."""
    most = LOOKED_AT if isinstance(part, TensorPart) else ITEMS_LOOKED_AT
    return part.take(torch.linspace(0, len(part) - 1, min(len(part), most)).round().long())


def _scale(x: Tensor) -> list[str]:
    """A note where inputs, or one column of a table, are far larger or smaller than layers expect."""
    values = x.detach().double()
    remedy = "scale them to unit variance, by the training part alone"
    if x.ndim == 2:
        sizes = values.square().mean(dim=0).sqrt()
        large = int((sizes > LARGE).sum())
        if large:
            at = int(sizes.argmax())
            text = f"{large} of {len(sizes)} input columns are large, column {at} about {format_number(float(sizes[at]))}"
            return [f"{text} and the median column about {format_number(float(sizes.median()))}: {remedy}, or no LR suits them all"]
    overall = float(values.square().mean().sqrt())
    if overall > LARGE or 0 < overall < SMALL:
        return [f"the inputs are about {format_number(overall)} in size, where networks expect about 1: {remedy}"]
    return []


def _few_values(y: Tensor, loss: str) -> list[str]:
    """A note where the targets of a regression look like class labels."""
    values = y.detach().flatten().double()
    different = values.unique()
    if len(different) > FEW_VALUES or 4 * len(different) > len(values) or not bool((different == different.round()).all()):
        return []
    shown = f"{len(different)} different whole numbers, {different.min():g} to {different.max():g}"
    return [f"y holds only {shown}, and the loss is {loss}: if they are classes, give integers and use cross_entropy"]


def _leak(train: Part, val: Part) -> list[str]:
    """A note where validation samples stand in the training part as well."""
    if not (isinstance(train, TensorPart) and isinstance(val, TensorPart)):
        return []
    x, others = train.arrays.x, val.arrays.x
    if not (isinstance(x, Tensor) and isinstance(others, Tensor)) or x.numel() * x.element_size() > MOST_BYTES:
        return []
    known = set(_hashes(x))
    looked_for = _hashes(others[:COMPARED])
    found = sum(each in known for each in looked_for)
    if found <= LEAKED * len(looked_for):
        return []
    return [
        f"{found:,} of {len(looked_for):,} validation samples looked at stand in the training part as well: "
        "the validation loss then rewards learning by heart; divide the data so that no sample is in both"
    ]


def _hashes(x: Tensor) -> list[bytes]:
    rows = x.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy() if x.ndim > 1 else x.detach().cpu()[:, None].numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
