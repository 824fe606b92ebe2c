"""What is wrong with the values a comparison shows to be worse (arXiv 1803.09820, remarks 2, 3 and 6).

A single curve does not tell an LR that is too small from a run that is too short: on eleven jobs the curves of both look alike.
Trials that differ in one value do: what is worse on either side of the LR that goes on is too small or too large, and of two
weight decays the weaker one that fits the training part better and the validation part worse regularizes too weakly. Only what the
ranking tells apart is spoken of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hptune.analysis.ranking import Ranking, Row
from hptune.analysis.wording import format_number
from hptune.trial import is_result

Cause = Literal["LR too small", "LR too large", "regularization too weak", "regularization too strong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause, and a sentence with the numbers it rests on."""

    cause: Cause
    sentence: str


def findings(ranking: Ranking, chosen: Row) -> tuple[Finding, ...]:
    """The causes that the rows beside `chosen` show, each by the row nearest to it; rows that differ in one value alone count."""
    worse = [row for row in ranking.rows if _shown_worse(ranking, row, chosen)]
    diverged = [row for row in ranking.rows if row.verdict == "diverged"]
    return (*_lr(worse, diverged, chosen), *_regularization(worse, chosen))


def _shown_worse(ranking: Ranking, row: Row, chosen: Row) -> bool:
    compared = ranking.compare(row, chosen)
    return compared.claim and not compared.better


def _lr(worse: Sequence[Row], diverged: Sequence[Row], chosen: Row) -> list[Finding]:
    """What diverged below the chosen LR did so by chance, or for another reason: it is not too small."""
    own = chosen.hyperparameters
    small = [r for r in worse if r.hyperparameters == own.but(lr=r.hyperparameters.lr) and r.hyperparameters.lr < own.lr]
    large = [r for r in (*worse, *diverged) if r.hyperparameters == own.but(lr=r.hyperparameters.lr) and r.hyperparameters.lr > own.lr]
    sides: tuple[tuple[Cause, Row | None], ...] = (
        ("LR too small", max(small, key=lambda r: r.hyperparameters.lr, default=None)),
        ("LR too large", min(large, key=lambda r: r.hyperparameters.lr, default=None)),
    )
    return [
        Finding(
            cause=cause,
            sentence=f"{cause}: {format_number(row.hyperparameters.lr)} {_left(row)}, {format_number(own.lr)} {_left(chosen)}",
        )
        for cause, row in sides
        if row is not None
    ]


def _regularization(worse: Sequence[Row], chosen: Row) -> list[Finding]:
    own = chosen.hyperparameters
    read = [r for r in worse if is_result(r.train_loss) and is_result(chosen.train_loss)]
    rows = [r for r in read if r.hyperparameters == own.but(weight_decay=r.hyperparameters.weight_decay)]
    weak = [r for r in rows if r.hyperparameters.weight_decay < own.weight_decay and r.train_loss < chosen.train_loss]
    strong = [r for r in rows if r.hyperparameters.weight_decay > own.weight_decay and r.train_loss > chosen.train_loss]
    sides: tuple[tuple[Cause, Row | None], ...] = (
        ("regularization too weak", max(weak, key=lambda r: r.hyperparameters.weight_decay, default=None)),
        ("regularization too strong", min(strong, key=lambda r: r.hyperparameters.weight_decay, default=None)),
    )
    return [
        Finding(
            cause=cause,
            sentence=f"{cause}: weight decay {format_number(row.hyperparameters.weight_decay)} {_left(row)} and a training loss of "
            f"{format_number(row.train_loss)}, {format_number(own.weight_decay)} {_left(chosen)} and {format_number(chosen.train_loss)}",
        )
        for cause, row in sides
        if row is not None
    ]


def _left(row: Row) -> str:
    return "diverged" if row.verdict == "diverged" else f"left a validation loss of {format_number(row.val_loss)}"
