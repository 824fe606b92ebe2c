"""What makes two trainings the same task: content and names, never places, so that moving a folder changes no trial's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import nn

from hptune.config.schema import Component, Experiment, Optimizer, Target
from hptune.engine.nets import BUILT_IN
from hptune.engine.targets import object_hash, source_hash

ENGINE_VERSION = 2
"""Raised whenever the engine changes a trial's numbers, so that older records are not taken for new ones."""

OF_ONE_OPTIMIZER = {"sgd": {"nesterov"}, "adamw": {"beta2", "eps"}}


def task_identity(experiment: Experiment, fingerprint: str) -> dict[str, Any]:
    """Return everything besides spec and device that decides a trial's numbers, as plain JSON."""
    model = experiment.model
    identity = _common(experiment, fingerprint)
    identity["model"] = _component(model)
    identity["pretrained"] = _file_hash(model.pretrained) if model.pretrained is not None else None
    identity["freeze"] = model.freeze
    identity["step"] = _component(experiment.step)
    identity["loss"] = _component(experiment.loss) if experiment.step is None else None
    if model.name is not None and model.name not in BUILT_IN:
        import torchvision

        identity["torchvision"] = str(torchvision.__version__)
    return _plain(identity)


def object_identity(experiment: Experiment, fingerprint: str, model: nn.Module, loss: str | Callable[..., Any]) -> dict[str, Any]:
    """The same for a model (its state included) and a loss at hand."""
    digest = hashlib.sha256(object_hash(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    identity = _common(experiment, fingerprint)
    identity["model"] = {"name": type(model).__qualname__, "state": digest.hexdigest()}
    identity["loss"] = loss if isinstance(loss, str) else getattr(loss, "__qualname__", object_hash(loss))
    return _plain(identity)


def _common(experiment: Experiment, fingerprint: str) -> dict[str, Any]:
    return {
        "data": fingerprint,
        "augment": experiment.data.augment,
        "collate": _component(experiment.data.collate),
        "metric": {**(_component(experiment.metric) or {}), "mode": experiment.metric.mode},
        "optimizer": _optimizer(experiment.optimizer),
        "engine": ENGINE_VERSION,
        "torch": str(torch.__version__),
    }


def _component(section: Component | Target | None) -> dict[str, Any] | None:
    """A built-in by name, the user's code by the name of its file and what that file (and those beside it) contain."""
    if section is None:
        return None
    if section.target is None:
        return {"name": section.name, "args": section.args} if isinstance(section, Component) else None
    where, _, name = section.target.rpartition(":")
    return {"target": f"{PurePath(where).name}:{name}", "source": source_hash(section.target), "args": section.args}


def _optimizer(section: Optimizer) -> dict[str, Any]:
    others = {key for name, keys in OF_ONE_OPTIMIZER.items() if name != section.name for key in keys}
    return section.model_dump(exclude=others)


def _file_hash(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    """JSON's own types; what is none of them (a date among a target's args) as text."""
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain
