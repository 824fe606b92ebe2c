"""Claim 5 (section 4.4, Figs. 4, 9 to 12): weight decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, TrialRecord
from paper.evidence import Compared, Estimate, Finding, Outcome, Panel, Verdict, at_the_edge, held, log_loss, optima, over_seeds, powers
from paper.lab import Asking, Lab, by_name
from paper.panels import ends, ramps, test_loss

LOWER, HIGHER = 4.0, 2.0  # times: the other LRs
CONSTANT = "constant LR"
CONSTANT_LR = 8.0  # times lower than the peak, as in table 1
LITTLE_MOMENTUM = 0.8
RANGE_LENGTH = 0.5  # of a training: the LR range tests at several weight decays
MOVED = 1.5  # a factor: nearer places of the best weight decay are the same one
SAME = 10**0.5  # a factor: a step of the grid
AS_GOOD = 1.05  # times the loss of the best weight decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of training, under which the best weight decay is looked for."""

    own: Hyperparameters
    schedule: Schedule


def weight_decay(lab: Lab) -> Asking[Outcome]:
    """The grid under several LRs and schedules, in branches from the peak of the LR, and in LR range tests."""
    own = yield from lab.settled()
    section = lab.experiment.stages.weight_decay
    assert section
    grid = [value for value in section.values or () if value > 0]
    ways = _ways(lab, own)
    specs = {
        (name, decay): lab.runs(replace(way.own, weight_decay=decay), schedule=way.schedule) for name, way in ways.items() for decay in grid
    }
    before = own.weight_decay
    for decay in grid:
        specs["branch", decay] = lab.runs(own.but(weight_decay=decay), schedule=lab.branched(before / decay))
        specs["range test", decay] = lab.ramps(length=RANGE_LENGTH, weight_decay=decay)
    records = yield from by_name(specs)
    grids = {name: {decay: records[name, decay] for decay in grid} for name in (*ways, "branch", "range test")}
    tests, branch = grids.pop("range test"), grids.pop("branch")
    places = {name: optima(found) for name, found in grids.items()}
    first = next(iter(ways))
    findings = [
        *_moves(grids, places, first, lab.paper.get("best decay", "")),
        _law(lab, ways, places),
        _agrees("Fig. 12", "branches from the peak of the LR", optima(branch), places[first]),
        _in_use("Fig. 4", "LR range tests", _by_range_tests(tests), grids[first]),
    ]
    return Outcome(
        findings=findings,
        panels=(
            _drawn("fig11", "Weight decay under several schedules", grids),
            _drawn(
                "fig12",
                "Weight decay in branches from the peak, and throughout",
                {"throughout": grids[first], "from the peak on": branch},
            ),
            _ramps_drawn(tests),
        ),
        tables={f"Weight decay, {lab.title}: the best place by way of training": _rows(lab, ways, places, grids)},
    )


def _ways(lab: Lab, own: Hyperparameters) -> dict[str, Way]:
    cycle, lower, higher = lab.one_cycle, own.lr / LOWER, own.lr * HIGHER
    constant = lab.at_constant_lr(cycled=False)
    still = replace(own, momentum=LITTLE_MOMENTUM, momentum_min=LITTLE_MOMENTUM)
    return {
        f"1cycle, LR {own.lr:g}": Way(own=own, schedule=cycle),
        f"1cycle, LR {lower:g}": Way(own=replace(own, lr=lower), schedule=cycle),
        f"1cycle, LR {higher:g}": Way(own=replace(own, lr=higher), schedule=cycle),
        f"1cycle, LR {own.lr:g}, momentum {LITTLE_MOMENTUM:g}": Way(own=still, schedule=cycle),
        f"{CONSTANT} {own.lr / CONSTANT_LR:g}": Way(own=replace(own, lr=own.lr / CONSTANT_LR), schedule=constant),
    }


def _moves(
    grids: Mapping[str, Mapping[float, Sequence[TrialRecord]]], places: Mapping[str, Sequence[float]], first: str, theirs: str
) -> list[Finding]:
    """Whether the best weight decay is another one under another LR, momentum or schedule; `theirs`: at a constant LR over 1cycle.

    Each comparison has its own noise: where a curve is flat its lowest place is anywhere, which says nothing of the others.
    """
    findings = []
    for name in places:
        if name == first:
            continue
        ratio = powers(over_seeds(_apart(places[name], places[first]), together=len(places) - 1))
        edge = " and ".join(n for n in (name, first) if at_the_edge(grids[n]))
        findings.append(
            Finding(
                statement=f"best weight decay: {name}, over that under {first}",
                ours=ratio,
                unit="×",
                wanted=f"beyond a factor of {MOVED:g}",
                verdict=_moved(ratio),
                figure="Figs. 9–11",
                paper=theirs if name.startswith(CONSTANT) else "",
                note=f"at the edge of the grid: {edge}" if edge else "",
            )
        )
    return findings


