"""From rows to verdicts: ratios of final test losses with bootstrap intervals, wins, excess over the best known."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contest.compare import CONFIRMED, Row
from speed.results import Target

SAMPLES = 4000  # of the bootstrap
HPTUNE, TPE, BASELINE = "hptune", "tpe", "baseline"
Cell = tuple[str, int]
"""A job and a repetition."""
Logs = Mapping[str, Sequence[float]]
"""Logarithms of ratios by job, one a repetition."""


def overall(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for each search, budget and allowance: hptune's final loss over its own, over all jobs of a half.

    Searches with a confirmation after them are held against hptune with one.
    """
    table = []
    for half, held_out in (("development", False), ("held out", True)):
        own = [row for row in rows if row.held_out is held_out]
        best = _best_known(own)
        for budget in sorted({row.budget for row in own}):
            searches = {(r.search, r.times) for r in own if r.budget == budget}
            for search, times in sorted(searches - {(HPTUNE, 1), (HPTUNE + CONFIRMED, 1)}):
                ours = _select(own, HPTUNE + CONFIRMED * search.endswith(CONFIRMED), budget, 1)
                theirs = _select(own, search, budget, times)
                logs = _logs(ours, theirs)
                table.append({"half": half, "short runs": budget, "against": search, "at cost x": times, **_summary(logs)} | {
                    "excess ratio": _excess(ours, best) / _excess(theirs, best) if _excess(theirs, best) else math.nan,
                    "cost": statistics.fmean(row.cost for row in theirs.values()),
                })  # fmt: skip
    return table


def by_job(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """hptune against the baseline and TPE at equal cost, job by job."""
    table = []
    for job in dict.fromkeys(row.job for row in rows):
        own = [row for row in rows if row.job == job]
        for budget in sorted({row.budget for row in own}):
            ours = _select(own, HPTUNE, budget, 1)
            entry: dict[str, Any] = {
                "job": job, "half": "held out" if own[0].held_out else "development", "short runs": budget,
                "cost": statistics.fmean(r.cost for r in ours.values()), "loss": statistics.median(r.loss for r in ours.values()),
                "metric": statistics.median(r.metric for r in ours.values()),
            }  # fmt: skip
            for search in (TPE, BASELINE):
                theirs = _select(own, search, budget, 1)
                if theirs:
                    found = _summary(_logs(ours, theirs))
                    entry |= {f"/ {search}": found["ratio"], f"{search}: interval": found["interval"]}
            table.append(entry)
    return table


def targets(rows: Sequence[Row], table: Sequence[Mapping[str, Any]]) -> list[Target]:
    """What is wanted on the held-out half, beside what was measured."""

    def ratio(search: str, budget: int, times: int, limit: float) -> Target | None:
        found = [t for t in table if (t["half"], t["short runs"], t["against"], t["at cost x"]) == ("held out", budget, search, times)]
        if not found:
            return None
        measured = f"{found[0]['ratio']:.3g} {found[0]['interval']}"
        met = found[0]["ratio"] <= limit and found[0]["high"] < 1
        return Target(
            what=f"hptune / {search} at {times} x the cost of {budget} short runs", wanted=f"<= {limit}", measured=measured, met=met
        )

    equal_cost = ((8, 0.86), (16, 0.91), (32, 0.87))
    wanted = [ratio(search, budget, 1, limit) for search in (TPE, "tpe, no baseline") for budget, limit in equal_cost]
    wanted += [ratio(TPE, budget, 1, 0.95) for budget in (8, 16, 32)]
    wanted += [ratio(search, 16, 4, 0.90) for search in (TPE, "gp", "hyperband")]
    wanted += [ratio("tpe, transfer", budget, 1, 0.97) for budget in (8, 16, 32)]
    for budget, limit in ((16, 0.40), (32, 0.22)):
        found = [t for t in table if (t["half"], t["short runs"], t["against"], t["at cost x"]) == ("held out", budget, TPE, 1)]
        if found:
            value = found[0]["excess ratio"]
            wanted.append(
                Target(
                    what=f"excess over the best known, of TPE's, {budget} short runs",
                    wanted=f"<= {limit}",
                    measured=f"{value:.3g}",
                    met=value <= limit,
                )
            )
    return [*(target for target in wanted if target is not None), *_never_worse(rows)]


def _never_worse(rows: Sequence[Row]) -> list[Target]:
    """On no job is hptune shown to be more than 2 % worse than the untouched baseline."""
    found = []
    for budget in sorted({row.budget for row in rows}):
        lows = {}
        for job in dict.fromkeys(row.job for row in rows):
            own = [row for row in rows if row.job == job]
            lows[job] = _summary(_logs(_select(own, HPTUNE, budget, 1), _select(own, BASELINE, budget, 1)))["low"]
        worst = max(lows, key=lambda job: lows[job])
        found.append(
            Target(
                what=f"hptune / baseline, highest lower end over jobs ({worst}), {budget} short runs", wanted="<= 1.02",
                measured=f"{lows[worst]:.3g}", met=lows[worst] <= 1.02,
            )
        )  # fmt: skip
    return found


def _select(rows: Sequence[Row], search: str, budget: int, times: int) -> dict[Cell, Row]:
    return {(r.job, r.repetition): r for r in rows if (r.search, r.budget, r.times) == (search, budget, times)}


def _logs(ours: Mapping[Cell, Row], theirs: Mapping[Cell, Row]) -> Logs:
    found: dict[str, list[float]] = defaultdict(list)
    for cell in sorted(ours.keys() & theirs.keys()):
        found[cell[0]].append(math.log(ours[cell].loss / theirs[cell].loss))
    return found


def _summary(logs: Logs) -> dict[str, Any]:
    every = [value for values in logs.values() for value in values]
    low, high = _interval(logs)
    return {
        "ratio": math.exp(statistics.fmean(statistics.fmean(values) for values in logs.values())),
        "interval": f"[{low:.3g}, {high:.3g}]",
        "low": low,
        "high": high,
        "median": math.exp(statistics.median(every)),
        "better/equal/worse": "/".join(str(sum(test(v) for v in every)) for test in (lambda v: v < 0, lambda v: v == 0, lambda v: v > 0)),
        "cells": len(every),
    }


def _interval(logs: Logs) -> tuple[float, float]:
    """95 %: the jobs as they are, their repetitions drawn anew."""
    draw = np.random.default_rng(0)
    means = [np.mean([draw.choice(values, len(values)).mean() for values in logs.values()]) for _ in range(SAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return math.exp(low), math.exp(high)


def _best_known(rows: Sequence[Row]) -> dict[Cell, float]:
    best: dict[Cell, float] = {}
    for row in rows:
        cell = (row.job, row.repetition)
        best[cell] = min(best.get(cell, math.inf), row.loss)
    return best


def _excess(rows: Mapping[Cell, Row], best: Mapping[Cell, float]) -> float:
    """Mean over jobs of the mean share by which the loss lies above the lowest one known."""
    found: dict[str, list[float]] = defaultdict(list)
    for cell, row in rows.items():
        found[cell[0]].append(row.loss / best[cell] - 1)
    return statistics.fmean(statistics.fmean(values) for values in found.values())
