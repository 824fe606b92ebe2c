"""In which order a training goes through its samples."""

from __future__ import annotations

import torch
from torch import Tensor

from hptune.engine.randomness import generator


class Order:
    """The index tensors of a training's batches, or of their pieces where a micro-batch splits them, by number.

    Each epoch goes through a permutation drawn from seed and epoch alone, so that candidates of different batch size see the samples
    in the same order; its ragged last batch is dropped. `shares`: of each piece of a batch in the batch's samples, in order.
    """

    def __init__(self, samples: int, batch_size: int, *, batches: int, seed: int, micro_batch: int | None = None) -> None:
        self.batches = batches
        self._samples, self._batch_size, self._seed = samples, batch_size, seed
        self._piece = min(micro_batch or batch_size, batch_size)
        self.shares = tuple(len(piece) / batch_size for piece in torch.split(torch.arange(batch_size), self._piece))
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.batches * len(self.shares)

    def __getitem__(self, number: int) -> Tensor:
        batch, piece = divmod(number, len(self.shares))
        epoch, position = divmod(batch, self._samples // self._batch_size)
        return self.epoch(epoch)[position, piece * self._piece : (piece + 1) * self._piece]

    def epoch(self, number: int) -> Tensor:
        """All whole batches of an epoch, shape (batches, batch size)."""
        if number != self._epoch[0]:
            order = torch.randperm(self._samples, generator=generator(self._seed, "order", number))
            whole = self._samples // self._batch_size
            self._epoch = number, order[: whole * self._batch_size].reshape(whole, self._batch_size)
        return self._epoch[1]
