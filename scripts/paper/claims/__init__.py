"""The claims of Smith's report. Each is a generator: it asks a lab for trials, and returns what they come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paper.claims.batch_size import batch_size
from paper.claims.clues import clues
from paper.claims.momentum import momentum
from paper.claims.one_cycle import one_cycle
from paper.claims.range_test import range_test
from paper.claims.tuner import tuner
from paper.claims.weight_decay import weight_decay
from paper.claims.yardstick import yardstick
from paper.evidence import Outcome
from paper.lab import Asking, Lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim by its number. `title`: what the report says, in a sentence."""

    number: int
    title: str
    ask: Callable[[Lab], Asking[Outcome]]


CLAIMS = {
    claim.number: claim
    for claim in (
        Claim(
            number=1, title="The range test's maximum LR trains stably under 1cycle; short range tests agree with long ones", ask=range_test
        ),
        Claim(number=2, title="1cycle reaches the step schedule's accuracy in a fraction of its epochs", ask=one_cycle),
        Claim(number=3, title="Falling momentum is as good as the best constant one, whatever its minimum", ask=momentum),
        Claim(number=4, title="At equal time larger batches reach better accuracy under 1cycle", ask=batch_size),
        Claim(number=5, title="The best weight decay depends on LR and schedule, by LR·WD/(1 − momentum)", ask=weight_decay),
        Claim(number=6, title="Early clues predict the final ranking", ask=clues),
        Claim(number=7, title="`hptune run`, given data and model, is at least as good as the author's setting", ask=tuner),
        Claim(
            number=8,
            title="Today's yardstick: accuracy within so many minutes, search included, beside Optuna on the same engine",
            ask=yardstick,
        ),
    )
}
