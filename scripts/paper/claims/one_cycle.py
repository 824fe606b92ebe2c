"""Claim 2 (section 5, table 2, Figs. 13 to 15): 1cycle against step schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hptune.schedules import Point, Schedule
from hptune.stages.lr_range import round_lr
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec
from paper.evidence import Compared, Finding, Outcome, Panel, accuracy, held, validation_loss
from paper.lab import Asking, Lab, by_name
from paper.panels import ends

CYCLES = (0.5, 1.0)  # lengths, of the config's full training, unless the setup names others
STEPS = (1.0, 2.0, 4.0)
TUNED_OVER = (0.125, 0.25, 0.5, 1.0)  # times the LR of 1cycle
TUNED_ON = 2  # seeds
STEP_MOMENTUM = 0.9
KNOTS = 65  # points of a curve that is drawn by straight lines
CYCLE, AUTHORS_CYCLE, STEP = "1cycle", "author's 1cycle", "tuned step schedule"
Way = tuple[str, float]
"""A schedule by name, and a length."""


def one_cycle(lab: Lab) -> Asking[Outcome]:
    """1cycle of several lengths beside a step schedule whose LR was tuned for it, and what the author had of both."""
    own = yield from lab.settled()
    specs: dict[Way, list[TrialSpec]] = {(CYCLE, length): lab.runs(own, length=length) for length in lab.paper.get("cycles", CYCLES)}
    steps = replace(own, momentum=STEP_MOMENTUM, momentum_min=STEP_MOMENTUM)
    tried = [steps.but(lr=round_lr(own.lr * factor)) for factor in TUNED_OVER]
    rates = {h.lr: [lab.run(h, seed, schedule=lab.step_schedule()) for seed in lab.seeds[:TUNED_ON]] for h in tried}
    tuned = steps.but(lr=Compared((yield from by_name(rates)), validation_loss).best(largest=False))
    for length in lab.paper.get("steps", STEPS):
        specs[STEP, length] = lab.runs(tuned, length=length, schedule=lab.step_schedule())
    records = yield from by_name(specs | _authors(lab))
    compared = Compared(records)
    cycles = [name for name in records if name[0] in (CYCLE, AUTHORS_CYCLE)]
    pairs = [(cycle, step) for cycle in cycles for step in records if step not in cycles and step[1] >= cycle[1]]
    return Outcome(
        findings=[_finding(lab, compared, cycle, step) for cycle, step in pairs],
        panels=(_drawn(lab, records),),
        tables={f"Table 2, {lab.title}: accuracy on the test images, %": _rows(lab, records, compared)},
    )


def _authors(lab: Lab) -> dict[Way, list[TrialSpec]]:
    """What the author compared, where the setup names it: his 1cycle, and a schedule with an LR and lengths in epochs."""
    found = lab.paper.get("baseline")
    if not found:
        return {}
    own = replace(lab.authors, lr=found["lr"], momentum=STEP_MOMENTUM, momentum_min=STEP_MOMENTUM)
    specs = {(AUTHORS_CYCLE, 1.0): lab.runs(lab.authors)}
    for epochs in found["epochs"]:
        length = epochs / lab.epochs
        schedule = _inverse(lab, own, length) if found["schedule"] == "inv" else lab.step_schedule()
        specs[f"author's {found['schedule']} schedule", length] = lab.runs(own, length=length, schedule=schedule)
    return specs


def _inverse(lab: Lab, own: Hyperparameters, length: float) -> Schedule:
    """Caffe's `inv` as its LeNet has it: LR · (1 + 1e-4 · step) ** −0.75."""
    steps = lab.run(own, 0, length=length).steps
    places = [i / (KNOTS - 1) for i in range(KNOTS)]
    return Schedule(kind="points", points=tuple(Point(at, (1 + 1e-4 * steps * at) ** -0.75) for at in places))


def _finding(lab: Lab, compared: Compared, cycle: Way, step: Way) -> Finding:
    gap = compared.difference(cycle, step)
    epochs = [f"{length * lab.epochs:g}" for _, length in (cycle, step)]
    theirs = [_in_the_paper(lab, name) for name in (cycle, step)]
    shown = f"{theirs[0] - theirs[1]:+.2f}" if theirs[0] and theirs[1] else ""
    what = f"accuracy of {cycle[0]} in {epochs[0]} epochs less that of the {step[0]} in {epochs[1]}"
    return held(what, gap, "points", above=-lab.margin, figure="Table 2", paper=shown)


def _in_the_paper(lab: Lab, name: Way) -> float | None:
    """The report's accuracy, of what is the author's own."""
    kind = "1cycle" if name[0] == AUTHORS_CYCLE else "step" if name[0].startswith("author's") else None
    found: float | None = lab.paper.get("table 2", {}).get((kind, round(name[1] * lab.epochs)))
    return found


def _rows(lab: Lab, records: Mapping[Way, Sequence[TrialRecord]], compared: Compared) -> list[dict[str, str]]:
    rows = []
    for name, own in records.items():
        theirs = _in_the_paper(lab, name)
        rows.append(
            {
                "schedule": name[0],
                "LR": f"{own[0].spec.hyperparameters.lr:g}",
                "epochs": f"{name[1] * lab.epochs:g}",
                "ours": compared.shown(name),
                "paper": f"{theirs:g}" if theirs else "",
            }
        )
    return rows


def _drawn(lab: Lab, records: Mapping[Way, Sequence[TrialRecord]]) -> Panel:
    rows = ends({(name, length * lab.epochs): own for (name, length), own in records.items()}, accuracy)
    return Panel(figure="fig13", title="1cycle and other schedules", x="epochs", y="test accuracy, %", rows=rows, log=True)
