"""Claim 6 (section 3, remarks 1 and 2, Figs. 1 to 3): what short runs and the first part of a run tell of the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hptune.analysis.diagnosis import clue
from hptune.stages.lr_range import round_lr
from hptune.trial import Hyperparameters, TrialRecord
from paper.evidence import Compared, Estimate, Finding, Outcome, Panel, held, log_loss, over_seeds, rank_correlation, share_of
from paper.lab import Asking, Lab, by_name
from paper.panels import courses

SHORT = (0.1, 0.2)  # of a full training
RATES = (0.125, 0.25, 0.5, 1.0, 2.0)  # times the LR suggested
MOMENTA = (0.85, 0.9, 0.95)
DECAYS = (0.1, 10**-0.5, 10**0.5, 10.0)  # times the author's
KINDS = {"lr": "LR", "momentum": "momentum", "weight_decay": "weight decay"}
PREDICTS = 0.5  # a rank correlation that is of use: half of the way from chance to certainty


def clues(lab: Lab) -> Asking[Outcome]:
    """Candidates that differ in LR, momentum and weight decay: their ranking after short runs and in mid-run beside the final one."""
    own = yield from lab.settled()
    candidates = _candidates(own)
    lengths = (*SHORT, 1.0)
    records = yield from by_name({(name, length): lab.runs(h, length=length) for name, h in candidates.items() for length in lengths})
    full = {name: records[name, 1.0] for name in candidates if all(r.usable for length in lengths for r in records[name, length])}
    findings = [_short(lab, {name: records[name, length] for name in full}, full, length) for length in SHORT]
    findings += [_of_one_kind(lab, own, candidates, records, full, key) for key in KINDS]
    findings += [_within(lab, full, at) for at in range(len(full[next(iter(full))][0].curve.step) - 1)]
    findings += _words(own, {name: records[name, SHORT[1]] for name in full}, full, candidates)
    return Outcome(
        findings=findings,
        panels=(_drawn(records, full), _curves(lab, full)),
    )


def _candidates(own: Hyperparameters) -> dict[str, Hyperparameters]:
    rates = {f"LR {round_lr(own.lr * factor):g}": own.but(lr=round_lr(own.lr * factor)) for factor in RATES}
    momenta = {f"momentum {m:g}": replace(own, momentum=m, momentum_min=m) for m in MOMENTA}
    decays = {f"weight decay {own.weight_decay * f:.2g}": own.but(weight_decay=float(f"{own.weight_decay * f:.2g}")) for f in DECAYS}
    return rates | momenta | decays


def _short(lab: Lab, short: Mapping[str, Sequence[TrialRecord]], full: Mapping[str, Sequence[TrialRecord]], length: float) -> Finding:
    """One seed's short runs against the full runs of the other seeds, so that a lucky seed is not in both."""
    what = (
        f"rank correlation of one seed's loss after short runs of {length:g} of the length with that of the full ones' other seeds, "
        f"{len(full)} candidates"
    )
    return held(what, _correlation(lab, short, full), "", above=PREDICTS, paper="predict")


def _of_one_kind(
    lab: Lab,
    own: Hyperparameters,
    candidates: Mapping[str, Hyperparameters],
    records: Mapping[tuple[str, float], Sequence[TrialRecord]],
    full: Mapping[str, Sequence[TrialRecord]],
    key: str,
) -> Finding:
    """The same among candidates that differ in one value alone."""
    names = _moved(own, candidates, full, key)
    ours = _correlation(lab, {name: records[name, SHORT[1]] for name in names}, {name: full[name] for name in names})
    what = f"the same after {SHORT[1]:g} of the length, {len(names)} candidates that differ in {KINDS[key]} alone"
    return held(what, ours, "", above=PREDICTS)


def _correlation(lab: Lab, short: Mapping[str, Sequence[TrialRecord]], full: Mapping[str, Sequence[TrialRecord]]) -> Estimate:
    return _bounded([
        rank_correlation([records[seed].val_loss for records in short.values()], _others(full, seed)) for seed in range(len(lab.seeds))
    ])  # fmt: skip


