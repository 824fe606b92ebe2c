"""What a trial's curves say of its fit (arXiv 1803.09820, remarks 1 and 2, section 3, Fig. 1).

The aim is the horizontal part of the validation loss. Turning up while training loss falls is overfitting; still falling, or as
high as a training loss that is itself high, is underfitting. Under 1cycle the validation loss always falls near the end, since
the LR anneals: so a fall alone says nothing, and training loss must be as high beside it. The thresholds are ratios of losses,
set on small nets trained on digits with too small and too large LRs, too much weight decay, few samples and wrong labels.
Trainings made to show each on other seeds are what the tests hold them to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hptune.analysis.wording import format_number
from hptune.trial import CurveSummary, TrialRecord

Word = Literal["unstable", "overfitting", "underfitting", "balanced"]

MIN_POINTS = 3
RISE = 1.05  # final over lowest validation loss: more is turning up
SPIKE = 1.5  # a mid-run validation loss over the first: more is a spike
RECOVERED = 1.2  # a spike over the final loss: more has come back
RELAPSE = 1.15  # mid-run training loss over its lowest before, where it is back above half of the first: more is a relapse
GAP = 1.2  # final validation over training loss: less is no gap
FALL = 0.95  # final validation loss over that at two thirds of the run: less is still falling
LEARNED = 0.9  # last over first mean training loss: more has hardly learned

SEVERITY: tuple[Word, ...] = ("unstable", "overfitting", "underfitting", "balanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """One word for a trial's fit, and a sentence with the numbers it rests on."""

    word: Word
    sentence: str


def clue(record: TrialRecord) -> Clue | None:
    """Return what a trial's curves say.

    None for a trial that ran out of memory or failed, has fewer than three points, or has losses that are not all positive.
    """
    if record.status == "diverged":
        return Clue(word="unstable", sentence=f"training diverged after {record.steps} steps")
    curve = record.curve
    if record.status != "completed" or len(curve.val_loss) < MIN_POINTS:
        return None
    if not all(math.isfinite(loss) for loss in (*curve.val_loss, *curve.train_loss)):
        return Clue(word="unstable", sentence="a loss was not finite in mid-run")
    if min(*curve.val_loss, *curve.train_loss) <= 0:
        return None
    return _spike(curve) or _relapse(curve) or _turned_up(curve) or _underfit(curve) or _level(curve)


def summarize_clues(records: Sequence[TrialRecord]) -> Word | Literal[""]:
    """The word most of the trials' clues agree on, the more serious one where two are equally frequent; empty where none has a clue."""
    counts = Counter(found.word for record in records if (found := clue(record)) is not None)
    if not counts:
        return ""
    return max(SEVERITY, key=lambda word: counts[word])


def _spike(curve: CurveSummary) -> Clue | None:
    """A mid-run rise of validation loss that passed, or that training loss shared."""
    val, train = curve.val_loss, curve.train_loss
    top = max(range(1, len(val) - 1), key=lambda i: val[i])
    shared = train[top] > train[top - 1]
    if val[top] <= SPIKE * val[0] or not (shared or val[top] > RECOVERED * val[-1]):
        return None
    first, high, last = (format_number(val[i]) for i in (0, top, -1))
    return Clue(word="unstable", sentence=f"validation loss went from {first} to {high} in mid-run, and to {last} at the end")


def _relapse(curve: CurveSummary) -> Clue | None:
    """Training loss thrown back towards its beginning: the LR was too large for what had been learned."""
    train = curve.train_loss
    for i in range(1, len(train)):
        low = min(train[:i])
        if train[i] > RELAPSE * low and train[i] > train[0] / 2:
            return Clue(word="unstable", sentence=f"training loss went back from {format_number(low)} to {format_number(train[i])}")
    return None


def _turned_up(curve: CurveSummary) -> Clue | None:
    """Validation loss above its lowest: overfitting where training loss fell meanwhile, else unstable."""
    val, train = curve.val_loss, curve.train_loss
    best = min(range(len(val)), key=lambda i: val[i])
    if val[-1] <= RISE * val[best]:
        return None
    rise = f"validation loss rose from {format_number(val[best])} to {format_number(val[-1])}"
    learned = f"training loss {{}} from {format_number(train[best])} to {format_number(train[-1])}"
    if train[-1] < train[best]:
        return Clue(word="overfitting", sentence=f"{rise} while {learned.format('fell')}")
    return Clue(word="unstable", sentence=f"{rise}, and {learned.format('rose')}")


def _underfit(curve: CurveSummary) -> Clue | None:
    """No gap between the losses, and validation loss still falling or training loss hardly moved."""
    val, train = curve.val_loss, curve.train_loss
    if val[-1] > GAP * train[-1]:
        return None
    if train[-1] > LEARNED * train[0]:
        moved = f"from {format_number(train[0])} to {format_number(train[-1])}"
        return Clue(word="underfitting", sentence=f"training loss hardly moved, {moved}")
    before = _two_thirds(curve)
    if val[-1] > FALL * before:
        return None
    fall = f"validation loss still fell from {format_number(before)} to {format_number(val[-1])} over the last third"
    return Clue(word="underfitting", sentence=f"{fall} beside a training loss of {format_number(train[-1])}")


def _level(curve: CurveSummary) -> Clue:
    before, last = format_number(_two_thirds(curve)), format_number(curve.val_loss[-1])
    sentence = f"validation loss went from {before} to {last} over the last third, training loss to {format_number(curve.train_loss[-1])}"
    return Clue(word="balanced", sentence=sentence)


def _two_thirds(curve: CurveSummary) -> float:
    """Validation loss at the last point within the first two thirds of the run."""
    limit = curve.step[-1] * 2 / 3 + 0.5
    return [loss for step, loss in zip(curve.step, curve.val_loss, strict=True) if step <= limit or step == curve.step[0]][-1]
