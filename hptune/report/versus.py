"""Whether the recommendations of two runs differ by more than noise, where their confirmations allow to say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hptune.analysis.candidates import Candidate
from hptune.analysis.ranking import Comparison, Row, rank
from hptune.report.run import Run, StageResult
from hptune.trial import Task, TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """The second run's recommendation against the first's.

    `why_not`: why nothing can be said, empty where it can. `same`: they are the same. `comparison`: simultaneous 95 % over all
    finalists of both; `better` means that the second is. `seeds`: repetitions that both were trained on.
    """

    why_not: str = ""
    same: bool = False
    comparison: Comparison = field(default_factory=Comparison)
    seeds: int = 0


def versus(first: Run, second: Run) -> Versus:
    """Compare what confirm trained for each: all finalists of both are ranked together, on the seeds they share."""
    stages = [_confirmed(run) for run in (first, second)]
    why_not = _why_not(first, second, stages)
    if why_not or stages[0] is None or stages[1] is None:
        return Versus(why_not=why_not)
    rows = [_chosen(stage) for stage in stages if stage is not None]
    same_task = stages[0].knowledge.task == stages[1].knowledge.task
    if same_task and rows[0].hyperparameters == rows[1].hyperparameters:
        return Versus(same=True)
    shared = _seeds(stages[0], rows[0]) & _seeds(stages[1], rows[1])
    knowledge = stages[0].knowledge
    candidates = {
        tuple(record.trial_id for record in candidate.records): candidate
        for stage in stages
        if stage
        for candidate in _candidates(stage, shared)
    }
    ranking = rank(list(candidates.values()), by_metric=knowledge.rank_by == "metric", larger_is_better=knowledge.larger_is_better)
    found = [next(row for row in ranking.rows if row.trials and row.trials[0] in own.trials) for own in rows]
    return Versus(comparison=ranking.compare(found[1], found[0]), seeds=len(shared))


def incomparable(one: Task | None, other: Task | None, *, metrics: bool = True) -> str:
    """Why the losses of two tasks cannot be compared, or, where these matter, their `metrics`; nothing where they can."""
    if one is None or other is None:
        return "whether their losses can be compared is not known: a journal without a task does not say what was trained"
    if one.task_id == other.task_id:
        return ""
    if "data" not in one.identity or "data" not in other.identity:
        return "whether their losses can be compared is not known: a journal does not say on which data they are"
    parts = ("data", "loss", "step", *(("metric",) if metrics else ()))
    differing = [name for name in parts if one.identity.get(name) != other.identity.get(name)]
    if differing == ["metric"]:
        return "their metrics cannot be compared: other metric"
    return f"their losses cannot be compared: other {', '.join(differing)}" if differing else ""


def _why_not(first: Run, second: Run, stages: list[StageResult | None]) -> str:
    """What stands against a comparison; nothing where nothing does."""
    by_metric = any(stage is not None and stage.knowledge.rank_by == "metric" for stage in stages)
    if reason := incomparable(first.task, second.task, metrics=by_metric):
        return reason
    if any(stage is None for stage in stages):
        return "not both are confirmed at full length"
    one, other = (stage.knowledge for stage in stages if stage is not None)
    if one.rank_by != other.rank_by:
        return f"one ranks by {one.rank_by}, the other by {other.rank_by}"
    if one.full_epochs != other.full_epochs:
        return f"they are confirmed at different lengths, {one.full_epochs:g} and {other.full_epochs:g} epochs"
    seeds = [_seeds(stage, _chosen(stage)) for stage in stages if stage is not None]
    return "" if len(seeds[0] & seeds[1]) > 1 else "they were confirmed on different seeds"


def _confirmed(run: Run) -> StageResult | None:
    """The run's confirm stage, where it counts and found something."""
    found = next((stage for stage in run.stages if stage.name == "confirm" and stage.counts and stage.conclusion is not None), None)
    return found if found is not None and found.conclusion and any(row.chosen for row in found.conclusion.rows) else None


def _chosen(stage: StageResult) -> Row:
    return next(row for row in (stage.conclusion.rows if stage.conclusion else ()) if row.chosen)


def _records(stage: StageResult, row: Row) -> Iterator[TrialRecord]:
    return (record for record in stage.records if record.trial_id in row.trials)


def _seeds(stage: StageResult, row: Row) -> set[tuple[int, int]]:
    """Repetition and seed of each of a row's trials."""
    return {(record.spec.repetition, record.spec.seed) for record in _records(stage, row)}


def _candidates(stage: StageResult, seeds: set[tuple[int, int]]) -> Iterator[Candidate]:
    """The finalists, each with its trials on these seeds."""
    for row in stage.conclusion.rows if stage.conclusion else ():
        records = tuple(record for record in _records(stage, row) if (record.spec.repetition, record.spec.seed) in seeds)
        yield Candidate(values=row.values, hyperparameters=row.hyperparameters, records=records)
