"""What a worker process does with an item: open the problem, once for many items, and run the trial or the calibration."""

from __future__ import annotations

from collections import OrderedDict

from hptune.config.schema import Experiment
from hptune.engine.parts import Parts
from hptune.engine.problem import Problem, experiment_key, find_open, open_problem
from hptune.engine.sharing import Handle, attach, data_key
from hptune.engine.trainer import calibrate, run_trial
from hptune.errors import InputError
from hptune.trial import Calibration, CalibrationRequest, TrialOutcome, TrialSpec

KEPT = 8
"""Problems a process keeps: the variants of a key sweep, which share their data where these are the same."""

_kept: OrderedDict[str, Problem] = OrderedDict()


Request = TrialSpec | CalibrationRequest


def perform(item: tuple[Experiment, Request] | tuple[Experiment, Request, Handle | None]) -> TrialOutcome | Calibration:
    """Run one trial or calibration of an experiment in this process, on the data that the item's handle leads to where it has one.

    Raises InputError where data or user code are no longer what the trial was planned for, and what `open_problem` raises.
    """
    experiment, request, *more = item
    handle = more[0] if more else None
    problem = _problem(experiment, handle)
    if isinstance(request, CalibrationRequest):
        return calibrate(problem, request)
    if problem.task.task_id != request.task:
        _kept.clear()
        problem = _problem(experiment, handle)
    if problem.task.task_id != request.task:
        raise InputError("data, code or library versions are not those this trial was planned for: give the command again")
    return run_trial(problem, request)


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
