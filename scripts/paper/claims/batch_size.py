"""Claim 4 (section 4.2, Fig. 6): batch sizes at equal time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hptune.stages.lr_range import round_lr
from hptune.trial import TrialRecord
from paper.evidence import Compared, Outcome, Panel, accuracy, held, validation_loss
from paper.lab import Asking, Lab, by_name
from paper.panels import ends

RATES = (0.5, 1.0, 2.0)  # times the LR scaled with the batch size, so that no size is tried at a wrong LR only


def batch_size(lab: Lab) -> Asking[Outcome]:
    """Each size at three LRs, for as many samples as it processes in the time of a training, or as a training has (`compare`)."""
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
    compared = Compared({size: records[size, lr] for size, lr in chosen.items()})
    small, large = min(sizes), max(sizes)
    gap = compared.difference(large, small, chosen_from=len(RATES))
    equal = f"at equal {section.compare}"
    what = f"accuracy at batch size {large} less that at {small}, each at its best of {len(RATES)} LRs, {equal}"
    finding = held(what, gap, "points", above=0.0, figure="Fig. 6", paper="larger is better")
    return Outcome(
        findings=(finding,),
        panels=(_drawn(records, chosen, f"Batch sizes {equal}"),),
        tables={f"Batch sizes {equal}, {lab.title}": _rows(records, chosen, compared, speeds)},
    )


def _best(records: Mapping[tuple[int, float], Sequence[TrialRecord]], size: int) -> float:
    """The LR with the lowest validation loss."""
    compared = Compared({lr: own for (other, lr), own in records.items() if other == size}, validation_loss)
    return float(compared.best(largest=False))


def _rows(
    records: Mapping[tuple[int, float], Sequence[TrialRecord]], chosen: Mapping[int, float], compared: Compared, speeds: Mapping[int, float]
) -> list[dict[str, str]]:
    return [
        {
            "batch size": str(size),
            "LR": f"{lr:g}",
            "accuracy, %": compared.shown(size),
            "steps": str(records[size, lr][0].spec.steps),
            **({"relative samples/s": f"{speeds[size]:.2f}"} if size in speeds else {}),
        }
        for size, lr in chosen.items()
    ]


def _drawn(records: Mapping[tuple[int, float], Sequence[TrialRecord]], chosen: Mapping[int, float], title: str) -> Panel:
    rows = [
        row
        for (size, lr), own in records.items()
        for row in ends({("best LR" if lr == chosen[size] else "other LRs", size): own}, accuracy)
    ]
    return Panel(figure="fig6", title=title, x="batch size", y="test accuracy, %", rows=rows, log=True, lines=False)
