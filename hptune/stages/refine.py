"""Stage 5: what is left of the budget, spent jointly on LR, weight decay, momentum and batch size near the current best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Protocol

from hptune.analysis.candidates import NO_NOISE
from hptune.analysis.ranking import Ranking, Row
from hptune.analysis.recommendation import DECAY_STEP, Conclusion, settled_names, transfer
from hptune.analysis.sampling import block_error
from hptune.analysis.wording import format_number
from hptune.stages.base import LONGER_REPETITIONS, Knowledge
from hptune.stages.conclusions import conclusion, interval, nothing_usable
from hptune.stages.lr_range import lower_lr, round_lr
from hptune.stages.rounds import contender, criterion, next_round, ranked, repeated, seeds_agree, select, within
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

ROUND = 4  # proposals made together: fixed, so that results do not depend on the number of workers
LR_REACH = 4.0  # the LR is searched within this factor of the current best
DECAY_REACH = 10.0
ZERO_DECAY_REACH = (1e-6, 1e-4)  # searched where the current best weight decay is zero
FEWEST_LONGER = 3  # longer runs are worth their cost from so many on
MOST_LONGER = 5  # so many at nearly full length before they are made longer still
NEARLY_FULL = 0.85
SHORTEST_LONGER = 1.9  # short runs in a longer one, at least
FILLED = 0.98  # of an allowance, with room for steps that are rounded
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
    """Proposals in runs as long as the allowance makes them; needs `suggest` only to plan.

    Short runs say little of weight decay and of what the full length overfits, so what can be spent goes into longer runs first:
    the best so far, carried over to their length, beside other LRs and more and less weight decay. A sampler that knows every earlier
    trial proposes what is tried after these, and everything where the allowance is too short for longer runs. A higher LR goes on only
    if it holds on a second seed: stability is what one seed cannot show.
    """

    name = "refine"

    def __init__(self, suggest: Suggest | None = None) -> None:
        self._suggest = suggest

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The current best with its neighbours and rounds of proposals on the first seed, then more seeds for those in the race."""
        k, run = knowledge, _Runs(knowledge)
        if lower := lower_lr(run.start.lr, done):
            return [run.spec(run.start.but(lr=lower))]
        given = [run.spec(h) for h in run.given(done)]
        if run.longer and not done and k.allowance is not None:
            return within(k, given[:2], done)
        if unproven := run.unproven(done):
            return unproven
        known = {record.trial_id for record in done}
        if run.longer and (rest := within(k, [spec for spec in given if spec.trial_id not in known], done)):
            return rest
        seen = {spec.trial_id for spec in given}
        proposed = [*given, *(r.spec for r in done if r.spec.repetition == run.repetition and r.trial_id not in seen)]
        left = run.proposals() - (len(proposed) - len(given))
        racing = any(r.spec.repetition > run.repetition and not run.raises(r.spec.hyperparameters) for r in done)
        if left > 0 and self._suggest is not None and not racing:
            new = self._suggest(run.start, search_space(replace(k, start=run.start)), done, min(ROUND, left), k.seed + len(proposed))
            tried = {contender(spec) for spec in proposed}
            fresh = [spec for spec in dict.fromkeys(map(run.spec, new)) if contender(spec) not in tried]
            if fresh:
                return fresh if done else [*given, *fresh]
        return next_round(k, proposed, done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the lowest adjusted loss: in short runs among those with the most seeds, in longer ones among those that hold.

        In longer runs, to which the noise of short ones does not carry over, the current best stays unless another is better by more
        than one standard error, or than luck gives the best of so many: it rests on all short runs. Short of the full length, which
        overfits sooner, what regularizes more need only be better.
        """
        run = _Runs(knowledge)
        ranking = ranked(knowledge, done, _columns, prior=NO_NOISE if run.longer else None)
        if ranking.best is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable("proposal", ranking, done))
        chosen = _best_longer(run, ranking, done) if run.longer else _best_of_most_seeds(ranking)
        h = chosen.hyperparameters
        found = "the current best stays" if h == run.start else "a proposal goes on"
        where = f" in runs of {run.length:.3g} times the short length" if run.longer else ""
        sentence = (
            f"{found} among {len(ranking.rows)} tried jointly{where}: LR {format_number(h.lr)}, batch size {h.batch_size}, "
            f"momentum {h.momentum:.3g}, weight decay {format_number(h.weight_decay)}, "
            f"loss {format_number(chosen.val_loss)}{interval(chosen)}"
        )
        return conclusion(self.name, ranking, done, chosen, sentence=sentence, detail={"length": run.length})


class _Runs:
    """The runs of this stage: how long they are, where they start, how many of them the allowance buys."""

    def __init__(self, k: Knowledge) -> None:
        self._k = k
        self._full = full = k.full_epochs / k.short_epochs
        trials = int(k.settings["trials"])
        if k.allowance is None:
            self.length = full if trials >= FEWEST_LONGER else 1.0
        else:
            lengths = [float(f"{FILLED * k.allowance / runs:.3g}") for runs in range(MOST_LONGER, FEWEST_LONGER - 1, -1)]
            self.length = min(full, next((length for length in lengths if length >= NEARLY_FULL * full), lengths[-1]))
        if self.length < SHORTEST_LONGER:
            self.length = 1.0
        self.longer = self.length != 1.0
        self.repetition = LONGER_REPETITIONS if self.longer else 0
        settled = settled_names(dict(k.sources))
        self.start = transfer(k.start, k.longer(self.length), settled)[0] if self.longer else k.start
        self._runs = trials if k.allowance is None else int(k.allowance / self.length)

    def spec(self, own: Hyperparameters) -> TrialSpec:
        """A run of this stage on its first seed; longer runs have seeds of their own, so that no luck of the short ones is repeated."""
        return self._k.run(own, epochs=self._k.short_epochs * self.length, repetition=self.repetition)

    def raises(self, own: Hyperparameters) -> bool:
        """Whether the LR is above that of the current best."""
        return own.lr > self.start.lr

    def regularizes(self, own: Hyperparameters) -> bool:
        """Whether weight decay is above that of the current best, and the LR not: what the full length needs more of than these runs."""
        return self.length < self._full and own.weight_decay > self.start.weight_decay and not self.raises(own)

    def unproven(self, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The second seed of the best candidate so far, where it raises the LR and the allowance pays for it."""
        k = self._k
        if not self.longer or k.allowance is None or k.seeds == 1:
            return []
        first = [record for record in done if record.usable and record.spec.repetition == self.repetition]
        for record in sorted(first, key=lambda record: criterion(k, record)):
            seen = select(done, [record.spec])
            if not self.raises(record.spec.hyperparameters) or seeds_agree(seen):
                break
            if len(seen) == 1:
                return within(k, [repeated(k, record.spec, self.repetition + 1)], done)
        return []

    def holds(self, row: Row, done: Sequence[TrialRecord]) -> bool:
        """Whether the LR is no higher than that of the current best, or more than one seed agrees with it."""
        return not self.raises(row.hyperparameters) or self._k.seeds == 1 or seeds_agree([r for r in done if r.trial_id in row.trials])

    def given(self, done: Sequence[TrialRecord] = ()) -> list[Hyperparameters]:
        """What is tried whatever the sampler says: the current best and, in longer runs, its neighbours, the most telling first.

        LRs are varied at the same timescale of weight decay, 1/(LR·WD): it is what weight decay acts by (arXiv 2405.13698). Under an
        allowance, more weight decay comes first: where it helps, still more regularization is next, less where it does not.
        """
        h = self.start
        if not self.longer:
            return [h]
        more = _figures(h.weight_decay * DECAY_STEP) or self._k.longer(self.length).decay(h)
        lower, higher = (h.but(lr=round_lr(h.lr * times), weight_decay=_figures(h.weight_decay / times)) for times in (0.5, 2.0))
        decayed, less = h.but(weight_decay=more), h.but(weight_decay=_figures(h.weight_decay / DECAY_STEP))
        if self._k.allowance is None:
            return list(dict.fromkeys([h, decayed, lower, higher, less]))[: self._runs]
        loss = {record.spec.hyperparameters: criterion(self._k, record) for record in done if record.spec.repetition == self.repetition}
        helped = loss.get(decayed, math.inf) < loss.get(h, math.inf)
        next_one = lower.but(weight_decay=_figures(2 * more)) if helped else less
        return list(dict.fromkeys([h, decayed, next_one, lower, higher]))[: max(FEWEST_LONGER, self._runs)]

    def proposals(self) -> int:
        """How many the sampler may propose: the config's without a search budget, else what is left after the final seeds."""
        k = self._k
        if k.allowance is None:
            return max(0, self._runs - len(self.given())) if self.longer else self._runs
        known = 0 if not self.longer and k.short_run(k.start).trial_id in k.history else len(self.given())
        return max(0, int(k.allowance / self.length - known - min(2 * (k.seeds - 1), k.allowance / self.length / SEED_SHARE)))


def _figures(value: float) -> float:
    return float(f"{value:.2g}")


def _best_of_most_seeds(ranking: Ranking) -> Row:
    usable = ranking.rows[: len(ranking.positions)]
    seeds = max(row.seeds for row in usable)
    return next(row for row in usable if row.seeds == seeds)


def _best_longer(run: _Runs, ranking: Ranking, done: Sequence[TrialRecord]) -> Row:
    """The first that was tried of those that are as good as the best one; the current best where none is shown to be better."""
    usable = ranking.rows[: len(ranking.positions)]
    start = next((row for row in usable if row.hyperparameters == run.start), None)

    luck = _luck(len(usable) - 1)

    def better(row: Row, other: Row) -> bool:
        by_loss = ranking.criterion == "val_loss"  # the blocks say nothing of a metric
        return not ranking.within_standard_error(other, row) and (not by_loss or _shown(row, other, done, luck))

    found = [row for row in usable if run.holds(row, done)]
    if start is not None:
        ahead = found[: found.index(start)]
        found = [row for row in ahead if run.regularizes(row.hyperparameters) or better(row, start)]
    if not found:
        return start or usable[0]
    planned = [record.trial_id for record in done]
    return min((row for row in found if not better(found[0], row)), key=lambda row: planned.index(row.trials[0]))


def _luck(others: int) -> float:
    """By how many standard errors the best of so many that are no better looks better, on the mean (Blom's formula); 1 at least."""
    return max(1.0, NormalDist().inv_cdf((others - 0.375) / (others + 0.25))) if others > 1 else 1.0


def _shown(row: Row, start: Row, done: Sequence[TrialRecord], errors: float) -> bool:
    """Whether `row` is better than `start` by more than `errors` of the validation samples' standard errors, on the seeds both have."""
    of = {r.trial_id: r for r in done if r.val_block_losses}
    first, second = ({of[t].spec.repetition: of[t].val_block_losses for t in x.trials if t in of} for x in (row, start))
    blocks = [[a - b for a, b in zip(first[seed], second[seed], strict=True)] for seed in sorted(first.keys() & second.keys())]
    error = block_error(blocks)
    return not errors * error >= start.val_loss - row.val_loss  # shown where the error is not known


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
