"""Runs one trial from its spec to its outcome, whatever happens on the way; and measures what a step costs."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from hptune.engine.measure import TEST_BLOCKS, Measurement, measure
from hptune.engine.memory import free_memory, is_lost, is_out_of_memory, share_in_use
from hptune.engine.ranks import PeerLostError, is_peer_lost
from hptune.engine.targets import blamed_line
from hptune.engine.training import Training, conditions
from hptune.engine.workload import Problem
from hptune.errors import DeviceLostError, HptuneError, RunDirectoryError
from hptune.schedules import Schedule
from hptune.trial import (
    Calibration,
    CalibrationRequest,
    Curve,
    Hyperparameters,
    Numerics,
    Status,
    StopRule,
    TrialOutcome,
    TrialRecord,
    TrialSpec,
)

WARM_UP_STEPS = 3
EVALUATIONS_TIMED = 3
STEPS_BETWEEN_LOOKS = StopRule().window  # trials wait for the device as often
LONGEST_ERROR = 500  # characters kept of an exception's message


@dataclass(slots=True)
class _Attempt:
    """What there is to tell about a trial so far; an exception leaves it at the last complete step."""

    training: Training | None = None
    test: Measurement | None = None


def run_trial(problem: Problem, spec: TrialSpec) -> TrialOutcome:
    """Train as `spec` says and return what was measured.

    Divergence, lack of memory and exceptions of the user's code are outcomes (`diverged`, `out_of_memory`, `failed`), with the curve
    up to there. Nothing of the trial remains in the process: model, optimizer, random states and settings are as before.
    """
    return guarded(problem, spec, _to_the_end)


def guarded(problem: Problem, spec: TrialSpec, train: Callable[[Training], object]) -> TrialOutcome:
    """Make the training of `spec`, have `train` bring it to its end, measure the test part, and tell what happened.

    A RunDirectoryError of `train` passes: it is about files, not about the training. Raises DeviceLostError where nothing more can be
    computed in this process, PeerLostError where another rank is gone.
    """
    attempt = _Attempt()
    status, error = _attempted(problem, spec, attempt, train)
    outcome = _outcome(problem, spec, attempt, status, error)
    del attempt
    if status == "out_of_memory":
        _make_room(problem)
    return outcome


def calibrate(problem: Problem, request: CalibrationRequest) -> Calibration:
    """Measure median seconds of an optimizer step and of evaluating one validation sample; the training is thrown away.

    Where the batch does not fit into memory, half of it is tried at a time, and so on; both are infinite where not even one sample
    fits. Raises what the user's code raises.
    """

    def attempt(numerics: Numerics) -> Calibration | None:
        try:
            return timed(problem, replace(request, numerics=numerics))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        _make_room(problem)
        return None

    return calibrated(request, attempt)


def calibrated(request: CalibrationRequest, attempt: Callable[[Numerics], Calibration | None]) -> Calibration:
    """What `attempt` finds with passes of as many samples as fit into memory: it returns None where they do not."""
    size = request.hyperparameters.batch_size
    numerics = request.numerics.for_batch(size)
    while (found := attempt(numerics)) is None:
        at_once = numerics.micro_batch or numerics.share(size)
        if at_once == 1:
            return Calibration(
                batch_size=size, seconds_per_step=math.inf, seconds_per_evaluated_sample=math.inf, micro_batch=numerics.micro_batch
            )  # fmt: skip
        numerics = replace(numerics, micro_batch=-(-at_once // 2))
    return found


def timed(problem: Problem, request: CalibrationRequest) -> Calibration:
    """Measure with the numerics of `request` as they are. Raises what lack of memory raises, and the user's code."""
    per_step, per_sample = _timings(problem, request)
    return Calibration(
        batch_size=request.hyperparameters.batch_size, seconds_per_step=per_step, seconds_per_evaluated_sample=per_sample,
        micro_batch=request.numerics.micro_batch, memory_share=share_in_use(problem.device),
    )  # fmt: skip


def describe_error(error: BaseException) -> str:
    """One line: the user's `file:line` where there is one, the exception's class and its message."""
    text = " ".join(str(error).split())[:LONGEST_ERROR]
    if isinstance(error, HptuneError):
        return text
    where = blamed_line(error)
    return f"{where + ': ' if where else ''}{type(error).__name__}{': ' if text else ''}{text}"


