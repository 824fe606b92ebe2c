"""What a worker process does with an item: open the problem, once for many items, and run the trial or the calibration."""

from __future__ import annotations

import socket
from collections import OrderedDict
from dataclasses import replace

from hptune.config.schema import Experiment
from hptune.engine.numerics import resolve_device
from hptune.engine.parts import Parts
from hptune.engine.problem import Problem, experiment_key, find_open, open_problem
from hptune.engine.sharing import Handle, attach, data_key
from hptune.engine.shipping import Shipment, unpack
from hptune.engine.trainer import calibrate, run_trial
from hptune.errors import InputError, UserCodeError
from hptune.trial import Calibration, CalibrationRequest, Opening, Task, TrialOutcome, TrialSpec

KEPT = 8
"""Problems a process keeps: the variants of a key sweep, which share their data where these are the same."""

_kept: OrderedDict[str, Problem] = OrderedDict()


Request = TrialSpec | CalibrationRequest | Opening
Lead = Handle | Shipment


def perform(item: tuple[Experiment, Request] | tuple[Experiment, Request, Lead | None]) -> TrialOutcome | Calibration | Task:
    """Do what is asked for with an experiment in this process, on the data that the item's lead goes to where it has one.

    A trial's outcome, a calibration, or the task that was opened. Raises InputError where data or user code are no longer what the trial
    was planned for, and what `open_problem` raises; what a `Shipment` brought here is named by its place at home.
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
    error = result.record.error and lead.homeward(result.record.error)
    return replace(result, record=replace(result.record, host=socket.gethostname(), error=error))


def _perform(experiment: Experiment, request: Request, lead: Lead | None) -> TrialOutcome | Calibration | Task:
    problem = _problem(experiment, lead)
    if isinstance(request, Opening):
        return problem.task
    if isinstance(request, CalibrationRequest):
        return calibrate(problem, request)
    if problem.task.task_id != request.task:
        _kept.clear()
        problem = _problem(experiment, lead)
    if problem.task.task_id != request.task:
        raise InputError(_what_differs(problem.task, lead))
    return run_trial(problem, request)


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