def _bounded(correlations: Sequence[float]) -> Estimate:
    """Their mean with Student's interval, which ends where correlations do."""
    found = over_seeds(correlations)
    return Estimate(value=found.value, low=max(found.low, -1.0), high=min(found.high, 1.0))


def _moved(
    own: Hyperparameters, candidates: Mapping[str, Hyperparameters], full: Mapping[str, Sequence[TrialRecord]], key: str
) -> list[str]:
    """Candidates that differ from what they started from in `key` alone, and that itself."""
    fixed = ("momentum", "momentum_min") if key == "momentum" else (key,)
    return [name for name, h in candidates.items() if name in full and replace(h, **{k: getattr(own, k) for k in fixed}) == own]


def _within(lab: Lab, full: Mapping[str, Sequence[TrialRecord]], at: int) -> Finding:
    """The loss in mid-run, as the LR goes up and comes down."""
    correlations = [
        rank_correlation([records[seed].curve.val_loss[at] for records in full.values()], _others(full, seed))
        for seed in range(len(lab.seeds))
    ]
    some = next(iter(full.values()))[0]
    ours, share = _bounded(correlations), some.curve.step[at] / some.spec.steps
    what = f"rank correlation of the loss at {share:.2f} of a full run with the final loss of other seeds"
    return held(what, ours, "", above=PREDICTS, figure="Figs. 1–3", paper="predicts")


def _others(full: Mapping[str, Sequence[TrialRecord]], seed: int) -> list[float]:
    return [float(np.mean([log_loss(r) for i, r in enumerate(records) if i != seed])) for records in full.values()]


def _words(
    own: Hyperparameters,
    short: Mapping[str, Sequence[TrialRecord]],
    full: Mapping[str, Sequence[TrialRecord]],
    candidates: Mapping[str, Hyperparameters],
) -> list[Finding]:
    """Short runs at the edges: does the word hptune has for their fit say on which side of the best they lie?"""
    compared = Compared(full, log_loss)
    right = asked = 0
    for key in ("lr", "weight_decay"):
        moved = _moved(own, candidates, full, key)
        best = candidates[compared.best(moved, largest=False)]
        for name in moved:
            apart = compared.difference(name, compared.best(moved, largest=False), chosen_from=len(moved))
            if apart.low <= 0:
                continue
            more = getattr(candidates[name], key) > getattr(best, key)
            expected = _expected(key, more=more)
            words = [found.word for record in short[name] if (found := clue(record)) is not None]
            right, asked = right + sum(word in expected for word in words), asked + len(words)
    if not asked:
        return []
    what = f"short runs ({SHORT[1]:g} of the length) of candidates worse than the best whose clue names the right side of it"
    counted = f"{right} of {asked}"
    return [held(what, share_of(right, asked), "share", above=0.5, figure="Figs. 2, 3", paper="shows early", note=counted)]


def _expected(key: str, *, more: bool) -> tuple[str, ...]:
    """Too low an LR and too much weight decay underfit; too high an LR is unstable or regularizes too much; too little decay overfits."""
    if key == "lr":
        return ("unstable", "underfitting") if more else ("underfitting",)
    return ("underfitting",) if more else ("overfitting",)


def _drawn(records: Mapping[tuple[str, float], Sequence[TrialRecord]], full: Mapping[str, Sequence[TrialRecord]]) -> Panel:
    rows: list[dict[str, Any]] = [
        {"x": record.val_loss, "y": final.test_loss, "series": f"{length:g} of the length", "seed": final.spec.repetition}
        for name, finals in full.items()
        for length in SHORT
        for record, final in zip(records[name, length], finals, strict=True)
    ]
    x, y = "validation loss of the short run", "test loss of the full run"
    return Panel(figure="clues", title="Short runs and full ones", x=x, y=y, rows=rows, lines=False)


def _curves(lab: Lab, full: Mapping[str, Sequence[TrialRecord]]) -> Panel:
    """Validation loss through a run: falling early and flat is right (Figs. 1 to 3)."""
    rates = {name: records for name, records in full.items() if name.startswith("LR")}
    rows = courses(rates, lambda record, at: record.curve.step[at] / record.spec.steps * lab.epochs)
    return Panel(figure="fig2", title="Validation loss through 1cycle runs", x="epoch", y="validation loss", rows=rows)
