"""Gives trials to the executor, the long ones first, and to idle workers those that will probably be planned next."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hptune.confidential import hide_values
from hptune.executors.base import Failure
from hptune.running import Run
from hptune.store.layout import write_curve
from hptune.trial import Curve, TrialOutcome, TrialRecord, TrialSpec

Foresight = Callable[[Sequence[TrialRecord]], Iterable[TrialSpec]]
"""From the records of a round so far to the trials that may follow it, the most likely first."""


def execute(run: Run, specs: Sequence[TrialSpec], foreseen: Foresight) -> Iterator[TrialRecord]:
    """Perform `specs` and journal each record as it comes; what ran out of memory beside others is tried again alone.

    Workers that none of them waits for perform what is `foreseen`. What they have done when this ends is kept in `run.ahead`, what
    they are doing goes on. Nothing of that is journalled unless it is asked for: it changes no result.
    """
    waiting = {spec.trial_id: spec for spec in specs}
    for trial in [trial for trial in waiting if trial in run.ahead]:
        del waiting[trial]
        yield keep(run, run.ahead.pop(trial))
    done: list[TrialRecord] = []
    for outcome in _outcomes(run, waiting, lambda: foreseen(done)):
        if outcome.record.status == "out_of_memory" and run.executor.workers > 1 and len(specs) + len(run.underway) > 1:
            continue
        record = keep(run, outcome)
        del waiting[record.trial_id]
        done.append(record)
        yield record
    for spec in waiting.values():
        for _, result in run.executor.map([run.item(spec)]):
            yield keep(run, _outcome(spec, result))


def keep(run: Run, outcome: TrialOutcome) -> TrialRecord:
    """Write the curve, then journal the record; return what was journalled."""
    record = replace(outcome.record, error=hide_values(outcome.record.error, os.environ))  # an exception may quote a secret
    write_curve(run.layout, record.trial_id, outcome.curve)
    run.journal.append("trial", record.to_json())
    return record


def longest_first(specs: Iterable[TrialSpec], records: Iterable[TrialRecord]) -> list[TrialSpec]:
    """`specs` by the seconds they will take, so that no long one begins when the others end; equals in the order given.

    `records` tell how fast each batch size is; where they do not, it is as fast as all of them together.
    """
    measured: dict[int, list[float]] = {}
    for record in records:
        if record.samples > 0 and 0 < record.seconds < math.inf:
            own = measured.setdefault(record.spec.hyperparameters.batch_size, [0.0, 0.0])
            own[0] += record.samples
            own[1] += record.seconds
    samples, seconds = (sum(own[i] for own in measured.values()) for i in (0, 1))
    pace = {size: own[1] / own[0] for size, own in measured.items()}  # seconds a sample
    usual = seconds / samples if samples else 1.0
    return sorted(specs, key=lambda spec: -spec.samples * pace.get(spec.hyperparameters.batch_size, usual))


def _outcomes(run: Run, wanted: Mapping[str, TrialSpec], foreseen: Callable[[], Iterable[TrialSpec]]) -> Iterator[TrialOutcome]:
    """The outcomes of `wanted` as they come; those of other trials are put aside."""
    numbers = {spec.trial_id: number for number, spec in run.underway.items()}
    for spec in longest_first(wanted.values(), run.journal.state.records.values()):
        if spec.trial_id in numbers:
            run.executor.want(numbers[spec.trial_id])
        else:
            run.underway[run.executor.submit(run.item(spec))] = spec
    try:
        with contextlib.closing(run.executor.results()) as results:
            _occupy(run, foreseen)
            for number, result in results:
                outcome = _outcome(run.underway.pop(number), result)
                if outcome.record.trial_id in wanted:
                    yield outcome
                elif outcome.record.status in ("completed", "diverged"):  # what failed is tried again when it is its turn
                    run.ahead[outcome.record.trial_id] = outcome
                _occupy(run, foreseen)
    except BaseException:
        run.underway.clear()
        raise
    for number in run.executor.withdraw():
        run.begun_ahead.discard(run.underway.pop(number).trial_id)


def _occupy(run: Run, foreseen: Callable[[], Iterable[TrialSpec]]) -> None:
    """Give idle workers trials that may be planned next, each once."""
    room = run.executor.idle if run.foresight else 0
    if room <= 0:
        return
    wanted = {spec.trial_id for spec in run.underway.values()}
    for spec in foreseen():
        trial = spec.trial_id
        if trial not in wanted and trial not in run.begun_ahead and trial not in run.journal.state.records:
            run.begun_ahead.add(trial)
            run.underway[run.executor.submit(run.item(spec), spare=True)] = spec
            room -= 1
            if not room:
                return


def _outcome(spec: TrialSpec, result: TrialOutcome | Failure) -> TrialOutcome:
    if isinstance(result, Failure):
        reason = result.error.strip().splitlines()[-1] if result.error.strip() else "the worker gave no reason"
        return TrialOutcome(TrialRecord(spec=spec, status="failed", error=reason), Curve({"step": []}))
    return result
