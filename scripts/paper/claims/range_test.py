"""Claim 1 (section 4.1, Figs. 1 and 4): the LR range test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hptune.stages.lr_range import round_lr
from hptune.trial import TrialRecord, TrialSpec
from paper.evidence import Compared, Estimate, Finding, Outcome, Panel, held, log_loss, over_seeds, powers, share_of
from paper.lab import Asking, Lab, by_name
from paper.panels import ends, ramps, test_loss

LENGTHS = (0.125, 0.25, 0.5, 1.0)  # of a full training; the author's range tests were about as long as his trainings
AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the LR suggested by the longest
AGREES = 2.0  # a factor: the neighbours that hptune tries beside its suggestion
AS_GOOD = 1.05  # times the loss of the best LR tried
LINEAR, LINEAR_UP_TO = "linear", 8.0  # times the suggestion: a linear ramp spends nearly all its steps in the last decade
MORE, MORE_SEEDS = "more", 4  # for the suggestion itself: whether it is stable is a matter of counting


def range_test(lab: Lab) -> Asking[Outcome]:
    """Range tests of several lengths, then trainings at what they suggest, and around what the longest ones suggest."""
    own = yield from lab.settled()
    specs: dict[float | str, list[TrialSpec]] = {length: lab.ramps(length=length) for length in LENGTHS}
    tests = yield from by_name({**specs, LINEAR: lab.ramps(shape="linear", max_lr=LINEAR_UP_TO * own.lr)})
    rates = {factor: round_lr(own.lr * factor) for factor in AROUND}
    shorter = {name: round_lr(lr) for name, records in tests.items() if name != 1.0 and (lr := lab.suggestion(records)) is not None}
    more = [lab.run(own, len(lab.seeds) + i) for i in range(MORE_SEEDS)]
    runs = yield from by_name({lr: lab.runs(own.but(lr=lr)) for lr in (*rates.values(), *shorter.values())} | {MORE: more})
    stable = [*runs[own.lr], *runs.pop(MORE)]
    around = {lr: runs[lr] for lr in rates.values()}
    findings = [*_stable(own.lr, stable), *_good(own.lr, around), *_lengths(lab, tests), *_in_use(lab, own.lr, tests, shorter, runs)]
    return Outcome(findings=findings, panels=(_ramps_drawn(tests), _rates_drawn(around)))


def _stable(lr: float, runs: Sequence[TrialRecord]) -> list[Finding]:
    completed = sum(record.usable for record in runs)
    what = f"trainings under 1cycle that complete at the suggested LR ({lr:g})"
    counted = f"{completed} of {len(runs)}"
    return [held(what, share_of(completed, len(runs)), "share", above=0.5, figure="Fig. 1", paper="all", note=counted)]


def _good(suggested: float, runs: Mapping[float, Sequence[TrialRecord]]) -> list[Finding]:
    compared = Compared(runs, log_loss)
    best = compared.best([lr for lr in compared.names if lr != suggested], largest=False)
    ratio = powers(compared.difference(suggested, best, chosen_from=len(runs) - 1), math.e)
    lost = ", ".join(f"{lr:g}" for lr in compared.lost)
    what = f"loss at the suggested LR over that at the best of {len(runs) - 1} around it ({best:g})"
    return [held(what, ratio, "×", below=AS_GOOD, note=f"diverged at {lost}" if lost else f"none diverged up to {max(runs):g}")]


def _lengths(lab: Lab, tests: Mapping[float | str, Sequence[TrialRecord]]) -> list[Finding]:
    """What shorter range tests, and a linear one, suggest, over the longest one's suggestion; seed by seed."""
    longest = [lab.suggestion([record]) for record in tests[1.0]]
    findings = []
    for length, records in tests.items():
        pairs = [(lab.suggestion([record]), other) for record, other in zip(records, longest, strict=True)]
        logs = [math.log10(a / b) for a, b in pairs if a is not None and b is not None]
        if length == 1.0 or not logs:
            continue
        steps = records[0].spec.steps
        kind = f"of {steps} steps" if isinstance(length, float) else f"with a linear ramp of {steps} steps"
        ratio = powers(over_seeds(logs))
        what = f"LR suggested by a range test {kind} over that of one of {tests[1.0][0].spec.steps}"
        findings.append(held(what, ratio, "×", above=1 / AGREES, below=AGREES, figure="Fig. 1"))
    return findings


def _in_use(
    lab: Lab,
    longest: float,
    tests: Mapping[float | str, Sequence[TrialRecord]],
    shorter: Mapping[float | str, float],
    runs: Mapping[float | str, Sequence[TrialRecord]],
) -> list[Finding]:
    """What it costs to train at the LR that shorter range tests suggest, all seeds together."""
    findings = []
    for name, lr in shorter.items():
        steps = tests[name][0].spec.steps
        compared = Compared({"long": runs[longest], "short": runs[lr]}, log_loss)
        ratio = powers(compared.difference("short", "long"), math.e)
        if lr == longest:
            ratio = Estimate(value=1.0, low=1.0, high=1.0)
        kind = f"linear range tests of {steps}" if name == LINEAR else f"range tests of {steps}"
        what = f"loss at the LR that {len(lab.seeds)} {kind} steps suggest together ({lr:g}), over that at the longest ones' ({longest:g})"
        findings.append(held(what, ratio, "×", below=AS_GOOD))
    return findings


def _ramps_drawn(own: Mapping[float | str, Sequence[TrialRecord]]) -> Panel:
    named = {f"{records[0].spec.steps} steps{', linear' if name == LINEAR else ''}": records for name, records in own.items()}
    title = "LR range tests by length"
    return Panel(figure="fig1", title=title, x="learning rate", y="validation loss", rows=ramps(named), log=True)


def _rates_drawn(runs: Mapping[float, Sequence[TrialRecord]]) -> Panel:
    rows = ends({("1cycle", lr): records for lr, records in runs.items()}, test_loss)
    title = "Trainings around the suggestion"
    return Panel(figure="fig1_lr", title=title, x="maximum learning rate", y="test loss", rows=rows, log=True)
