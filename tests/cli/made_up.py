"""A training without torch: what the engine's modules are replaced by, so that commands run whole and fast."""

from __future__ import annotations

import math
import random
import types
from collections.abc import Callable
from typing import Any

from hptune.trial import Calibration, CalibrationRequest, Curve, CurveSummary, Numerics, Task, TrialOutcome, TrialRecord, TrialSpec

CONFIG = """\
name: made up
data: {name: digits}
model: {name: small_cnn}
baseline: {lr: 0.05, batch_size: 64, momentum: 0.9, weight_decay: 1e-4}
budget: {epochs: 5, search_epochs: 1}
stages:
  batch_size: {values: [64, 128], compare: samples}
  momentum: {values: [0.95, 0.9]}
  weight_decay: {values: [1e-3, 1e-4]}
  refine: {trials: 2}
  confirm: {seeds: 3}
executor: {name: serial}
"""
TASK = Task(
    task_id="made-up-task",
    identity={},
    train_samples=1280,
    val_samples=320,
    test_samples=0,
    classes=10,
    parameters=1234,
    numerics=Numerics(device_model="made-up device"),
    notes=("this training is made up",),
)


def outcome(spec: TrialSpec) -> TrialOutcome:
    """Log loss is quadratic around LR 0.2 and weight decay 1e-3, with a little noise; above LR 5 it diverges."""
    h, points = spec.hyperparameters, len(spec.evaluate_at)
    curve = Curve({"step": [1, 2], "train_loss": [1.0, 0.5]})
    if spec.schedule.kind == "ramp":
        rates = [spec.schedule.min_lr * (h.lr / spec.schedule.min_lr) ** (i / (points - 1)) for i in range(points)]
        losses = tuple(2.0 * (0.2 + abs(math.log10(lr / 0.5)) / 2) for lr in rates)
        summary = CurveSummary(step=spec.evaluate_at, lr=tuple(rates), train_loss=losses, val_loss=losses, metric=(0.5,) * points)
        return TrialOutcome(TrialRecord(spec=spec, status="completed", val_loss=losses[-1], curve=summary, steps=spec.steps), curve)
    if h.lr > 5:
        return TrialOutcome(TrialRecord(spec=spec, status="diverged", steps=3, samples=3 * h.batch_size, seconds=0.5), curve)
    noise = random.Random(spec.trial_id).gauss(0, 0.01) + random.Random(spec.seed).gauss(0, 0.05)
    loss = math.exp(0.5 * math.log10(h.lr / 0.2) ** 2 + 0.1 * math.log10(max(h.weight_decay, 1e-7) / 1e-3) ** 2 + noise) / 4
    summary = CurveSummary(
        step=spec.evaluate_at, lr=(h.lr,) * points, train_loss=(loss,) * points, val_loss=(loss,) * points, metric=(0.9,) * points
    )
    record = TrialRecord(
        spec=spec,
        status="completed",
        val_loss=loss,
        best_val_loss=loss,
        metric=0.9,
        best_metric=0.9,
        train_loss=loss,
        curve=summary,
        steps=spec.steps,
        samples=spec.samples,
        seconds=1.0,
    )
    return TrialOutcome(record, curve)


def perform(item: tuple[Any, TrialSpec | CalibrationRequest]) -> TrialOutcome | Calibration:
    """What a worker does."""
    request = item[1]
    if isinstance(request, CalibrationRequest):
        return Calibration(batch_size=request.hyperparameters.batch_size, seconds_per_step=0.01, seconds_per_evaluated_sample=1e-5)
    return outcome(request)


def engine(work: Callable[[Any], Any] = perform) -> dict[str, types.ModuleType]:
    """Stand-ins for the engine's modules that a session imports; trials are performed by `work`."""
    problem = types.ModuleType("hptune.engine.problem")
    problem.__dict__["open_problem"] = lambda experiment: types.SimpleNamespace(task=TASK)
    worker = types.ModuleType("hptune.engine.worker")
    worker.__dict__["perform"] = work
    numerics = types.ModuleType("hptune.engine.numerics")
    numerics.__dict__["resolve_device"] = lambda device: types.SimpleNamespace(type="cpu")
    return {module.__name__: module for module in (problem, worker, numerics)}
