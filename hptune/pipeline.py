"""The loop: plan -> what is missing -> execute -> journal -> conclude. It yields events and prints nothing.

A stage is planned from the beginning each time; trials already in the journal are taken from there. So a run that was killed
continues by being run again, and ends with the same tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import fmean
from typing import Any

from hptune.analysis.wording import count
from hptune.calibration import calibrated_sizes, numerics_within_memory, samples_that_fit, seconds_per_run, settle_workers
from hptune.confidential import hide_values
from hptune.config.schema import Experiment
from hptune.dispatch import execute
from hptune.errors import StageError
from hptune.foresight import Foresight, Outlook
from hptune.knowledge import Finished, Progress, stage_knowledge
from hptune.running import Event, Remark, RoundPlanned, Run, StageConcluded, StageStarted, TrialDone
from hptune.sampler import TpeSampler
from hptune.stages import Knowledge, stage_named
from hptune.store.journal import Journal
from hptune.trial import Task, TrialRecord, TrialSpec

PATIENCE, LEAST_PATIENCE = 0.1, 0.2  # of the seconds of a trial, and seconds: how long the driver may think ahead at a time
MOST_RECENT = 100  # trials that tell how long one takes


def run_stages(run: Run, stages: Sequence[str]) -> Iterator[Event]:
    """Run `stages` in order. A search stage the budget no longer reaches is passed over with a remark.

    Raises StageError where no trial of a stage ended with a usable loss.
    """
    _journal_task(run)
    began = run.clock()
    blocks = {name: _block(run.experiment, name) for name in stages}
    if "batch_size" in blocks and blocks["batch_size"]["compare"] == "time":  # now, while no trial has to end before it can be measured
        blocks["batch_size"]["seconds_per_step"] = yield from calibrated_sizes(run, blocks["batch_size"])
    run.progress = replace(run.progress, elapsed=run.progress.elapsed + run.clock() - began)
    for at, name in enumerate(stages, 1):
        run.coming = {later: blocks[later] for later in stages[at:]}
        yield from _stage(run, name, blocks[name])
    yield from _told_ahead(run)


def run_stage(run: Run, name: str, settings: Mapping[str, Any]) -> Iterator[Event]:
    """Run one stage with `settings` and add it to the run's progress."""
    yield from _stage(run, name, settings)
    yield from _told_ahead(run)


def _stage(run: Run, name: str, settings: Mapping[str, Any]) -> Iterator[Event]:
    _journal_task(run)
    began = run.clock()
    seconds = (yield from seconds_per_run(run)) if run.experiment.budget.search_seconds is not None else None
    knowledge = _knowledge(run, name, settings, seconds)
    yield StageStarted(stage=name, knowledge=knowledge)
    knowledge, done = yield from _rounds(run, name, knowledge, began, seconds)
    if not done:
        yield Remark(text=f"{name}: passed over, the search budget is spent")
        return
    conclusion = stage_named(name).conclude(knowledge, done)
    _journal_latest(run, "conclusion", name, conclusion.to_json())
    finished = {**run.progress.finished, name: Finished(knowledge=knowledge, records=tuple(done), conclusion=conclusion)}
    run.progress = Progress(finished=finished, elapsed=_spent(run, name, began))
    yield StageConcluded(conclusion=conclusion)
    if conclusion.chosen is None:
        raise StageError(f"stage {name}: {conclusion.sentence}")


def _told_ahead(run: Run) -> Iterator[Remark]:
    """Say what idle workers did ahead, where they did."""
    if begun := len(run.begun_ahead):
        used = sum(trial in run.journal.state.records for trial in run.begun_ahead)
        yield Remark(text=f"idle workers ran {count(begun, 'trial')} ahead of the plan, of which it came to {used or 'none'}")


def resume_progress(journal: Journal, task: Task, stages: Sequence[str]) -> Progress:
    """What the journal holds of `stages` for this task: complete stages only, concluded afresh from their records."""
    finished: dict[str, Finished] = {}
    for name in stages:
        plan = journal.state.plans.get(name)
        concluded = journal.state.conclusions.get(name, {}).get("trials")
        if plan is None or plan["knowledge"]["task"] != task.task_id or concluded != len(plan["trials"]):
            continue  # never run, run on other data or another model, or stopped between two rounds
        if not all(trial in journal.state.records for trial in plan["trials"]):
            continue
        knowledge = Knowledge.from_json(plan["knowledge"])
        records = tuple(journal.state.records[t] for t in plan["trials"])
        conclusion = stage_named(name).conclude(knowledge, records)
        if conclusion.chosen is not None:
            finished[name] = Finished(knowledge=knowledge, records=records, conclusion=conclusion)
    return Progress(finished=finished, elapsed=elapsed_before(journal))


def elapsed_before(journal: Journal) -> float:
    """Seconds of search time that earlier invocations spent on this run directory."""
    return max((float(record["elapsed"]) for record in journal.state.others.get("clock", ())), default=0.0)


