"""What a worker process does with an item: open the problem, once for many items, and run the trial or the calibration."""

from __future__ import annotations

from collections import OrderedDict

from hptune.config.schema import Experiment
from hptune.engine.problem import Problem, experiment_key, find_open, open_problem
from hptune.engine.trainer import calibrate, run_trial
from hptune.errors import InputError
from hptune.trial import Calibration, CalibrationRequest, TrialOutcome, TrialSpec

KEPT = 8
"""Problems a process keeps: the variants of a key sweep, which share their data where these are the same."""

_kept: OrderedDict[str, Problem] = OrderedDict()


def perform(item: tuple[Experiment, TrialSpec | CalibrationRequest]) -> TrialOutcome | Calibration:
    """Run one trial or calibration of an experiment in this process.

    Raises InputError where data or user code are no longer what the trial was planned for, and what `open_problem` raises.
    """
    experiment, request = item
    if isinstance(request, CalibrationRequest):
        return calibrate(_problem(experiment), request)
    problem = _problem(experiment)
    if problem.task.task_id != request.task:
        _kept.clear()
        problem = _problem(experiment)
    if problem.task.task_id != request.task:
        raise InputError("data, code or library versions are not those this trial was planned for: give the command again")
    return run_trial(problem, request)


def _problem(experiment: Experiment) -> Problem:
    """The problem of `experiment`: one that somebody in this process holds open, one kept from earlier, or a new one."""
    key = experiment_key(experiment)
    problem = find_open(experiment) or _kept.get(key)
    if problem is None:
        alike = (p.parts for p in _kept.values() if _data_of(p.experiment) == _data_of(experiment))
        problem = _kept[key] = open_problem(experiment, next(alike, None))
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return problem


def _data_of(experiment: Experiment) -> tuple[object, ...]:
    return experiment.data, experiment.seed, experiment.device
