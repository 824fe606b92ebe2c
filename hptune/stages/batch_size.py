"""Stage 2: batch sizes at equal compute time, each with an LR check of its own (arXiv 1803.09820, section 4.2, remark 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from statistics import fmean

from hptune.analysis.ranking import Ranking, Row
from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import comparison, conclusion, nothing_usable
from hptune.stages.lr_range import SPREAD, is_new, lower_lr, round_lr
from hptune.stages.rounds import by_distance, criterion, next_round, ranked, repeated, seeds_agree, select, within
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

LR_EXPONENT = {"sgd": 0.7, "adamw": 0.5}  # best LR grows as batch to this power: measured for short 1cycle runs
LR_FACTORS = (1.0, 0.5, 2.0)  # checked around the scaled LR
MOST_RATES = 6  # LRs of one size, about
CLIFF = 2.0  # times the loss: an LR that leaves so much has ruined the training
NEAR = 1.05  # times the loss: as good, next to a cliff
TOLERANCE = 1.15  # throughputs within this factor count as equal: timing noise must not decide
MAX_SPEED = 4.0
SATURATED = 0.95  # a batch with this share of the best throughput is as fast as it gets


class BatchSize:
    """Compares batch sizes by short runs of equal compute time (or equal samples), each at the best of three LRs."""

    name = "batch_size"

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """LRs of all sizes on the first seed, the best size's until the best lies between two, then seeds for each size's best LR.

        Under a budget sizes are seen at their scaled LR alone, one after another as long as they get better; what is left finds the LR
        of the best one, and where that does not pay for a race, the one that would go on is seen on a second seed: an LR at the edge
        of stability survives one by luck.
        """
        if lower := lower_lr(knowledge.start.lr, done):
            return [knowledge.short_run(knowledge.start.but(lr=lower))]
        known = {record.trial_id for record in done}
        checks = [self._lr_checks(knowledge, size) for size in self._sizes(knowledge)]
        turns = (spec for turn in zip_longest(*checks) for spec in turn if spec is not None)
        grid = list(turns) if knowledge.allowance is None else self._walk(knowledge, done)
        for specs in (grid, self._around_the_best(knowledge, done)):
            missing = [spec for spec in specs if spec.trial_id not in known]
            if affordable := within(knowledge, missing, done):
                return affordable
        return next_round(knowledge, self._best_of_each(knowledge, done), done) or self._second_look(knowledge, done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the size with the lowest loss; a larger one where the difference is within the noise."""
        ranking, chosen = self._chosen(knowledge, done)
        notes = [*self._left_out(knowledge), *self._lr_at_edge(knowledge, chosen, done), *_safer_lr(knowledge, chosen, done)]
        detail = {"speeds": [list(pair) for pair in knowledge.speeds], "compare": knowledge.settings["compare"]}
        if chosen is None:
            return conclusion(
                self.name, ranking, done, None, sentence=nothing_usable("batch size", ranking, done), notes=notes, detail=detail
            )
        basis = "equal compute time" if knowledge.speeds else "equal samples"
        sentence = (
            f"{comparison('batch_size', ranking, chosen, preferred='larger')} (at {basis}, LR {format_number(chosen.hyperparameters.lr)})"
        )
        return conclusion(self.name, ranking, done, chosen, sentence=sentence, notes=notes, detail=detail)

    def _chosen(self, k: Knowledge, done: Sequence[TrialRecord]) -> tuple[Ranking, Row | None]:
        ranking = ranked(k, select(done, self._best_of_each(k, done)), _columns)
        return ranking, max(ranking.near_equal(), key=lambda row: row.hyperparameters.batch_size) if ranking.best else None

    def _second_look(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The second seed of what would go on, and, where that says something else than the first, of the next lower LR."""
        _, chosen = self._chosen(k, done)
        if k.allowance is None or k.seeds == 1 or chosen is None:
            return []
        own = chosen.hyperparameters
        if chosen.seeds > 1:
            if seeds_agree(select(done, [k.short_run(own)])):
                return []
            usable = (record.spec.hyperparameters for record in done if record.usable)
            lower = [h for h in usable if h.batch_size == own.batch_size and h.lr < own.lr]
            own = max(lower, key=lambda h: h.lr, default=own)
        new = repeated(k, k.short_run(own), 1)
        return [] if new.trial_id in {record.trial_id for record in done} else within(k, [new], done)

    def _sizes(self, k: Knowledge) -> list[int]:
        """The start's size first, then those that fit the data and memory and, at equal time, still gain throughput."""
        sizes = [int(v) for v in by_distance(k.settings["values"], k.start.batch_size)]
        return [size for size in sizes if size == k.start.batch_size or self._reason_against(k, size) is None]

    def _reason_against(self, k: Knowledge, size: int) -> str | None:
        seconds = _seconds(k.settings)
        if size > k.train_samples:
            return f"batch size {size} is larger than the training part ({k.train_samples})"
        if not math.isfinite(seconds.get(size, 0.0)):
            return f"batch size {size} does not fit in memory"
        if k.settings["compare"] == "time" and seconds:
            enough = smallest_saturated(seconds)
            if size > max(enough, k.start.batch_size):
                return f"batch size {size} is no faster per sample than {enough}"
        return None

    def _left_out(self, k: Knowledge) -> list[str]:
        reasons = [self._reason_against(k, size) for size in sorted(k.settings["values"]) if size != k.start.batch_size]
        return [f"left out: {reason}" for reason in reasons if reason]

    def _lr_checks(self, k: Knowledge, size: int) -> list[TrialSpec]:
        """The start's own LR at its own size (it was just checked); three around the scaled LR elsewhere."""
        if size == k.start.batch_size:
            return [k.short_run(k.start)]
        scaled = k.start.lr * (size / k.start.batch_size) ** LR_EXPONENT[k.optimizer]
        return [k.short_run(k.start.but(batch_size=size, lr=round_lr(scaled * factor))) for factor in LR_FACTORS]

    def _walk(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """The start's size, smaller ones while the loss falls, and larger ones where the first smaller one did not help."""
        losses = {record.trial_id: criterion(k, record) for record in done}
        sizes = sorted(self._sizes(k))
        at = sizes.index(k.start.batch_size)
        checks = [self._lr_checks(k, size)[0] for size in sizes]
        walked = [checks[at]]
        for way in (checks[:at][::-1], checks[at + 1 :]):
            before = checks[at]
            for spec in way:
                walked.append(spec)
                if spec.trial_id not in losses:
                    return walked
                if losses[spec.trial_id] >= losses[before.trial_id]:
                    break
                before = spec
            if before is not checks[at]:
                break
        return walked

    def _around_the_best(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """Both neighbours of the best size's best LR, where they are new."""
        first = [record for record in done if record.spec.repetition == 0]
        best = min(first, key=lambda record: criterion(k, record), default=None)
        if best is None or math.isinf(criterion(k, best)):
            return []
        own = best.spec.hyperparameters
        tried = [r.spec.hyperparameters.lr for r in first if r.spec.hyperparameters.batch_size == own.batch_size]
        if len(tried) >= MOST_RATES:
            return []
        around = [round_lr(own.lr * factor) for factor in (SPREAD, 1 / SPREAD)]
        return [k.short_run(own.but(lr=lr)) for lr in around if is_new(lr, tried)]

    def _best_of_each(self, k: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """For each size its best LR by the first seed, as first-seed specs; what lies above an LR that failed on any seed comes last."""
        sizes = dict.fromkeys(record.spec.hyperparameters.batch_size for record in done)
        return [_best_lr(k, [record for record in done if record.spec.hyperparameters.batch_size == size]) for size in sizes]

    def _lr_at_edge(self, k: Knowledge, chosen: Row | None, done: Sequence[TrialRecord]) -> list[str]:
        """Say so where the chosen size's LR is the outermost one checked."""
        if chosen is None or chosen.hyperparameters.batch_size == k.start.batch_size:
            return []
        runs = (record.spec.hyperparameters for record in done)
        tried = [h.lr for h in runs if h.batch_size == chosen.hyperparameters.batch_size]
        lr = chosen.hyperparameters.lr
        if lr not in (min(tried), max(tried)):
            return []
        return [f"the best LR at batch size {chosen.hyperparameters.batch_size} ({format_number(lr)}) is the outermost one checked"]


def _best_lr(k: Knowledge, own: Sequence[TrialRecord]) -> TrialSpec:
    """The best LR on the first seed, of those below any that failed; of those seen on more seeds the best on all, if there are several."""
    limit = min((record.spec.hyperparameters.lr for record in own if not record.usable), default=math.inf)
    first = {record.spec: criterion(k, record) for record in own if record.spec.repetition == 0}
    seen = {spec: [criterion(k, record) for record in select(own, [spec])] for spec in first if spec.hyperparameters.lr < limit}
    again = {spec: fmean(losses) for spec, losses in seen.items() if len(losses) > 1}
    losses = again if len(again) > 1 else first
    best = min(losses, key=lambda spec: (spec.hyperparameters.lr >= limit, losses[spec]))
    return _away_from_the_cliff(best, own) if k.rank_by == "val_loss" else best


def _safer_lr(k: Knowledge, chosen: Row | None, done: Sequence[TrialRecord]) -> list[str]:
    """Say so where the LR that goes on is lower than the one that was best on the first seed."""
    if chosen is None:
        return []
    own = chosen.hyperparameters
    first = [r for r in done if r.spec.repetition == 0 and r.spec.hyperparameters.batch_size == own.batch_size]
    best = min(first, key=lambda record: criterion(k, record)).spec.hyperparameters.lr
    if best <= own.lr:
        return []
    why = "did not hold on a second seed, or lies next to one that ruins the training"
    return [f"LR {format_number(own.lr)} goes on: {format_number(best)}, best on the first seed, {why}"]


def _away_from_the_cliff(best: TrialSpec, own: Sequence[TrialRecord]) -> TrialSpec:
    """The next lower LR, if its loss is nearly as low, where the next higher one ruins the training: longer runs bring the cliff nearer."""
    lr = best.hyperparameters.lr
    tried = {r.spec.hyperparameters.lr: r for r in own if r.spec.repetition == 0}
    loss = tried[lr].val_loss
    higher, lower = [rate for rate in tried if rate > lr], [rate for rate in tried if rate < lr]
    if not higher or not lower or not loss > 0:
        return best
    above, below = tried[min(higher)], tried[max(lower)]
    ruined = not above.usable or above.val_loss > CLIFF * loss
    return below.spec if ruined and below.usable and below.val_loss <= NEAR * loss else best


def relative_speeds(seconds_per_step: Mapping[int, float], baseline: Hyperparameters) -> tuple[tuple[int, float], ...]:
    """Samples per second of each batch size over the baseline's; differences within `TOLERANCE` count as none.

    `seconds_per_step` maps batch size to measured seconds (infinite: does not fit in memory, left out).
    """
    own = baseline.batch_size / seconds_per_step[baseline.batch_size]
    speeds = []
    for size, seconds in sorted(seconds_per_step.items()):
        speed = size / seconds / own
        if speed > 0:
            equal = max(speed, 1 / speed) <= TOLERANCE
            speeds.append((size, 1.0 if equal else round(min(max(speed, 1 / MAX_SPEED), MAX_SPEED), 2)))
    return tuple(speeds)


def smallest_saturated(seconds_per_step: Mapping[int, float]) -> int:
    """The smallest batch size with nearly the highest throughput: larger ones buy no time."""
    throughput = {size: size / seconds for size, seconds in seconds_per_step.items()}
    return min(size for size, rate in throughput.items() if rate >= SATURATED * max(throughput.values()))


def _seconds(settings: Mapping[str, object]) -> dict[int, float]:
    measured = settings.get("seconds_per_step", [])
    return {int(size): float(seconds) for size, seconds in measured} if isinstance(measured, list | tuple) else {}


def _columns(spec: TrialSpec) -> tuple[tuple[str, float | int | str], ...]:
    return (("batch_size", spec.hyperparameters.batch_size), ("lr", spec.hyperparameters.lr))
