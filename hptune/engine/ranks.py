"""The processes that train one network together: which of them this one is, and what they tell each other.

Each rank takes its rows of every batch and, gradients being averaged, the same update of the same weights. What is decided on the way
(divergence, an early stop, when to save) must be the same on all of them, or one waits forever in a collective for another that has
left: it is decided from values that all have alike, bit for bit, or by the first rank, which tells the others. Loss and error flags
travel where they are looked at, never in every step.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hptune.errors import HptuneError
from hptune.trial import Numerics

PATIENCE = timedelta(days=30)  # of a collective: whoever started the ranks ends them where one is lost
LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
"""What the libraries' plain RuntimeErrors say when another rank is gone."""

T = TypeVar("T")


class PeerLostError(HptuneError):
    """A collective failed in this rank, since another one is gone: that one's end is the reason."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process of a gang is at work here: `rank` of `size`. One alone sends nothing, and methods return what they were given.

    All ranks must call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one decides, writes and reports."""
        return self.rank == 0

    def rows(self, samples: int) -> tuple[int, int]:
        """Where this rank's rows of a batch begin and end; shares differ by one at most."""
        return self.rank * samples // self.size, (self.rank + 1) * samples // self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, the same bits on each."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, flag: bool) -> bool:
        """The first rank's `flag`."""
        if self.size == 1:
            return flag
        told = torch.tensor(flag)
        dist.broadcast(told, 0)
        return bool(told)

    def from_first(self, value: T) -> T:
        """The first rank's `value`; what the others give is ignored."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, 0)
        return told[0]

    def everyone(self, value: T) -> list[T]:
        """The values of all ranks in order."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this rank of a list that they share the work on."""
        return items[self.rank :: self.size]

    def put_together(self, own: list[T]) -> list[T] | None:
        """The whole list again on the first rank, None on the others."""
        if self.size == 1:
            return own
        parts: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(own, parts, 0)
        if parts is None:
            return None
        return [parts[number % self.size][number // self.size] for number in range(sum(map(len, parts)))]

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the first one's buffers: batch norm's statistics differ between them, as their samples do."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


ALONE = Ranks()


def in_a_gang() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized()


def ranks_of(numerics: Numerics) -> Ranks:
    """The ranks that train under `numerics`, of which this process is one. Raises HptuneError in a process that is none of so many."""
    if numerics.replicas == 1:
        return ALONE
    here = Ranks(dist.get_rank(), dist.get_world_size()) if in_a_gang() else ALONE
    if numerics.replicas != here.size:
        raise HptuneError(f"a training on {numerics.replicas} devices runs in as many processes, and this is one of {here.size}")
    return here


def join(rank: int, size: int, *, device: str, meeting: Path) -> None:
    """Make this process rank `rank` of `size`, on devices of type `device`; returns once all have come to `meeting`, a file's path.

    Nothing listens on any network but the loopback where the system names it.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE)


def is_peer_lost(error: BaseException) -> bool:
    """Whether an exception comes from a collective that another rank did not take part in to its end."""
    if not in_a_gang() or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(words in text for words in LOST)
