"""Claim 3 (section 4.3, table 1, Figs. 7 and 8): momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hptune.schedules import Point, Schedule
from hptune.stages.lr_range import round_lr
from hptune.trial import Hyperparameters, TrialRecord
from paper.evidence import Compared, Estimate, Finding, Outcome, Panel, accuracy, held, log_loss, over_seeds, powers
from paper.lab import Asking, Lab, by_name
from paper.panels import courses, ends

CONSTANT = (0.85, 0.9, 0.95)  # table 1
FALLING = (0.95, 0.85)
RISING = (0.9, 1.0)  # table 1; while the LR rises
MINIMA = (0.7, 0.8, 0.9)  # beside 0.85
CONSTANT_LR = 8.0  # times lower than the peak, as 0.1 is beside 0.8 in table 1
RANGE = (0.7, 0.99)  # of the momentum range test (Fig. 7b)
CYCLE, FLAT, EQUAL, RAMP = "1cycle", "constant LR", "1cycle, equal LR/(1 − momentum)", "range test"
UP, DOWN = "upwards", "downwards"
AS_GOOD = 1.05  # times the loss of the best constant momentum
TELLS = 0.1  # of the range: two range tests that find the same momentum lie closer


def momentum(lab: Lab) -> Asking[Outcome]:
    """Table 1 in this setup, other minima, the same at equal effective LR, and range tests of momentum in both directions."""
    own = yield from lab.settled()
    slow = own.but(lr=own.lr / CONSTANT_LR)
    cycles = {_word(*FALLING): FALLING, _word(*RISING): RISING, **{f"{m:g}": (m, m) for m in CONSTANT}}
    minima = {_word(FALLING[0], low): (FALLING[0], low) for low in MINIMA}
    levels = {name: values for name, values in (cycles | minima).items() if values != RISING}
    specs = {(CYCLE, name): lab.runs(_at(own, *values)) for name, values in (cycles | minima).items()}
    for name, (high, low) in levels.items():
        specs[EQUAL, name] = lab.runs(_as_effective(lab, _at(own, high, low), _at(own, *FALLING)))
        if name in cycles:
            specs[FLAT, name] = lab.runs(_at(slow, high, low), schedule=lab.at_constant_lr(cycled=high != low))
    rising = _at(slow, RANGE[1], RANGE[0])
    for direction, (first, last) in {UP: (0.0, 1.0), DOWN: (1.0, 0.0)}.items():
        schedule = Schedule(kind="points", points=(Point(0.0, momentum=first), Point(1.0, momentum=last)))
        specs[RAMP, direction] = lab.range_tests(rising, schedule, length=1.0)
    records = yield from by_name(specs)
    parts = {name: _part(records, name) for name in (CYCLE, FLAT, EQUAL)}
    findings = [_against_constant(lab, part, name, by) for name, part in parts.items() for by in (accuracy, log_loss)]
    findings += [_minimum(lab, parts[name], name) for name in (CYCLE, EQUAL)]
    return Outcome(
        findings=[*findings, _range_test(_part(records, RAMP))],
        panels=(_drawn({name: own for name, own in records.items() if name[0] != RAMP}), _ramps_drawn(_part(records, RAMP))),
        tables={f"Table 1, {lab.title}: accuracy on the test images, %, and loss": _rows(lab, parts)},
    )


def _as_effective(lab: Lab, own: Hyperparameters, like: Hyperparameters) -> Hyperparameters:
    """With the LR at which the mean of LR/(1 − momentum) over a training is that of `like`: a step moves the weights as far."""
    return own.but(lr=round_lr(own.lr * lab.forgetting(lab.run(like, 0)) / lab.forgetting(lab.run(own, 0)))) if own != like else own


def _word(high: float, low: float) -> str:
    return f"{high:g}→{low:g}"


def _at(own: Hyperparameters, high: float, low: float) -> Hyperparameters:
    return replace(own, momentum=high, momentum_min=low)


def _part(records: Mapping[tuple[str, str], Sequence[TrialRecord]], name: str) -> dict[str, Sequence[TrialRecord]]:
    return {own[1]: found for own, found in records.items() if own[0] == name}


def _against_constant(lab: Lab, records: Mapping[str, Sequence[TrialRecord]], schedule: str, by: Callable[[TrialRecord], float]) -> Finding:
    """Falling momentum against the best constant one: by accuracy, as the report has it, or by loss."""
    compared, constants = Compared(records, by), [f"{m:g}" for m in CONSTANT]
    best = compared.best(constants, largest=by is accuracy)
    gap = compared.difference(_word(*FALLING), best, chosen_from=len(constants))
    if by is not accuracy:
        what = f"{schedule}: loss at momentum {_word(*FALLING)} over that at the best constant one ({best})"
        return held(what, powers(gap, math.e), "×", below=AS_GOOD, note=_lost(compared))
    paper = lab.paper.get(f"table 1, {schedule}", {})
    known = [paper[name] for name in constants if name in paper]
    what = f"{schedule}: accuracy at momentum {_word(*FALLING)} less that at the best constant one ({best})"
    theirs = f"{paper[_word(*FALLING)] - max(known):+.1f}" if known else ""
    return held(what, gap, "points", above=-lab.margin, figure="Table 1", paper=theirs, note=_lost(compared))


def _minimum(lab: Lab, records: Mapping[str, Sequence[TrialRecord]], schedule: str) -> Finding:
    """The largest difference between two minima."""
    names = [_word(FALLING[0], low) for low in sorted((*MINIMA, FALLING[1]))]
    compared = Compared({name: records[name] for name in names})
    top, bottom = compared.best(), compared.best(largest=False)
    gap = compared.difference(top, bottom, chosen_from=len(names) - 1)
    what = f"{schedule}: accuracy at the best minimum less that at the worst ({top} and {bottom})"
    return held(what, gap, "points", below=lab.margin, figure="Fig. 8", paper="nearly insensitive", note=_lost(compared))


def _range_test(ramps: Mapping[str, Sequence[TrialRecord]]) -> Finding:
    """Where the loss is lowest when momentum rises, and when it falls: what tells something of momentum finds the same."""
    span = RANGE[1] - RANGE[0]
    places = {direction: [_lowest(record, upwards=direction == UP) for record in records] for direction, records in ramps.items()}
    apart = over_seeds([(up - down) / span for up, down in zip(places[UP], places[DOWN], strict=True)])
    size = Estimate(
        value=abs(apart.value), low=apart.low if apart.value > 0 else -apart.high, high=apart.high if apart.value > 0 else -apart.low
    )
    means = {direction: sum(found) / len(found) for direction, found in places.items()}
    what = (
        f"momentum range test is useless: distance between the momenta found upwards ({means[UP]:.2f}) and downwards "
        f"({means[DOWN]:.2f}), of its range {RANGE[0]:g} to {RANGE[1]:g}"
    )
    return held(what, size, "of the range", above=TELLS, figure="Fig. 7b", paper="useless")


def _lowest(record: TrialRecord, *, upwards: bool) -> float:
    curve = record.curve
    at = min(range(len(curve.step)), key=lambda i: curve.val_loss[i] if math.isfinite(curve.val_loss[i]) else math.inf)
    return _momentum(record, curve.step[at], upwards=upwards)


def _momentum(record: TrialRecord, step: int, *, upwards: bool) -> float:
    share = step / record.spec.steps
    return RANGE[0] + (RANGE[1] - RANGE[0]) * (share if upwards else 1 - share)


def _lost(compared: Compared) -> str:
    return f"diverged: {', '.join(compared.lost)}" if compared.lost else ""


def _rows(lab: Lab, parts: Mapping[str, Mapping[str, Sequence[TrialRecord]]]) -> list[dict[str, str]]:
    rows = []
    for schedule, own in parts.items():
        by_accuracy, by_loss, paper = Compared(own), Compared(own, log_loss), lab.paper.get(f"table 1, {schedule}", {})
        for name, records in own.items():
            rows.append(
                {
                    "schedule": schedule,
                    "momentum": name,
                    "LR": f"{records[0].spec.hyperparameters.lr:g}",
                    "ours": by_accuracy.shown(name),
                    "loss": f"{math.exp(by_loss.mean(name)):.3f}",
                    "paper": f"{paper[name]:.1f}" if name in paper else "",
                }
            )
    return rows


def _drawn(records: Mapping[tuple[str, str], Sequence[TrialRecord]]) -> Panel:
    rows = ends(records, accuracy)
    return Panel(figure="fig8", title="Momentum", x="momentum", y="test accuracy, %", rows=rows, lines=False)


def _ramps_drawn(ramps: Mapping[str, Sequence[TrialRecord]]) -> Panel:
    rows = [
        row
        for direction, own in ramps.items()
        for row in courses({direction: own}, lambda record, at, up=direction == UP: _momentum(record, record.curve.step[at], upwards=up))
    ]
    return Panel(figure="fig7b", title="Range tests of momentum", x="momentum", y="validation loss", rows=rows)
