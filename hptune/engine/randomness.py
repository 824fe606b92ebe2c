"""Random numbers of a trial: independent streams from one seed, and the global states left as they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def stream_seed(seed: int, stream: str, number: int = 0) -> int:
    """A 31-bit seed for draw `number` of the named stream of `seed`; streams are independent of each other."""
    digest = hashlib.sha256(f"{seed}/{stream}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def generator(seed: int, stream: str, number: int = 0, *, device: torch.device | None = None) -> torch.Generator:
    """A generator of the named stream, in main memory or on `device`."""
    return torch.Generator(device or "cpu").manual_seed(stream_seed(seed, stream, number))


def random_state(device: torch.device) -> dict[str, Any]:
    """The global random states of torch (main memory and `device`), numpy and Python, in types that `torch.load` takes as weights only."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["device"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    random.setstate(state["python"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state["device"])


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the global states of torch, numpy and Python; no other device's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all global states within, and leave them as they were."""
    before = random_state(device)
    seed_all(seed, device)
    try:
        yield
    finally:
        set_random_state(before, device)
