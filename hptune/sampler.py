"""The adapter to optuna: joint proposals from a TPE sampler that is told every earlier trial.

The study lives in memory only. It is rebuilt from records each time, in a fixed order and with a fixed seed, so that the same
records give the same proposals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from hptune.stages.refine import Space
from hptune.trial import Hyperparameters, TrialRecord

LONGER = 1.5  # times the samples: a run of another length


class TpeSampler:
    """Proposes hyper-parameters by multivariate TPE; `history` are the records of earlier stages' short runs.

    It minimizes the validation loss, the clue to convergence, whatever the final ranking uses.
    """

    def __init__(self, history: Iterable[TrialRecord]) -> None:
        self._history = tuple(history)

    def __call__(self, start: Hyperparameters, space: Space, done: Sequence[TrialRecord], count: int, seed: int) -> list[Hyperparameters]:
        """Return `count` proposals inside `space`; momentum's minimum stays the start's."""
        distributions = _distributions(space)
        # The records inside the box teach the sampler; those outside it would be clipped to a place they were not run at.
        known = [optuna.trial.create_trial(params=p, distributions=distributions, value=v) for p, v in self._observations(space, done)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=4)
        study = _quiet_study(sampler)
        study.add_trials(known)
        proposals = [study.ask(distributions) for _ in range(count)]
        return [_hyperparameters(start, proposal.params) for proposal in proposals]

    def _observations(self, space: Space, done: Sequence[TrialRecord]) -> list[tuple[dict[str, float | int], float]]:
        """Points with their losses; the losses of runs shorter than the stage's own are taken over the best of that length."""
        records = {record.trial_id: record for record in (*self._history, *done)}
        usable = [records[trial_id] for trial_id in sorted(records) if records[trial_id].usable]
        runs = [record for record in usable if record.spec.schedule.kind != "ramp"]
        length = max((record.spec.samples for record in done), default=0)
        ratios = [_ratio(length, record.spec.samples) for record in runs]
        lowest: dict[float, float] = {}
        for record, ratio in zip(runs, ratios, strict=True):
            lowest[ratio] = min(record.val_loss, lowest.get(ratio, math.inf))
        positive = all(loss > 0 for loss in lowest.values())
        found = []
        for record, ratio in zip(runs, ratios, strict=True):
            own = record.spec.hyperparameters
            point = _point(space, own if ratio == 1 else _with_decay_inside(space, own))
            if point is not None:
                found.append((point, record.val_loss / lowest[ratio] if positive else record.val_loss - lowest[ratio]))
        return found


def _with_decay_inside(space: Space, own: Hyperparameters) -> Hyperparameters:
    """Weight decay at the nearest end of the box: in shorter runs it hardly shows."""
    low, high = space.weight_decay
    return own.but(weight_decay=min(max(own.weight_decay, low), high))


def _ratio(length: int, samples: int) -> float:
    """How many times as long as a run of `samples` one of `length` is; 1 where ragged batches alone make the difference."""
    ratio = round(length / samples, 1)
    return ratio if ratio >= LONGER else 1.0


def _quiet_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=sampler, direction="minimize")
    finally:
        optuna.logging.set_verbosity(before)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    ranges = {"lr": space.lr, "weight_decay": space.weight_decay, "slack": space.slack}
    found: dict[str, BaseDistribution] = {
        name: FloatDistribution(low, high, log=True) for name, (low, high) in ranges.items() if low < high
    }
    if len(space.batch_sizes) > 1:
        found["batch_size"] = CategoricalDistribution(space.batch_sizes)
    return found


def _point(space: Space, h: Hyperparameters) -> dict[str, float | int] | None:
    """The hyper-parameters as the study's parameters, or None outside the box."""
    values = {"lr": h.lr, "weight_decay": h.weight_decay, "slack": 1 - h.momentum, "batch_size": h.batch_size}
    point: dict[str, float | int] = {}
    for name in _distributions(space):
        value = values[name]
        if name == "batch_size":
            inside = value in space.batch_sizes
        else:
            low, high = getattr(space, name)
            inside = low <= value <= high
        if not inside:
            return None
        point[name] = value
    return point


def _hyperparameters(start: Hyperparameters, params: Mapping[str, float | int]) -> Hyperparameters:
    """Proposals to three significant figures; what the space fixes stays the start's."""
    changes: dict[str, float | int] = {name: float(f"{params[name]:.3g}") for name in ("lr", "weight_decay") if name in params}
    if "slack" in params:
        changes["momentum"] = round(1 - params["slack"], 4)
    if "batch_size" in params:
        changes["batch_size"] = int(params["batch_size"])
    return start.but(**changes)
