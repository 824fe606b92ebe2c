"""Pretrained weights from a local file, and parameters that are not trained."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hptune.config.fields import quoted
from hptune.engine.checkpoint import read_tensors
from hptune.errors import ConfigError

State = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model")  # keys under which training scripts commonly store the weights
PREFIXES = ("", "module.", "model.")  # what DataParallel and Lightning put before each name


@dataclass(frozen=True, slots=True)
class Match:
    """Entries that fit the model by name and shape, and the names of the model's parameters that got none."""

    state: dict[str, Tensor]
    left_out: tuple[str, ...]


def read_weights(path: str) -> State:
    """Return the state dict in the file at `path`: plain, or under the key `state_dict` or `model`.

    Only tensors are unpickled. Raises ConfigError where the file is missing or damaged or holds no weights.
    """
    try:
        content = read_tensors(Path(path))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}", key="model.pretrained") from error
    except Exception as error:
        # torch's own words would advise to unpickle anything
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        message = f"{path} cannot be loaded as weights ({reason}): write it with torch.save(model.state_dict(), path)"
        raise ConfigError(message, key="model.pretrained") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = {name: value for name, value in content.items() if _is_dense(value)} if isinstance(content, Mapping) else {}
    if not state:
        raise ConfigError(f"{path} holds no state dict: write it with torch.save(model.state_dict(), path)", key="model.pretrained")
    return state


def _is_dense(value: Any) -> bool:
    """Whether `value` is a tensor of plain numbers; a quantized, sparse or complex one cannot be copied into a layer."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    return plain and not value.is_complex() and not value.is_meta


def match_weights(model: nn.Module, state: State) -> Match:
    """Return the part of `state` that fits `model` by name and shape, under the prefix that fits most."""
    best = max((_matching(model, state, prefix) for prefix in PREFIXES), key=len)
    return Match(best, tuple(name for name, _ in model.named_parameters() if name not in best))


def load_weights(model: nn.Module, path: str) -> None:
    """Load what fits from the file at `path` into `model`; a new last layer, say, keeps its random values.

    Raises ConfigError unless at least half of the model's parameters get a value.
    """
    match = match_weights(model, read_weights(path))
    total = sum(1 for _ in model.parameters())
    loaded = total - len(match.left_out)
    if 2 * loaded < total:
        examples = ", ".join(match.left_out[:3])
        message = f"{path} has values for {loaded} of the model's {total} parameters; none that fits by name and shape for {examples}"
        raise ConfigError(message, key="model.pretrained")
    model.load_state_dict(match.state, strict=False)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Keep the parameters whose name matches one of `patterns` (fnmatch) from being trained.

    Raises ConfigError where a pattern matches nothing or nothing is left to train.
    """
    for pattern in patterns:
        for name in matching_names(model, pattern, key="model.freeze"):
            model.get_parameter(name).requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("all parameters are frozen: leave some to train", key="model.freeze")


def matching_names(model: nn.Module, pattern: str, *, key: str) -> list[str]:
    """Return the parameter names that match `pattern` (fnmatch, case-sensitive); ConfigError naming `key` if there are none."""
    names = [name for name, _ in model.named_parameters()]
    if matches := [name for name in names if fnmatchcase(name, pattern)]:
        return matches
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
    raise ConfigError(f"no parameter is named like {quoted(pattern)}; the nearest names are {', '.join(near)}", key=key)


def _matching(model: nn.Module, state: State, prefix: str) -> dict[str, Tensor]:
    own = model.state_dict()
    found = {name: state[prefix + name] for name in own if prefix + name in state}
    return {name: value for name, value in found.items() if value.shape == own[name].shape}
