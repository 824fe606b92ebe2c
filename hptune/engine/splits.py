"""Which samples are drawn, and which part each goes to: index arithmetic by seed.

Held-out parts keep the order they were drawn in, which is balanced: any first so many of them are a fair subset. Under `time` every
part keeps the order of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hptune.engine.arrays import Indices
from hptune.errors import DataError

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Indices into the source's training samples; `val` and `test` are None where nothing was asked for."""

    train: Indices
    val: Indices | None = None
    test: Indices | None = None


def draw(samples: int, limit: int | None, labels: Labels | None, rng: np.random.Generator) -> Indices:
    """At most `limit` of `samples` indices, in ascending order, balanced by `labels` where there are any.

    Every class keeps a sample as long as there are no more classes than `limit`.
    """
    if limit is None or limit >= samples:
        return np.arange(samples)
    order = rng.permutation(samples) if labels is None else balanced_order(labels, rng, rare="first")
    return np.sort(order[:limit])


def balanced_order(labels: Labels, rng: np.random.Generator, *, rare: str) -> Indices:
    """A random order in which every stretch holds the classes in their proportions.

    The one sample of a class comes among the first (`rare="first"`) or among the last (`rare="last"`).
    """
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, start, inverse, counts = np.unique(labels[by_class], return_index=True, return_inverse=True, return_counts=True)
    rank = np.arange(len(labels)) - start[inverse] + (rare == "last")
    order = np.lexsort((rng.random(len(labels)), rank / counts[inverse]))
    return np.asarray(by_class[order], dtype=np.int64)


def divide(
    samples: int,
    *,
    how: str,
    val: float | None,
    test: float | None,
    labels: Labels | None,
    groups: NDArray[np.generic] | None,
    rng: np.random.Generator,
) -> Split:
    """Divide `samples` indices; `val` and `test` are fractions of them, None (or 0) for a part that is not wanted.

    `how`: `stratified` (random where `labels` is None), `random`, `time`, or `group`: whole `groups`, which has one entry a sample.
    Raises DataError where there are too few samples or groups.
    """
    sizes = [max(1, round(fraction * samples)) if fraction else 0 for fraction in (test, val)]
    if sum(sizes) >= samples:
        raise DataError(f"{samples} training samples cannot be divided with val_fraction {val} and test_fraction {test}: give more samples")
    if how == "group" and groups is not None and any(sizes):
        parts = _whole_groups(groups, sizes, rng)
    elif how == "time":
        edge = samples - sizes[0]
        parts = [np.arange(edge, samples), np.arange(edge - sizes[1], edge)]
    else:
        order = balanced_order(labels, rng, rare="last") if how == "stratified" and labels is not None else rng.permutation(samples)
        parts = [order[: sizes[0]], order[sizes[0] : sum(sizes)]]
    held_out = np.concatenate(parts)
    return Split(
        train=np.setdiff1d(np.arange(samples), held_out),
        test=parts[0] if sizes[0] else None,
        val=parts[1] if sizes[1] else None,
    )


def _whole_groups(groups: NDArray[np.generic], sizes: list[int], rng: np.random.Generator) -> list[Indices]:
    """For each size, the samples of whole groups, drawn until another group would lead further away from it; one at least."""
    names, member_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = sum(size > 0 for size in sizes)
    if len(names) <= wanted:
        raise DataError(f"{len(names)} groups cannot be divided into {wanted + 1} parts: at least one group is needed for each part")
    waiting = list(rng.permutation(len(names)))
    parts = []
    for number, size in enumerate(sizes):
        chosen: list[int] = []
        reserved = 1 + sum(later > 0 for later in sizes[number + 1 :])
        while size and len(waiting) > reserved:
            held = int(counts[chosen].sum())
            if chosen and abs(held + counts[waiting[0]] - size) >= abs(held - size):
                break
            chosen.append(waiting.pop(0))
        parts.append(rng.permutation(np.flatnonzero(np.isin(member_of, chosen))))
    return parts
