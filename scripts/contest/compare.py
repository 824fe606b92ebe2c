"""All searches on one job and repetition, and what their recommendations come to at full length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contest.bench import Bench, open_bench
from contest.jobs import Job
from contest.searches import STAGED, Found, confirmed, read, study

TIMES = (1, 2, 4)  # what the others may spend, in hptune's cost
CONFIRMED = ", confirmed"
NOT_CONFIRMED = ("baseline", "hptune, no transfer", "recipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One search on one job and repetition: what it spent, what it recommends, and what that comes to at full length.

    `budget`: short runs hptune was given; `times`: how many times hptune's cost the search was allowed. `cost` in units of a short run.
    """

    job: str
    held_out: bool
    repetition: int
    search: str
    budget: int
    times: int
    cost: float
    own: dict[str, Any]
    loss: float
    metric: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How much is compared."""

    budgets: tuple[int, ...]
    peers: tuple[str, ...]
    times: tuple[int, ...] = TIMES
    confirm: tuple[int, ...] = ()
    """Budgets at which the searches are also compared with a confirmation after them."""


def compare(job: Job, repetition: int, wanted: Wanted, folder: Path) -> list[Row]:
    """Run or look up everything of one job and repetition, in this process, on one thread."""
    import torch

    torch.set_num_threads(1)
    with open_bench(job, repetition, folder) as bench:
        return [
            _row(job, repetition, search, budget, times, found, bench.outcome(found.own))
            for budget in wanted.budgets
            for search, times, found in _with_confirmation(bench, budget, wanted)
        ]


def _with_confirmation(bench: Bench, budget: int, wanted: Wanted) -> Iterator[tuple[str, int, Found]]:
    for search, times, found in _found(bench, budget, wanted):
        yield search, times, found
        if budget in wanted.confirm and search not in NOT_CONFIRMED and times == 1:
            yield f"{search}{CONFIRMED}", times, confirmed(bench, found)


def _found(bench: Bench, budget: int, wanted: Wanted) -> Iterator[tuple[str, int, Found]]:
    """The staged searches within the budget, and the others at as much as hptune then took."""
    staged = {name: search(bench, budget) for name, search in STAGED.items()}
    for name, found in staged.items():
        yield name, 1, found
    yield "baseline", 1, Found(own=bench.baseline, cost=0.0)
    spent = max(staged["hptune"].cost, budget)
    for name in wanted.peers:
        tried = study(bench, name, max(wanted.budgets) * max(wanted.times) * 1.1)
        for times in wanted.times:
            yield name, times, read(tried, spent * times)
            if name == "tpe":
                yield "tpe, transfer", times, read(tried, spent * times, carried=bench.longer)


def _row(job: Job, repetition: int, search: str, budget: int, times: int, found: Found, outcome: dict[str, float]) -> Row:
    return Row(
        job=job.name, held_out=job.held_out, repetition=repetition, search=search, budget=budget, times=times,
        cost=round(found.cost, 3), own=asdict(found.own), loss=outcome["loss"], metric=outcome["metric"],
    )  # fmt: skip
