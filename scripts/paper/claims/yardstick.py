"""The yardstick of today: the accuracy reached within so many minutes, search included, beside what others use."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from hptune.trial import TrialRecord, TrialSpec
from paper.evidence import Finding, Outcome, Panel, held, over_seeds
from paper.lab import Lab
from paper.race import CONTESTANTS, HPTUNE, OPTUNA, Result


def yardstick(lab: Lab) -> Generator[list[TrialSpec], list[TrialRecord], Outcome]:
    """Races of every length the setup names, in pairs: the same seed and split for both contestants."""
    yield []
    raced = {minutes: [lab.race(minutes, seed) for seed in range(lab.paper["pairs"])] for minutes in lab.paper["minutes"]}
    return Outcome(
        findings=[_finding(minutes, found) for minutes, found in raced.items()],
        panels=(_drawn(raced),),
        tables={f"Within so many minutes, {lab.title}; {lab.paper['beside']}": _rows(raced)},
    )


def _finding(minutes: float, found: Sequence[Mapping[str, Result]]) -> Finding:
    gap = over_seeds([pair[HPTUNE].accuracy - pair[OPTUNA].accuracy for pair in found])
    what = f"accuracy of {CONTESTANTS[HPTUNE]} less that of {CONTESTANTS[OPTUNA]} after {minutes:g} min, {len(found)} pairs"
    return held(what, gap, "points", above=0.0)


def _rows(raced: Mapping[float, Sequence[Mapping[str, Result]]]) -> list[dict[str, str]]:
    rows = []
    for minutes, found in raced.items():
        for who in CONTESTANTS:
            results = [pair[who] for pair in found]
            mean = over_seeds([result.accuracy for result in results])
            rows.append(
                {
                    "minutes": f"{minutes:g}",
                    "": CONTESTANTS[who],
                    "accuracy, %": f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]",
                    "trials": " ".join(str(result.trials) for result in results),
                    "seconds": " ".join(f"{result.seconds:.0f}" for result in results),
                }
            )
    return rows


def _drawn(raced: Mapping[float, Sequence[Mapping[str, Result]]]) -> Panel:
    rows = [
        {"x": f"{minutes:g} min", "y": result.accuracy, "series": CONTESTANTS[who].strip("`"), "seed": result.repetition}
        for minutes, found in raced.items()
        for pair in found
        for who, result in pair.items()
    ]
    return Panel(figure="yardstick", title="Search and training in so much time", x="time", y="test accuracy, %", rows=rows, lines=False)