def _to_the_end(training: Training) -> None:
    for _ in training.run():
        pass


def _attempted(problem: Problem, spec: TrialSpec, attempt: _Attempt, train: Callable[[Training], object]) -> tuple[Status, str | None]:
    try:
        with conditions(problem, spec):
            with closing(Training(problem, spec)) as training:
                attempt.training = training
                train(training)
            if training.diverged:
                return "diverged", training.divergence
            if spec.test and problem.parts.test is not None:
                attempt.test = measure(problem, training.model, problem.parts.test, spec.numerics, blocks=TEST_BLOCKS)
    except RunDirectoryError:
        raise
    except (Exception, SystemExit) as error:
        if is_peer_lost(error):
            raise PeerLostError(describe_error(error)) from error
        if is_lost(error, problem.device):
            raise DeviceLostError(f"{describe_error(error)}; nothing more can be computed on this device in this process") from error
        return ("out_of_memory" if is_out_of_memory(error) else "failed"), describe_error(error)
    return "completed", None


def _outcome(problem: Problem, spec: TrialSpec, attempt: _Attempt, status: Status, error: str | None) -> TrialOutcome:
    bare = TrialRecord(spec=spec, status=status, device=spec.numerics.device, worker=os.getpid(), error=error)
    training = attempt.training
    if training is None:
        return TrialOutcome(bare, Curve({"step": []}))
    series, done = training.series, training.told
    losses = [e.loss for e in series.evaluations if math.isfinite(e.loss)]
    metrics = [e.metric for e in series.evaluations if math.isfinite(e.metric)]
    best = max if problem.experiment.metric.larger_is_better else min
    last = series.evaluations[-1] if series.evaluations else None
    record = replace(
        bare,
        val_loss=last.loss if last else math.nan,
        metric=last.metric if last else math.nan,
        best_val_loss=min(losses, default=math.nan),
        best_metric=best(metrics, default=math.nan),
        train_loss=series.train_loss(done),
        test_loss=attempt.test.loss if attempt.test else math.nan,
        test_metric=attempt.test.metric if attempt.test else math.nan,
        val_block_losses=last.block_losses if last else (),
        test_block_losses=attempt.test.block_losses if attempt.test else (),
        curve=series.summary(training.table),
        steps=done,
        samples=training.taken * spec.hyperparameters.batch_size,
        seconds=training.seconds,
    )
    return TrialOutcome(record, series.curve(training.table, done))


def timing_spec(problem: Problem, own: Hyperparameters, numerics: Numerics, *, steps: int) -> TrialSpec:
    """Return the spec of a training at a constant LR that is there to be timed and thrown away."""
    return TrialSpec(
        task=problem.task.task_id, hyperparameters=own, schedule=Schedule(kind="constant"), steps=steps, seed=problem.experiment.seed,
        repetition=0, evaluate_at=(steps,), numerics=numerics,
    )  # fmt: skip


def _timings(problem: Problem, request: CalibrationRequest) -> tuple[float, float]:
    numerics = request.numerics
    spec = timing_spec(problem, request.hyperparameters, numerics, steps=WARM_UP_STEPS + request.steps + STEPS_BETWEEN_LOOKS)
    with conditions(problem, spec), closing(Training(problem, spec)) as training:
        training.advance(WARM_UP_STEPS)
        each = []
        block = 1 if problem.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        for _ in range(-(-request.steps // block)):
            before = training.seconds
            training.advance(block)
            each.append((training.seconds - before) / block)
        samples = min(len(problem.parts.val), problem.evaluation_batch * numerics.replicas)
        evaluations = []
        for _ in range(1 + EVALUATIONS_TIMED):
            began = time.perf_counter()
            measure(problem, training.model, problem.parts.val, numerics, limit=samples)
            evaluations.append((time.perf_counter() - began) / samples)
    return statistics.median(each), statistics.median(evaluations[1:])


def _make_room(problem: Problem) -> None:
    """After lack of memory: give back what this problem keeps and what nobody holds any more."""
    problem.kept.drop()
    free_memory(problem.device)
