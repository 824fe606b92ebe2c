"""Claim 4 (section 4.2, Fig. 6): batch sizes at equal time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hptune.stages.lr_range import round_lr
from hptune.trial import TrialRecord
from paper.evidence import Compared, Outcome, Panel, accuracy, held, validation_loss
from paper.lab import Asking, Lab, by_name

RATES = (0.5, 1.0, 2.0)  # times the LR scaled with the batch size, so that no size is tried at a wrong LR only


def batch_size(lab: Lab) -> Asking[Outcome]:
    """Each size at three LRs, for as many samples as it processes in the time of a training."""
    own = yield from lab.settled()
    section = lab.experiment.stages.batch_size
    assert section
    sizes = [size for size in section.values if size <= lab.task.train_samples]
    speeds = dict(lab.speeds(sizes))
    timed = replace(lab.knowledge, speeds=tuple(speeds.items()))
    specs = {}
    for size in sizes:
        for factor in RATES:
            rate = own.but(batch_size=size, lr=round_lr(own.lr * size / own.batch_size * factor))
            specs[size, rate.lr] = [timed.run(rate, epochs=lab.epochs, repetition=seed, test=True) for seed in lab.seeds]
    records = yield from by_name(specs)
    chosen = {size: _best(records, size) for size in sizes}
    compared = Compared({size: records[size, lr] for size, lr in chosen.items() if lr is not None})
    small, large = min(compared.names), max(compared.names)
    gap = compared.difference(large, small, chosen_from=len(RATES))
    what = f"accuracy at batch size {large} less that at {small}, each at its best of {len(RATES)} LRs, at equal time"
    finding = held(what, gap, "points", above=0.0, figure="Fig. 6", paper="larger is better")
    return Outcome(
        findings=(finding,),
        panels=(_drawn(records, chosen),),
        tables={f"Batch sizes at equal time, {lab.title}": _rows(records, chosen, compared, speeds)},
    )


def _best(records: Mapping[tuple[int, float], Sequence[TrialRecord]], size: int) -> float | None:
    """The LR with the lowest validation loss; None where every one diverged."""
    compared = Compared({lr: own for (other, lr), own in records.items() if other == size}, validation_loss)
    return float(compared.best(largest=False)) if compared.names else None


def _rows(
    records: Mapping[tuple[int, float], Sequence[TrialRecord]],
    chosen: Mapping[int, float | None],
    compared: Compared,
    speeds: Mapping[int, float],
) -> list[dict[str, str]]:
    rows = []
    for size, lr in chosen.items():
        if lr is None:
            rows.append({"batch size": str(size), "accuracy, %": "diverged at every LR"})
            continue
        found, steps = compared.interval(size), records[size, lr][0].spec.steps
        rows.append({
            "batch size": str(size), "LR": f"{lr:g}", "accuracy, %": f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]",
            "steps": str(steps), "relative samples/s": f"{speeds.get(size, 1.0):.2f}",
        })  # fmt: skip
    return rows


def _drawn(records: Mapping[tuple[int, float], Sequence[TrialRecord]], chosen: Mapping[int, float | None]) -> Panel:
    rows = [
        {"x": size, "y": accuracy(record), "series": "best LR" if lr == chosen[size] else "other LRs", "seed": record.spec.repetition}
        for (size, lr), own in records.items()
        for record in own
        if record.usable
    ]
    return Panel(
        figure="fig6",
        title="Batch sizes at equal time",
        x="batch size",
        y="test accuracy, %",
        rows=rows,
        log=True,
        lines=False,
    )
