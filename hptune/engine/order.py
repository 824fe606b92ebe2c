"""In which order a training goes through its samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hptune.engine.randomness import generator
from hptune.engine.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class Piece:
    """What one forward pass takes of a batch of `size` samples: its rows from `start` to before `stop`.

    `weight`: of their mean loss, so that the batch's is the sum over the passes of a rank, averaged over the ranks. `first`, `last`:
    whether the rank begins and ends the batch with it.
    """

    start: int
    stop: int
    size: int
    weight: float = 1.0
    first: bool = True
    last: bool = True


def whole(size: int) -> Piece:
    """A batch of `size` samples in one pass."""
    return Piece(0, size, size)


def pieces_of(size: int, micro_batch: int | None = None, ranks: Ranks = ALONE) -> tuple[Piece, ...]:
    """The passes of a rank over a batch of `size` samples, of `micro_batch` each and the last one of what is left."""
    start, stop = ranks.rows(size)
    step = micro_batch or size
    ends = [(at, min(at + step, stop)) for at in range(start, stop, step)]
    return tuple(Piece(a, b, size, weight=(b - a) / size * ranks.size, first=a == start, last=b == stop) for a, b in ends)


class Order:
    """The index tensors of a rank's pieces of a training's batches, by number: `pieces` of a batch one after the other.

    Each epoch goes through a permutation drawn from seed and epoch alone, so that candidates of different batch size see the samples
    in the same order, and all ranks have the same batches; its ragged last batch is dropped.
    """

    def __init__(
        self, samples: int, batch_size: int, *, batches: int, seed: int, micro_batch: int | None = None, ranks: Ranks = ALONE
    ) -> None:
        self.batches = batches
        self.pieces = pieces_of(batch_size, micro_batch, ranks)
        self._samples, self._batch_size, self._seed = samples, batch_size, seed
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.batches * len(self.pieces)

    def __getitem__(self, number: int) -> Tensor:
        batch, piece = divmod(number, len(self.pieces))
        epoch, position = divmod(batch, self._samples // self._batch_size)
        own = self.pieces[piece]
        return self.epoch(epoch)[position, own.start : own.stop]

    def epoch(self, number: int) -> Tensor:
        """All whole batches of an epoch, shape (batches, batch size)."""
        if number != self._epoch[0]:
            order = torch.randperm(self._samples, generator=generator(self._seed, "order", number))
            count = self._samples // self._batch_size
            self._epoch = number, order[: count * self._batch_size].reshape(count, self._batch_size)
        return self._epoch[1]
