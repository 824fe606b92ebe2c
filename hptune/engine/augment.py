"""Augmentation of image batches on their device: horizontal flip, padded random crop, cutout (arXiv 1708.04552)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from hptune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rows:
    """A source of draws for a batch of `size` images of which those at hand are some, from number `start` on.

    It draws for the whole batch, so that an image gets the same numbers whoever augments it.
    """

    generator: Generator
    start: int
    size: int


Source = Generator | Rows
Augment = Callable[[Tensor, Source], Tensor]
"""`(images, source) -> images`: float images (samples, channels, height, width), each drawn for on its own."""


def make_augment(words: Sequence[str]) -> Augment | None:
    """Return the augmentation that `data.augment` names, applied in the order given; None for none.

    `flip`: left to right, one time in two. `crop:P`: pad by P pixels of reflection and cut the size out at random. `cutout:S`: one
    square of S×S pixels around a random pixel, cut off at the edges, becomes 0 (the mean of normalized images).
    Draws come from the generator on the generator's own device: with one in main memory they are the same for every device.
    The result is a new tensor. Raises ConfigError, when called, for input that is not images or is too small.
    """
    if not words:
        return None
    steps = [_step(word) for word in words]

    def augment(images: Tensor, source: Source) -> Tensor:
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
            raise ConfigError("augmentation needs images, but the model's input is something else: leave it out", key="data.augment")
        for step in steps:
            images = step(images, source)
        return images

    return augment


def _step(word: str) -> Augment:
    name, _, amount = word.partition(":")
    if name == "flip":
        return flip
    kinds = {"crop": crop, "cutout": cutout}
    return lambda images, source: kinds[name](images, source, int(amount))


def flip(images: Tensor, source: Source) -> Tensor:
    """Mirror each image left to right with probability one half."""
    chosen = _draw(images, source, 2).bool()
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, source: Source, padding: int) -> Tensor:
    """Pad each image by `padding` reflected pixels on all sides and cut its size out at a random place."""
    height, width = images.shape[-2:]
    if padding >= min(height, width):
        raise ConfigError(f"crop:{padding} reflects {padding} pixels, but images are {height}×{width}: use less", key="data.augment")
    padded = pad(images, (padding,) * 4, mode="reflect")
    rows = _draw(images, source, 2 * padding + 1)[:, None] + torch.arange(height, device=images.device)
    columns = _draw(images, source, 2 * padding + 1)[:, None] + torch.arange(width, device=images.device)
    samples, channels = images.shape[:2]
    cut = padded.gather(2, rows[:, None, :, None].expand(samples, channels, height, padded.shape[-1]))
    return cut.gather(3, columns[:, None, None, :].expand(samples, channels, height, width))


def cutout(images: Tensor, source: Source, size: int) -> Tensor:
    """Set a square of `size` pixels around a random pixel of each image to 0."""
    height, width = images.shape[-2:]
    if size >= min(height, width):
        raise ConfigError(f"cutout:{size} would blank whole images of {height}×{width}: use less", key="data.augment")
    inside = []
    for length in (height, width):
        start = _draw(images, source, length)[:, None] - size // 2
        at = torch.arange(length, device=images.device)
        inside.append((at >= start) & (at < start + size))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, 0.0)


def _draw(images: Tensor, source: Source, below: int) -> Tensor:
    """One integer in [0, below) for each image, on the images' device."""
    rows = source if isinstance(source, Rows) else Rows(source, 0, len(images))
    drawn = torch.randint(below, (rows.size,), generator=rows.generator, device=rows.generator.device)[rows.start :][: len(images)]
    return drawn.to(images.device, non_blocking=True)