def _apart(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Differences, seed by seed."""
    return [a - b for a, b in zip(own, other, strict=True)]


def _moved(ratio: Estimate) -> Verdict:
    if ratio.low > MOVED or ratio.high < 1 / MOVED:
        return "holds"
    return "does not hold" if ratio.low > 1 / MOVED and ratio.high < MOVED else "not decided"


def _law(lab: Lab, ways: Mapping[str, Way], places: Mapping[str, Sequence[float]]) -> Finding:
    """The slope of log weight decay over log mean LR/(1 − momentum): −1 where the product is what counts, 0 where weight decay is."""
    x = [math.log10(lab.forgetting(lab.run(way.own, 0, schedule=way.schedule))) for way in ways.values()]
    slopes = [float(np.polyfit(x, [places[name][seed] for name in ways], 1)[0]) for seed in lab.seeds]
    slope = over_seeds(slopes)
    contains = slope.low < -1 < slope.high
    verdict: Verdict = "not decided" if contains and slope.high >= 0 else "holds" if contains else "does not hold"
    return Finding(
        statement=f"slope of log best weight decay over log mean LR/(1 − momentum), {len(x)} ways of training",
        ours=slope,
        unit="",
        wanted="−1 within the interval, 0 outside",
        verdict=verdict,
        paper="not in the report; arXiv 2405.13698",
    )


def _agrees(figure: str, how: str, own: Sequence[float], throughout: Sequence[float]) -> Finding:
    ratio = powers(over_seeds(_apart(own, throughout)))
    what = f"best weight decay found by {how}, over that of whole trainings"
    return held(what, ratio, "×", above=1 / SAME, below=SAME, figure=figure, paper="finds it")


def _in_use(figure: str, how: str, found: float, grid: Mapping[float, Sequence[TrialRecord]]) -> Finding:
    """What a weight decay found otherwise costs in whole trainings."""
    compared = Compared(grid, log_loss)
    best = compared.best(largest=False)
    ratio = powers(compared.difference(found, best, chosen_from=len(grid)), math.e)
    what = f"loss with the weight decay that {how} favour ({found:g}), over the best one's ({best:g})"
    return held(what, ratio, "×", below=AS_GOOD, figure=figure, paper="finds it")


def _by_range_tests(tests: Mapping[float, Sequence[TrialRecord]]) -> float:
    """The weight decay whose range tests reach the lowest loss, the larger one of those within 1 % (section 4.4)."""
    lowest = {
        decay: float(np.mean([min(filter(math.isfinite, r.curve.val_loss), default=math.inf) for r in records]))
        for decay, records in tests.items()
    }
    return max(decay for decay, loss in lowest.items() if loss <= 1.01 * min(lowest.values()))


def _rows(
    lab: Lab, ways: Mapping[str, Way], places: Mapping[str, Sequence[float]], grids: Mapping[str, Mapping[float, Sequence[TrialRecord]]]
) -> list[dict[str, str]]:
    rows = []
    for name, way in ways.items():
        best = powers(over_seeds(places[name]))
        product = lab.forgetting(lab.run(way.own, 0, schedule=way.schedule))
        rows.append({
            "way of training": name, "best weight decay": f"{best.value:.2g} [{best.low:.2g}, {best.high:.2g}]",
            "mean LR/(1 − momentum)": f"{product:.3g}", "product": f"{best.value * product:.2g}",
            "at the edge": "yes" if at_the_edge(grids[name]) else "",
        })  # fmt: skip
    return rows


def _drawn(figure: str, title: str, grids: Mapping[str, Mapping[float, Sequence[TrialRecord]]]) -> Panel:
    rows = ends({(name, decay): records for name, grid in grids.items() for decay, records in grid.items()}, test_loss)
    return Panel(figure=figure, title=title, x="weight decay", y="test loss", rows=rows, log=True)


def _ramps_drawn(tests: Mapping[float, Sequence[TrialRecord]]) -> Panel:
    rows = ramps({f"{decay:g}": records for decay, records in tests.items()})
    return Panel(figure="fig4", title="LR range tests by weight decay", x="learning rate", y="validation loss", rows=rows, log=True)
