"""What a worker process does with an item: open the problem, once for many items, and run the trial or the calibration.

A trial on several devices is run by a gang of processes that this one starts and keeps; each of them does the same with the same item.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hptune.config.schema import Experiment
from hptune.engine.gang import Gang, Left, Post, RankLostError, gang_of
from hptune.engine.numerics import resolve_device
from hptune.engine.parts import Parts
from hptune.engine.problem import Problem, experiment_key, find_open, open_problem
from hptune.engine.sharing import Handle, attach, data_key
from hptune.engine.shipping import Shipment, unpack
from hptune.engine.trainer import calibrate, calibrated, run_trial, timed
from hptune.errors import DeviceLostError, InputError, UserCodeError
from hptune.trial import Calibration, CalibrationRequest, Curve, Numerics, Opening, Task, TrialOutcome, TrialRecord, TrialSpec

KEPT = 8
"""Problems a process keeps: the variants of a key sweep, which share their data where these are the same."""

_kept: OrderedDict[str, Problem] = OrderedDict()


Request = TrialSpec | CalibrationRequest | Opening
Lead = Handle | Shipment


def perform(item: tuple[Experiment, Request] | tuple[Experiment, Request, Lead | None]) -> TrialOutcome | Calibration | Task:
    """Do what is asked for with an experiment in this process, on the data that the item's lead goes to where it has one.

    A trial's outcome, a calibration, or the task that was opened. On several devices other processes do it, which this one sees to. Raises
    InputError where data or user code are no longer what the trial was planned for, and what `open_problem` raises; what a `Shipment`
    brought here is named by its place at home.
    """
    experiment, request, *more = item
    lead = more[0] if more else None
    if not isinstance(lead, Shipment):
        return _perform(experiment, request, lead)
    try:
        result = _perform(experiment, request, lead)
    except UserCodeError as error:
        raise UserCodeError(lead.homeward(error.message), where=lead.homeward(error.where) if error.where else None) from error
    if not isinstance(result, TrialOutcome):
        return result
    reason = result.record.error and lead.homeward(result.record.error)
    return replace(result, record=replace(result.record, host=socket.gethostname(), error=reason))


def _perform(experiment: Experiment, request: Request, lead: Lead | None) -> TrialOutcome | Calibration | Task:
    if isinstance(request, Opening):
        return _problem(experiment, lead).task
    if isinstance(request, CalibrationRequest):
        return measured(experiment, request, lead)
    if request.numerics.replicas > 1:
        gang = gang_of(request.numerics)
        return outcome_of(request, lambda: gang.call(_run_as_rank, experiment, request, _lead_for(gang, lead)))
    return run_trial(planned(experiment, request, lead), request)


def measured(experiment: Experiment, request: CalibrationRequest, lead: Lead | None = None) -> Calibration:
    """The calibration alone; raises what the user's code raises, and `open_problem`."""
    if request.numerics.replicas == 1:
        return calibrate(_problem(experiment, lead), request)

    def attempt(numerics: Numerics) -> Calibration | None:
        gang = gang_of(numerics)
        try:
            found: Calibration = gang.call(_time_as_rank, experiment, replace(request, numerics=numerics), _lead_for(gang, lead))
        except MemoryError:
            return None
        return found

    return calibrated(request, attempt)


def planned(experiment: Experiment, spec: TrialSpec, lead: Lead | None) -> Problem:
    """The problem that `spec` was planned for. Raises InputError where data or user code are others by now."""
    problem = _problem(experiment, lead)
    if problem.task.task_id != spec.task:
        _kept.clear()
        problem = _problem(experiment, lead)
    if problem.task.task_id != spec.task:
        raise InputError(_what_differs(problem.task, lead))
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


def _run_as_rank(_: Post, experiment: Experiment, spec: TrialSpec, lead: Lead | None) -> TrialOutcome | Left:
    return as_rank(run_trial(planned(experiment, spec, lead), spec))


def _time_as_rank(_: Post, experiment: Experiment, request: CalibrationRequest, lead: Lead | None) -> Calibration:
    return timed(_problem(experiment, lead), request)


@dataclass(frozen=True, slots=True)
class _Filed:
    """A `Box` whose content is in a file of this machine."""

    path: Path

    def open(self) -> Any:
        with self.path.open("rb") as file:
            return pickle.load(file)


def _lead_for(gang: Gang, lead: Lead | None) -> Lead | None:
    """The lead as ranks can follow it: what only this process can reach is put into the gang's folder, once."""
    if not isinstance(lead, Shipment) or lead.box is None:
        return lead
    path = gang.folder / lead.key
    if not path.exists():
        with path.open("wb") as file:
            pickle.dump(lead.box.open(), file, protocol=5)
    return replace(lead, box=_Filed(path))


def _what_differs(task: Task, lead: Lead | None) -> str:
    if isinstance(lead, Shipment):
        other = {key: (task.identity.get(key), value) for key, value in lead.identity.items() if task.identity.get(key) != value}
        told = "; ".join(f"{key} is {here}, not {planned}" for key, (here, planned) in other.items())
        return f"{socket.gethostname()} is not like the node that this search was planned on: {told}"
    return "data, code or library versions are not those this trial was planned for: give the command again"


def _problem(experiment: Experiment, lead: Lead | None) -> Problem:
    """The problem of `experiment`: one that somebody in this process holds open, one kept from earlier, or a new one."""
    key = experiment_key(experiment)
    problem = find_open(experiment) or _kept.get(key)
    if problem is None:
        problem = _kept[key] = open_problem(experiment, _parts(experiment, lead))
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return problem


def _parts(experiment: Experiment, lead: Lead | None) -> Parts | None:
    """The experiment's data where another problem or another process has them; None where they must be loaded."""
    key = data_key(experiment)
    for kept in _kept.values():
        if data_key(kept.experiment) == key:
            return kept.parts
    if lead is None or lead.key != key:
        return None
    if isinstance(lead, Handle):
        return attach(lead)
    return unpack(lead.box.open(), resolve_device(experiment.device)) if lead.box is not None else None
