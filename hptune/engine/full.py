"""One full training, as `hptune train` runs it: with checkpoints, continued where it was stopped, its weights saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hptune.config.schema import Experiment
from hptune.engine.checkpoint import Checkpoints, write_tensors
from hptune.engine.gang import Post, gang_of
from hptune.engine.ranks import in_a_gang
from hptune.engine.sharing import Handle, shared
from hptune.engine.trainer import guarded
from hptune.engine.training import Training
from hptune.engine.worker import as_rank, outcome_of, planned
from hptune.engine.workload import Problem
from hptune.errors import RunDirectoryError
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

    On several devices a gang of processes does all this, stopping at the next check of the spec instead; `progress` and `stop` are
    called in this one.
    """
    if spec.numerics.replicas > 1 and not in_a_gang():
        return _trained_by_a_gang(problem, spec, (checkpoints, weights, every), progress or (lambda _: None), stop)
    saved = Checkpoints(checkpoints, spec.trial_id)
    report = progress or (lambda _: None)

    def train(training: Training) -> None:
        try:
            _train(training, saved, every, report, stop)
        except Exception:
            if stop():  # an interrupt from the keyboard ends data loaders as well: that is no failure of the training
                raise KeyboardInterrupt from None
            raise
        if training.ranks.first and not training.diverged:
            if broken := [name for name, p in training.model.named_parameters() if not bool(p.isfinite().all())]:
                note = f"the weights hold NaN or infinite values, though the loss is finite: {', '.join(broken[:3])}"
                report(_progress(training, (note,)))
            write_tensors(weights, {name: tensor.cpu() for name, tensor in training.model.state_dict().items()})

    return guarded(problem, spec, train)


def _trained_by_a_gang(
    problem: Problem,
    spec: TrialSpec,
    files: tuple[Path, Path, int | None],
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> TrialOutcome:
    with shared(problem) as (_, handle):
        gang = gang_of(spec.numerics)
        return outcome_of(spec, lambda: gang.call(_train_as_rank, problem.experiment, spec, files, handle, progress=progress, stop=stop))


def _train_as_rank(post: Post, experiment: Experiment, spec: TrialSpec, files: tuple[Path, Path, int | None], handle: Handle | None) -> Any:
    checkpoints, weights, every = files
    outcome = train_full(
        planned(experiment, spec, handle),
        spec,
        checkpoints=checkpoints,
        weights=weights,
        every=every,
        progress=post.progress,
        stop=post.asked,
    )
    return as_rank(outcome)


def _train(
    training: Training, saved: Checkpoints, every: int | None, progress: Callable[[Progress], None], stop: Callable[[], bool]
) -> None:
    ranks = training.ranks
    state, notes = saved.newest()
    if len(set(ranks.everyone(state["done"] if state is not None else 0))) > 1:
        raise RunDirectoryError("the checkpoints read differently in the processes that train: give the same command again")
    if state is not None:
        training.restore(state)
        notes = (*notes, f"continuing after step {training.done} of {training.spec.steps}")
    progress(_progress(training, notes))
    steps = training.spec.steps
    marks = {*range(0, steps, every or training.steps_per_epoch), steps}
    cost, latest = 0.0, time.perf_counter()
    for done in training.run(marks, stop):
        if done < steps and ranks.agree(stop()):
            _save(training, saved)
            raise KeyboardInterrupt
        progress(_progress(training))
        began = time.perf_counter()
        due = every is not None or done == steps or cost <= SAVING_SHARE * (began - latest)
        if done in marks and ranks.agree(due):
            _save(training, saved)
            latest = time.perf_counter()
            cost = latest - began


def _save(training: Training, saved: Checkpoints) -> None:
    """Save a checkpoint; of several ranks all say what belongs into it, and the first one writes."""
    state = training.state()
    if training.ranks.first:
        saved.save(training.done, state)


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
