"""What each stage is told: earlier conclusions, noise, speeds and its share of the budget, put together from the run so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hptune.analysis.candidates import Noise
from hptune.analysis.recommendation import (
    SETTLES,
    Conclusion,
    carry,
    finalists,
    length_of,
    onward,
    settle,
    settled_names,
    transfer,
)
from hptune.config.schema import Experiment
from hptune.stages.base import EVALUATIONS, STAGES, Knowledge
from hptune.stages.batch_size import relative_speeds
from hptune.trial import Calibration, Hyperparameters, Task, TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a stage may spend of a search budget: what is left, divided by the `part` of all stages still to come.

    `least`: short runs it gets before the others get any. Where others come after it, it gets at most `runs` short runs, or `most` of
    the whole budget if that is more. What one stage leaves goes to the next.
    """

    part: float
    least: float = 0.0
    runs: float = math.inf
    most: float = 0.0


SHARES = {
    "lr_range": Share(part=5.0, least=3.0, runs=4.2, most=0.16),  # a ramp, a check of what it suggests and of the start at least
    "batch_size": Share(part=4.0, runs=5.6, most=0.19),
    "momentum": Share(part=0.5, runs=1.0, most=0.04),
    "weight_decay": Share(part=0.5, runs=1.0, most=0.04),
    "refine": Share(part=3.5),
}
"""Stages of short runs are soon sure of what such runs can show; the rest goes to longer ones."""
SMALL_SHARES = {
    **SHARES,
    "lr_range": Share(part=5.0, least=3.0, runs=3.5),
    "batch_size": Share(part=16.0, runs=8.0),
    "refine": Share(part=0.5),
}
"""The same where the budget does not reach longer runs: the LR matters most, and the best batch size has one of its own."""
SMALL = 14  # short runs, about: the smaller budgets


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A stage that is done: what it knew, its records in plan order, and what it concluded."""

    knowledge: Knowledge
    records: tuple[TrialRecord, ...]
    conclusion: Conclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The search so far: finished stages by name, and the seconds of wall time they took."""

    finished: Mapping[str, Finished] = field(default_factory=dict)
    elapsed: float = 0.0

    def before(self, stage: str) -> list[Finished]:
        """The finished search stages that come before `stage` in the method's order; all of them for a key sweep."""
        order = STAGES[: STAGES.index(stage)] if stage in STAGES else tuple(SETTLES)
        return [self.finished[name] for name in order if name in self.finished]


def enabled_stages(experiment: Experiment) -> tuple[str, ...]:
    """The stages `hptune run` goes through, in order."""
    return tuple(name for name in STAGES if getattr(experiment.stages, name))


def stage_knowledge(
    name: str, experiment: Experiment, task: Task, progress: Progress, *, settings: Mapping[str, Any], seconds_per_run: float | None = None
) -> Knowledge:
    """What stage `name` is told. `seconds_per_run`: wall seconds of one short-run equivalent, for budgets given as time.

    The settings of the stage batch_size may hold what was measured: `seconds_per_step`, pairs of a size and its seconds.
    """
    earlier = progress.before(name)
    conclusions = [stage.conclusion for stage in earlier]
    baseline = experiment.baseline_hyperparameters()
    start, sources = settle(conclusions, baseline)
    knowledge = Knowledge(
        task=task.task_id,
        numerics=task.numerics,
        train_samples=task.train_samples,
        val_samples=task.val_samples,
        test_samples=task.test_samples,
        optimizer=experiment.optimizer.name,
        schedule=experiment.schedule.schedule(),
        start=start,
        baseline=baseline,
        settings=settings,
        sources=tuple(sources.items()),
        short_epochs=experiment.budget.short_epochs,
        full_epochs=experiment.budget.epochs,
        seeds=experiment.seeds,
        seed=experiment.seed,
        rank_by=experiment.rank_by,
        larger_is_better=experiment.metric.larger_is_better,
        noise=sum((c.noise for c in conclusions if length_of(c) == 1), Noise()) if experiment.rank_by == "val_loss" else Noise(),
        speeds=relative_speeds(dict(measured), baseline) if (measured := settings.get("seconds_per_step")) else known_speeds(earlier),
        history=tuple(dict.fromkeys(r.trial_id for stage in earlier for r in stage.records if r.spec.schedule.kind != "ramp")),
    )
    if name == "confirm":
        return replace(knowledge, settings={**settings, "finalists": _finalists(experiment, knowledge, progress)})
    return replace(knowledge, allowance=allowance(name, experiment, knowledge, progress, seconds_per_run)) if name in SHARES else knowledge


def known_speeds(earlier: Sequence[Finished]) -> tuple[tuple[int, float], ...]:
    """Relative speeds of batch sizes, as the batch-size stage measured them."""
    return next((stage.knowledge.speeds for stage in earlier if stage.conclusion.stage == "batch_size"), ())


def allowance(name: str, experiment: Experiment, knowledge: Knowledge, progress: Progress, seconds_per_run: float | None) -> float | None:
    """Short-run equivalents stage `name` may spend: its share of what the budget still holds; None without a budget."""
    budget = experiment.budget
    if budget.search_runs is not None:
        whole = budget.search_runs
        spent = {r.trial_id: knowledge.spent(r) for stage in progress.before(name) for r in stage.records}
        left = whole - sum(spent.values())
    elif budget.search_seconds is not None and seconds_per_run:
        whole = budget.search_seconds / seconds_per_run
        left = (budget.search_seconds - progress.elapsed) / seconds_per_run
    else:
        return None
    coming = [stage for stage in enabled_stages(experiment) if stage in SHARES and STAGES.index(stage) >= STAGES.index(name)]
    shares = SHARES if whole >= SMALL else SMALL_SHARES
    own, left = shares[name], max(left, 0.0)
    share = min(left, max(left * own.part / (sum(shares[stage].part for stage in coming) or own.part), own.least))
    if coming != [name]:
        share = min(share, max(own.runs, own.most * whole))
    return round(share, 3)


def seconds_per_short_run(knowledge: Knowledge, calibration: Calibration) -> float:
    """Seconds of one short run at the baseline, evaluations included, from a calibration of its batch size."""
    steps = knowledge.steps(knowledge.short_epochs, knowledge.baseline.batch_size)
    return steps * calibration.seconds_per_step + EVALUATIONS * knowledge.val_samples * calibration.seconds_per_evaluated_sample


def _finalists(experiment: Experiment, knowledge: Knowledge, progress: Progress) -> list[list[Any]]:
    to = knowledge.longer(knowledge.full_epochs / knowledge.short_epochs)
    conclusions = [stage.conclusion for stage in progress.before("confirm")]
    recommended, _ = carry(conclusions, knowledge.baseline, to)
    refine = next((c for c in conclusions if c.stage == "refine"), None)
    runners_up: list[Hyperparameters] = []
    if refine is not None:
        near = [row.hyperparameters for row in refine.rows if row.verdict in ("best", "tied") and row.hyperparameters != knowledge.start]
        settled = settled_names(dict(knowledge.sources))
        if length_of(refine) == 1:
            runners_up = [transfer(h, to, settled)[0] for h in near]
        else:
            carried, start = (transfer(knowledge.start, run, settled)[0] for run in (to, to.at(length_of(refine))))
            runners_up = [onward(h, carried, start) for h in near]
    count = experiment.stages.confirm.finalists if experiment.stages.confirm else 0
    found = finalists(recommended, knowledge.start, knowledge.baseline, runners_up, count, least_decay=to.decay(recommended))
    return [[name, asdict(h)] for name, h in found]
