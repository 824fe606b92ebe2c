"""Records of trials that were not run: what planning ahead is tried against."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from hptune.stages.rounds import contender
from hptune.trial import CurveSummary, TrialRecord, TrialSpec, is_result

LOWEST_AT, WHERE = 0.6, 0.1  # of the way through a ramp, and how uncertain that is
NEIGHBOURS = 64  # known trials among which the nearest is looked for, the latest ones
SLOPE, SPREAD = 0.03, 0.06  # of the log of the loss: what a step away from what is known costs, and how uncertain that is
FARTHEST = 4.0  # steps: no loss is made up to differ more
OTHER_LENGTH = 2.0  # steps that trials of different lengths are apart, besides
NOISE = 0.01  # of the log of the loss, from seed to seed


class Known:
    """What is known of the trials that were run."""

    def __init__(self, records: Mapping[str, TrialRecord]) -> None:
        self.records = records
        latest = list(records.values())[-NEIGHBOURS:]
        self.ramp = next((record for record in latest if record.spec.schedule.kind == "ramp" and record.curve.step), None)
        self.runs = [record for record in latest if record.spec.schedule.kind != "ramp"]
        self.candidates: dict[TrialSpec, TrialRecord] = {}
        for record in records.values():
            if record.usable:
                self.candidates.setdefault(contender(record.spec), record)


class Imagination:
    """One way in which the trials that are not `known` may end.

    A candidate's loss is near that of the nearest known one: in number 0 a little worse, so that what is best stays best; in others it
    differs by chance, always by the same for the same number.
    """

    def __init__(self, known: Known, number: int) -> None:
        self._known = known
        self._draw = random.Random(number) if number else None
        self._made_up: dict[str, TrialRecord] = {}
        self._candidates: dict[TrialSpec, TrialRecord] = {}

    def __call__(self, spec: TrialSpec) -> TrialRecord:
        """The trial's record where it is known, else one that is made up once."""
        found = self.record(spec.trial_id)
        if found is None:
            found = self._made_up[spec.trial_id] = self._ramped(spec) if spec.schedule.kind == "ramp" else self._run(spec)
        return found

    def record(self, trial_id: str) -> TrialRecord | None:
        """The record of a trial that is known, or was made up before."""
        return self._known.records.get(trial_id) or self._made_up.get(trial_id)

    def _run(self, spec: TrialSpec) -> TrialRecord:
        candidate = contender(spec)
        own = self._known.candidates.get(candidate) or self._candidates.get(candidate)
        if own is not None:
            return _moved(own, spec, self._chance(NOISE))
        near = sorted((_distance(record.spec, spec), at) for at, record in enumerate(self._known.runs))
        nearest = self._known.runs[near[0][1]] if near else None
        if nearest is not None and not nearest.usable and nearest.spec.hyperparameters.lr <= spec.hyperparameters.lr:
            return TrialRecord(spec=spec, status="diverged")
        usable = next(((steps, self._known.runs[at]) for steps, at in near if self._known.runs[at].usable), None)
        if usable is None:
            found = _moved(TrialRecord(spec=spec, status="completed", val_loss=1.0, metric=0.0), spec, self._chance(SPREAD))
        else:
            steps = min(usable[0], FARTHEST)
            found = _moved(usable[1], spec, SLOPE * steps + self._chance(SPREAD * math.sqrt(steps)))
        self._candidates[candidate] = found
        return found

    def _chance(self, deviation: float) -> float:
        return self._draw.gauss(0.0, deviation) if self._draw else 0.0

    def _ramped(self, spec: TrialSpec) -> TrialRecord:
        ramp = self._known.ramp
        return ramped(spec, LOWEST_AT + self._chance(WHERE)) if ramp is None else _as_before(spec, ramp)


def ramped(spec: TrialSpec, lowest_at: float = LOWEST_AT) -> TrialRecord:
    """A ramp whose loss is lowest at that share of its points."""
    points = len(spec.evaluate_at)
    low, high = spec.schedule.min_lr, spec.hyperparameters.lr
    lr = tuple(low * (high / low) ** (i / max(1, points - 1)) for i in range(points))
    loss = tuple(1.0 + abs(i / points - lowest_at) for i in range(points))
    curve = CurveSummary(step=spec.evaluate_at, lr=lr, train_loss=loss, val_loss=loss, metric=loss)
    return TrialRecord(spec=spec, status="completed", val_loss=loss[-1], curve=curve, steps=spec.steps, samples=spec.samples)


def _as_before(spec: TrialSpec, ramp: TrialRecord) -> TrialRecord:
    """Another seed's ramp, if it is like the one that is known."""
    return TrialRecord(spec=spec, status=ramp.status, val_loss=ramp.val_loss, curve=ramp.curve, steps=ramp.steps, samples=ramp.samples)


def _moved(near: TrialRecord, spec: TrialSpec, by: float) -> TrialRecord:
    """A record of `spec` whose loss is that of `near` times e to the power of `by`; its metric moves the other way."""
    loss = near.val_loss * math.exp(by) if near.usable and near.val_loss > 0 else near.val_loss + by * abs(near.val_loss)
    metric = near.metric - by * abs(near.metric) if is_result(near.metric) else math.nan
    return TrialRecord(spec=spec, status=near.status, val_loss=loss, metric=metric, steps=spec.steps, samples=spec.samples)


def _distance(a: TrialSpec, b: TrialSpec) -> float:
    """In steps: a factor of two in LR or batch size, of ten in weight decay, of two in 1 − momentum."""
    own, other = a.hyperparameters, b.hyperparameters
    if own == other and a.steps == b.steps:
        return 0.0
    apart = (
        math.log2(own.lr / other.lr),
        math.log2(own.batch_size / other.batch_size),
        math.log10(max(own.weight_decay, 1e-6) / max(other.weight_decay, 1e-6)),
        math.log2((1.001 - own.momentum) / (1.001 - other.momentum)),
    )
    return math.hypot(*apart) + OTHER_LENGTH * (round(math.log2(a.samples / b.samples)) != 0)