def _rounds(
    run: Run, name: str, knowledge: Knowledge, began: float, seconds: float | None
) -> Generator[Event, None, tuple[Knowledge, list[TrialRecord]]]:
    """Plan and run rounds until the stage has what it needs; return its records in plan order.

    Where a batch turns out to be more than memory holds, the stage is planned again with micro-batches: what fits is the same trial
    as before. The knowledge that this leaves is returned too.
    """
    records = run.journal.state.records
    stage = stage_named(name, TpeSampler(records[t] for t in knowledge.history) if name == "refine" else None)
    planned: list[TrialSpec] = []
    done: list[TrialRecord] = []
    while new := stage.plan(knowledge, done):
        missing = [spec for spec in new if spec.trial_id not in records]
        if missing and _out_of_time(run, name, began):
            yield Remark(text=f"{name}: ended early, the search time is spent")
            break
        planned += new
        _journal_plan(run, name, knowledge, planned, len(new))
        known = tuple(records[spec.trial_id] for spec in new if spec.trial_id in records)
        yield RoundPlanned(stage=name, trials=len(new), known=known)
        if len(missing) > 1:
            yield from settle_workers(run)
        ahead = partial(_outlook, run, name, knowledge, planned, seconds)
        foresight = Foresight(ahead, len(missing), clock=run.clock, patience=_patience(run))
        for record in execute(run, missing, foresight):
            if run.experiment.budget.search_seconds is not None and name != "confirm":
                run.journal.append("clock", {"elapsed": _spent(run, name, began)})
            yield TrialDone(stage=name, record=record)
            yield from (Remark(text=text) for text in run.executor.news())
        done = [records[spec.trial_id] for spec in planned]
        smaller = yield from numerics_within_memory(run, knowledge, done)
        if smaller != knowledge.numerics:
            knowledge, planned, done = replace(knowledge, numerics=smaller), [], []
    return knowledge, done


def _outlook(run: Run, name: str, knowledge: Knowledge, planned: Sequence[TrialSpec], seconds: float | None) -> Outlook:
    """What the run knows now, with what idle workers have done already."""
    return Outlook(
        experiment=run.experiment,
        task=_task(run),
        progress=run.progress,
        stage=name,
        knowledge=knowledge,
        planned=planned,
        records={**run.journal.state.records, **{trial: outcome.record for trial, outcome in run.ahead.items()}},
        coming=run.coming,
        seconds_per_run=seconds,
    )


def _patience(run: Run) -> float:
    """Seconds for which the driver may think ahead: a small part of a usual trial."""
    seconds = [record.seconds for record in run.journal.state.records.values() if record.seconds > 0]
    return max(LEAST_PATIENCE, PATIENCE * fmean(seconds[-MOST_RECENT:])) if seconds else LEAST_PATIENCE


def _task(run: Run) -> Task:
    """The run's task, with no more samples at a time than fitted into memory."""
    return replace(run.task, numerics=run.task.numerics.within(samples_that_fit(run)))


def _knowledge(run: Run, name: str, settings: Mapping[str, Any], seconds: float | None) -> Knowledge:
    """Return the stage's knowledge; one that the journal holds is taken up again where only a time budget's share differs."""
    knowledge = stage_knowledge(name, run.experiment, _task(run), run.progress, settings=settings, seconds_per_run=seconds)
    plan = run.journal.state.plans.get(name)
    if plan is not None and seconds is not None:
        journalled = Knowledge.from_json(plan["knowledge"])
        if replace(journalled, allowance=knowledge.allowance) == Knowledge.from_json(_plain(knowledge.to_json())):
            return journalled
    return knowledge


def _out_of_time(run: Run, name: str, began: float) -> bool:
    limit = run.experiment.budget.search_seconds
    return limit is not None and name != "confirm" and _spent(run, name, began) >= limit


def _spent(run: Run, name: str, began: float) -> float:
    """Seconds of search time spent on the run directory so far, in a stage that `began` then; confirm is not of the search."""
    return run.progress.elapsed + (0.0 if name == "confirm" else run.clock() - began)


def _block(experiment: Experiment, name: str) -> dict[str, Any]:
    block: dict[str, Any] = getattr(experiment.stages, name).model_dump()
    return block


def _journal_task(run: Run) -> None:
    """Name the task as the current one unless it is already."""
    if run.task.task_id != next(reversed(run.journal.state.tasks), None):
        run.journal.append("task", hide_values(asdict(run.task), os.environ))


def _journal_plan(run: Run, name: str, knowledge: Knowledge, planned: Sequence[TrialSpec], new: int) -> None:
    """Append the plan, or the `new` trials at its end, unless the latest one of this stage has them: a continued run repeats nothing."""
    after, latest = len(planned) - new, run.journal.state.plans.get(name)
    ids = [spec.trial_id for spec in planned[after:]]
    if latest is not None and after:  # its beginning was compared in the rounds before
        if latest["trials"][after : after + new] != ids:
            run.journal.append("round", {"stage": name, "after": after, "trials": ids})
        return
    payload = {"stage": name, "knowledge": _plain(knowledge.to_json()), "trials": ids}
    if latest is None or not _same(latest["knowledge"], payload["knowledge"]) or latest["trials"][:new] != ids:
        run.journal.append("plan", payload)


def _journal_latest(run: Run, kind: str, stage: str, payload: Mapping[str, Any]) -> None:
    latest = run.journal.state.conclusions.get(stage)
    if latest is None or not _same(latest, payload):
        run.journal.append(kind, payload)


def _plain(value: Any) -> Any:
    """JSON's own types: tuples become lists, as they are when read back."""
    return json.loads(json.dumps(value))


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON texts, so that NaN equals NaN."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
