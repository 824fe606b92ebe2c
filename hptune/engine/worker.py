"""What a worker process does with an item: open the problem, once for many items, and run the trial or the calibration.

A trial on several devices is run by a gang of processes that this one starts and keeps; each of them does the same with the same item.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from hptune.config.schema import Experiment
from hptune.engine.gang import Left, Post, RankLostError, gang_of
from hptune.engine.parts import Parts
from hptune.engine.problem import Problem, experiment_key, find_open, open_problem
from hptune.engine.sharing import Handle, attach, data_key
from hptune.engine.trainer import calibrate, calibrated, run_trial, timed
from hptune.errors import DeviceLostError, InputError
from hptune.trial import Calibration, CalibrationRequest, Curve, Numerics, TrialOutcome, TrialRecord, TrialSpec

KEPT = 8
"""Problems a process keeps: the variants of a key sweep, which share their data where these are the same."""

_kept: OrderedDict[str, Problem] = OrderedDict()


Request = TrialSpec | CalibrationRequest


def perform(item: tuple[Experiment, Request] | tuple[Experiment, Request, Handle | None]) -> TrialOutcome | Calibration:
    """Run one trial or calibration of an experiment in this process, on the data that the item's handle leads to where it has one.

    On several devices other processes do it, which this one sees to. Raises InputError where data or user code are no longer what the
    trial was planned for, and what `open_problem` raises.
    """
    experiment, request, *more = item
    handle = more[0] if more else None
    if isinstance(request, CalibrationRequest):
        return measured(experiment, request, handle)
    if request.numerics.replicas > 1:
        return outcome_of(request, lambda: gang_of(request.numerics).call(_run_as_rank, experiment, request, handle))
    return run_trial(planned(experiment, request, handle), request)


def measured(experiment: Experiment, request: CalibrationRequest, handle: Handle | None = None) -> Calibration:
    """The calibration alone; raises what the user's code raises, and `open_problem`."""
    if request.numerics.replicas == 1:
        return calibrate(_problem(experiment, handle), request)

    def attempt(numerics: Numerics) -> Calibration | None:
        try:
            found: Calibration = gang_of(numerics).call(_time_as_rank, experiment, replace(request, numerics=numerics), handle)
        except MemoryError:
            return None
        return found

    return calibrated(request, attempt)


def planned(experiment: Experiment, spec: TrialSpec, handle: Handle | None) -> Problem:
    """The problem that `spec` was planned for. Raises InputError where data or user code are others by now."""
    problem = _problem(experiment, handle)
    if problem.task.task_id != spec.task:
        _kept.clear()
        problem = _problem(experiment, handle)
    if problem.task.task_id != spec.task:
        raise InputError("data, code or library versions are not those this trial was planned for: give the command again")
    return problem


def outcome_of(spec: TrialSpec, perform_by_gang: Callable[[], TrialOutcome]) -> TrialOutcome:
    """What a gang makes of a trial; one that lost a process or a device has failed, and the next one finds another gang."""
    try:
        outcome = perform_by_gang()
    except (RankLostError, DeviceLostError) as error:
        record = TrialRecord(spec=spec, status="failed", device=spec.numerics.device, error=str(error))
        outcome = TrialOutcome(record, Curve({"step": []}))
    except MemoryError as error:
        record = TrialRecord(spec=spec, status="out_of_memory", device=spec.numerics.device, error=str(error))
        outcome = TrialOutcome(record, Curve({"step": []}))
    return replace(outcome, record=replace(outcome.record, worker=os.getpid()))


def as_rank(outcome: TrialOutcome) -> TrialOutcome | Left:
    """The outcome as one rank tells it: where it failed, others may be waiting for it."""
    return outcome if outcome.record.status in ("completed", "diverged") else Left(outcome)


def _run_as_rank(_: Post, experiment: Experiment, spec: TrialSpec, handle: Handle | None) -> TrialOutcome | Left:
    return as_rank(run_trial(planned(experiment, spec, handle), spec))


def _time_as_rank(_: Post, experiment: Experiment, request: CalibrationRequest, handle: Handle | None) -> Calibration:
    return timed(_problem(experiment, handle), request)


def _problem(experiment: Experiment, handle: Handle | None) -> Problem:
    """The problem of `experiment`: one that somebody in this process holds open, one kept from earlier, or a new one."""
    key = experiment_key(experiment)
    problem = find_open(experiment) or _kept.get(key)
    if problem is None:
        problem = _kept[key] = open_problem(experiment, _parts(experiment, handle))
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return problem


def _parts(experiment: Experiment, handle: Handle | None) -> Parts | None:
    """The experiment's data where another problem or another process has them; None where they must be loaded."""
    key = data_key(experiment)
    for kept in _kept.values():
        if data_key(kept.experiment) == key:
            return kept.parts
    return attach(handle) if handle is not None and handle.key == key else None
