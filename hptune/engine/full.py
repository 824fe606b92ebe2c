"""One full training, as `hptune train` runs it: with checkpoints, continued where it was stopped, its weights saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hptune.engine.checkpoint import Checkpoints, write_tensors
from hptune.engine.trainer import guarded
from hptune.engine.training import Training
from hptune.engine.workload import Problem
from hptune.trial import TrialOutcome, TrialSpec

SAVING_SHARE = 0.05  # of the time; short epochs pass without a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is: `done` of `steps` optimizer steps, the latest losses (validation None before the first evaluation).

    `notes` are sentences worth showing once: where it continues from, which checkpoint was damaged.
    """

    done: int
    steps: int
    epoch: float
    train_loss: float
    val_loss: float | None
    metric: float | None
    seconds: float
    notes: tuple[str, ...] = ()


def train_full(
    problem: Problem,
    spec: TrialSpec,
    *,
    checkpoints: Path,
    weights: Path,
    every: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrialOutcome:
    """Train `spec` from the newest checkpoint of it in `checkpoints`, or from the beginning; save the final `weights` (a state dict).

    A checkpoint is saved every `every` steps, or else at ends of epochs that are far enough apart to cost 5 % at most, and at the
    end. On the CPU a continued training gives the same bits as one that was never stopped. The outcome is as `run_trial`'s; the
    weights are saved after the last step, not after divergence. Once `stop` says so, the step at hand is finished, a checkpoint saved
    and KeyboardInterrupt raised. Raises RunDirectoryError where a file cannot be written.
    """
    saved = Checkpoints(checkpoints, spec.trial_id)
    report = progress or (lambda _: None)

    def train(training: Training) -> None:
        try:
            _train(training, saved, every, report, stop)
        except Exception:
            if stop():  # an interrupt from the keyboard ends data loaders as well: that is no failure of the training
                raise KeyboardInterrupt from None
            raise
        if not training.diverged:
            if broken := [name for name, p in training.model.named_parameters() if not bool(p.isfinite().all())]:
                note = f"the weights hold NaN or infinite values, though the loss is finite: {', '.join(broken[:3])}"
                report(_progress(training, (note,)))
            write_tensors(weights, {name: tensor.cpu() for name, tensor in training.model.state_dict().items()})

    return guarded(problem, spec, train)


def _train(
    training: Training, saved: Checkpoints, every: int | None, progress: Callable[[Progress], None], stop: Callable[[], bool]
) -> None:
    state, notes = saved.newest()
    if state is not None:
        training.restore(state)
        notes = (*notes, f"continuing after step {training.done} of {training.spec.steps}")
    progress(_progress(training, notes))
    steps = training.spec.steps
    marks = {*range(0, steps, every or training.steps_per_epoch), steps}
    cost, latest = 0.0, time.perf_counter()
    for done in training.run(marks, stop):
        if done < steps and stop():
            saved.save(done, training.state())
            raise KeyboardInterrupt
        progress(_progress(training))
        began = time.perf_counter()
        if done == steps or (done in marks and (every is not None or cost <= SAVING_SHARE * (began - latest))):
            saved.save(done, training.state())
            latest = time.perf_counter()
            cost = latest - began


def _progress(training: Training, notes: tuple[str, ...] = ()) -> Progress:
    series = training.series
    last = series.evaluations[-1] if series.evaluations else None
    return Progress(
        done=training.done,
        steps=training.spec.steps,
        epoch=training.taken / training.steps_per_epoch,
        train_loss=series.recent(training.done),
        val_loss=last.loss if last else None,
        metric=last.metric if last else None,
        seconds=training.seconds,
        notes=notes,
    )
