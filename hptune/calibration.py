"""What is measured for a run rather than trained: speeds, what fits in memory, how many trials a device takes at once.

Each figure is journalled, so that a run that is continued decides as it did before.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hptune.errors import StageError
from hptune.executors.base import Failure
from hptune.knowledge import Progress, seconds_per_short_run, stage_knowledge
from hptune.running import Event, Remark, Run
from hptune.stages import Knowledge
from hptune.trial import (
    STEPS_TIMED,
    Calibration,
    CalibrationRequest,
    Hyperparameters,
    Numerics,
    TrialRecord,
    content_hash,
    hashed_content,
    known_fields,
)

WORTH_DOUBLING = 1.15  # times the steps per second of half as many workers: less is noise, and memory taken for nothing
MOST_MEMORY = 0.9  # share of the device's
SECONDS_SIDE_BY_SIDE = 0.5
MOST_STEPS = 2000


def calibrated_sizes(run: Run, settings: Mapping[str, Any]) -> Generator[Event, None, list[list[float]]]:
    """Return [[batch size, seconds per step], ...] for the sizes the data can fill; measured once, then journalled."""
    own = run.experiment.baseline_hyperparameters()
    sizes = sorted({own.batch_size, *settings["values"]})
    measured = []
    for size in sizes:
        if size <= run.task.train_samples:
            found = yield from calibration(run, own.but(batch_size=size))
            measured.append([size, found.seconds_per_step])
    return measured


def seconds_per_run(run: Run) -> Generator[Event, None, float]:
    """Wall seconds of one short-run equivalent: measured by the trials so far, or else by a calibration at the baseline."""
    finished = list(run.progress.finished.values())
    records = {r.trial_id: (s.knowledge.spent(r), r.seconds) for s in finished for r in s.records}
    cost, seconds = (sum(pair[i] for pair in records.values()) for i in (0, 1))
    if cost == 0:
        own = run.experiment.baseline_hyperparameters()
        found = yield from calibration(run, own)
        knowledge = stage_knowledge("lr_range", run.experiment, run.task, Progress(), settings={})
        cost, seconds = 1.0, seconds_per_short_run(knowledge, found)
    return max(seconds / cost / run.executor.workers, 1e-6)


def calibration(run: Run, hyperparameters: Hyperparameters) -> Generator[Event, None, Calibration]:
    """What steps at this batch size cost, alone on the device. Raises StageError where they fail."""
    request = CalibrationRequest(hyperparameters=hyperparameters, numerics=run.task.numerics)
    key = content_hash([run.task.task_id, hashed_content(request)])
    if key not in run.journal.state.calibrations:
        yield Remark(text=f"measuring the speed of batch size {hyperparameters.batch_size}")
        for _, result in run.executor.map([run.item(request)]):
            if isinstance(result, Failure):
                raise StageError(f"measuring batch size {hyperparameters.batch_size} failed: {result.error.strip().splitlines()[-1]}")
            run.journal.append("calibration", {"key": key, "task": run.task.task_id, **asdict(result)})
    return Calibration(**known_fields(Calibration, run.journal.state.calibrations[key]))


def samples_that_fit(run: Run) -> int | None:
    """The smallest micro-batch that a calibration of this task came down to; None where every batch fitted."""
    own = [c for c in run.journal.state.calibrations.values() if c.get("task") == run.task.task_id]
    return min((c["micro_batch"] for c in own if c.get("micro_batch") is not None), default=None)


def numerics_within_memory(run: Run, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Generator[Event, None, Numerics]:
    """The stage's numerics, with smaller micro-batches where a trial ran out of memory and fewer samples at once would have fitted."""
    numerics = knowledge.numerics
    for record in done:
        own = record.spec.hyperparameters
        if record.status == "out_of_memory" and record.spec.task == run.task.task_id and record.spec.numerics.micro_batch is None:
            found = yield from calibration(run, own)
            if found.micro_batch is not None and math.isfinite(found.seconds_per_step) and numerics.within(found.micro_batch) != numerics:
                numerics = numerics.within(found.micro_batch)
                yield Remark(
                    text=f"batch size {own.batch_size} does not fit into memory: gradients are accumulated over {numerics.micro_batch} "
                    "samples at a time (batch norm then sees these)"
                )
    return numerics


def settle_workers(run: Run) -> Generator[Event, None, None]:
    """Find how many trials at once get most done on each device, up to `run.most_workers`, and let the executor use so many.

    The number is doubled while the device's memory allows and steps per second grow by more than `WORTH_DOUBLING`. It changes no
    result; it is journalled, so that it is measured once for a task and a device.
    """
    most, run.most_workers = run.most_workers, 1
    if most <= 1:
        return
    key, places = content_hash([run.task.task_id, run.task.numerics.device_model]), run.executor.places
    known = [r for r in run.journal.state.others.get("concurrency", ()) if r["key"] == key]
    if known:
        run.executor.resize(places * min(most, int(known[-1]["workers"])))
        return
    yield Remark(text=f"measuring how many trials at once the {run.task.numerics.device} device does best with")
    rates: list[tuple[int, float]] = []
    workers, steps = 1, STEPS_TIMED
    while workers <= most:
        run.executor.resize(places * workers)
        found = _side_by_side(run, places * workers, steps)
        if not found:
            break
        rate = sum(1 / c.seconds_per_step for c in found)
        if rates and rate < WORTH_DOUBLING * rates[-1][1]:
            break
        rates.append((workers, rate))
        if 2 * max(c.memory_share for c in found) > MOST_MEMORY:
            break
        steps = min(MOST_STEPS, max(steps, round(SECONDS_SIDE_BY_SIDE / found[0].seconds_per_step)))
        workers *= 2
    best = rates[-1][0] if rates else 1
    run.executor.resize(places * best)
    run.journal.append("concurrency", {"key": key, "workers": best, "steps_per_second": [list(pair) for pair in rates]})
    yield Remark(text=(f"{best} trials at once" if best > 1 else "one trial at a time") + (f" on each of {places}" if places > 1 else ""))


def _side_by_side(run: Run, workers: int, steps: int) -> list[Calibration]:
    """Time steps at the baseline in all workers at the same time, once each has taken some; empty where one of them fails."""
    own = run.experiment.baseline_hyperparameters()
    warm, timed = ([CalibrationRequest(hyperparameters=own, numerics=run.task.numerics, steps=n)] * workers for n in (STEPS_TIMED, steps))
    results: list[Any] = []
    for requests in (warm, timed):
        results = [result for _, result in run.executor.map([run.item(request) for request in requests])]
    usable = all(isinstance(r, Calibration) and math.isfinite(r.seconds_per_step) and r.micro_batch is None for r in results)
    return results if usable else []
