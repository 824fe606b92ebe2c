"""Stage 5: what is left of the budget, spent jointly on LR, weight decay, momentum and batch size near the current best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import conclusion, interval, nothing_usable
from hptune.stages.rounds import contender, next_round, ranked
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

ROUND = 4  # proposals made together: fixed, so that results do not depend on the number of workers
LR_REACH = 4.0  # the LR is searched within this factor of the current best
DECAY_REACH = 10.0
ZERO_DECAY_REACH = (1e-6, 1e-4)  # searched where the current best weight decay is zero
SEED_SHARE = 3  # at most a third of an allowance is kept for second seeds
MOMENTUM_REACH = 2.0  # factor on 1 − momentum
MOMENTUM_LIMITS = (0.01, 0.2)  # on 1 − momentum


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A box around the current best; pairs are (low, high), searched on a log scale. Equal ends mean the value is fixed."""

    lr: tuple[float, float]
    weight_decay: tuple[float, float]
    slack: tuple[float, float]  # 1 − momentum
    batch_sizes: tuple[int, ...]


class Suggest(Protocol):
    """A sampler: proposes `count` hyper-parameter sets in `space`, given earlier records; the same for the same arguments."""

    def __call__(
        self, start: Hyperparameters, space: Space, done: Sequence[TrialRecord], count: int, seed: int, /
    ) -> list[Hyperparameters]:
        """Return the proposals."""
        ...


class Refine:
    """Short runs proposed by a sampler that knows every earlier trial; needs `suggest` only to plan."""

    name = "refine"

    def __init__(self, suggest: Suggest | None = None) -> None:
        self._suggest = suggest

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The current best and rounds of proposals on the first seed, then more seeds for those in the race."""
        start = knowledge.short_run(knowledge.start)
        proposed = [start, *(r.spec for r in done if r.spec.repetition == 0 and r.trial_id != start.trial_id)]
        left = self._affordable(knowledge) - (len(proposed) - 1)
        if left > 0 and self._suggest is not None and all(record.spec.repetition == 0 for record in done):
            space = search_space(knowledge)
            new = self._suggest(knowledge.start, space, done, min(ROUND, left), knowledge.seed + len(proposed))
            known = {contender(spec) for spec in proposed}
            fresh = [spec for spec in dict.fromkeys(map(knowledge.short_run, new)) if contender(spec) not in known]
            if fresh:
                return fresh if done else [start, *fresh]
        return next_round(knowledge, proposed, done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the lowest adjusted loss, where it has as many seeds as the current best or no better one."""
        ranking = ranked(knowledge, done, _columns)
        if ranking.best is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable("proposal", done))
        seeds = max(row.seeds for row in ranking.rows)
        chosen = next((row for row in ranking.rows if row.seeds == seeds and row.verdict in ("best", "tied")), ranking.best)
        h = chosen.hyperparameters
        found = "the current best stays" if h == knowledge.start else "a proposal goes on"
        sentence = (
            f"{found} among {len(ranking.rows)} tried jointly: LR {format_number(h.lr)}, batch size {h.batch_size}, "
            f"momentum {h.momentum:.3g}, weight decay {format_number(h.weight_decay)}, "
            f"loss {format_number(chosen.val_loss)}{interval(chosen)}"
        )
        return conclusion(self.name, ranking, done, chosen, sentence=sentence)

    def _affordable(self, k: Knowledge) -> int:
        """Number of proposals: the config's without a search budget, else what the allowance buys after the final seeds."""
        trials = int(k.settings["trials"])
        if k.allowance is None:
            return trials
        start = 0 if k.short_run(k.start).trial_id in k.history else 1
        return max(0, int(k.allowance - start - min(2 * (k.seeds - 1), k.allowance / SEED_SHARE)))


def search_space(k: Knowledge) -> Space:
    """The box around the start; batch sizes are the neighbours among those whose speed is known, or the start's alone."""
    h = k.start
    low_decay, high_decay = (h.weight_decay / DECAY_REACH, h.weight_decay * DECAY_REACH) if h.weight_decay else ZERO_DECAY_REACH
    slack = 1 - h.momentum
    low, high = MOMENTUM_LIMITS
    sizes = sorted({size for size, _ in k.speeds} | {h.batch_size})
    at = sizes.index(h.batch_size)
    return Space(
        lr=(h.lr / LR_REACH, h.lr * LR_REACH),
        weight_decay=(low_decay, high_decay),
        slack=(min(max(slack / MOMENTUM_REACH, low), slack), max(min(slack * MOMENTUM_REACH, high), slack)),
        batch_sizes=tuple(sizes[max(0, at - 1) : at + 2]),
    )


def _columns(spec: TrialSpec) -> tuple[tuple[str, float | int | str], ...]:
    h = spec.hyperparameters
    return (("lr", h.lr), ("batch_size", h.batch_size), ("momentum", h.momentum), ("weight_decay", h.weight_decay))
