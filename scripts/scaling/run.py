"""From the command line to the files: simulate, print and write what scaling comes to."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from typing import Any

from scaling.chart import draw
from scaling.costs import BUILT_IN, Costs, of_run
from scaling.simulate import KINDS, Kind, Schedule, simulate
from speed.machine import RESULTS, describe_machine
from speed.processes import say
from speed.results import Spread, table

Job = tuple[Kind, Costs, int, int, bool, str]
WORKERS = (1, 2, 4, 8, 16, 64, 256, 512, 1024)
ORDERED = (2, 4, 8, 16, 64)  # workers with whom the order of trials is compared


def run(arguments: argparse.Namespace) -> None:
    costs = [of_run(arguments.run_dir)] if arguments.run_dir else [BUILT_IN[name] for name in arguments.costs.split(",")]
    workers = [int(word) for word in arguments.workers.split(",")] if arguments.workers else WORKERS
    machine = describe_machine()
    out = arguments.out or RESULTS / f"scaling-simulated-{machine['date'][:10]}.json"
    jobs = _jobs(costs, workers, arguments.seeds)
    found: list[Schedule] = []
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for schedule in pool.map(_simulated, jobs):
            found.append(schedule)
            say(f"{schedule.kind}, {schedule.costs}, {schedule.workers} workers, seed {schedule.repetition}: {schedule.seconds:.0f} s")
    different = _different(found)
    report = markdown(found, costs, machine)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(asdict(replace(schedule, result=""))) for schedule in found)
    out.write_text(f'{{"machine": {json.dumps(machine)},\n"rows": [\n{rows}\n]}}\n', encoding="utf-8")
    out.with_suffix(".md").write_text(report, encoding="utf-8")
    draw(found, out.with_suffix(".png"))
    print(report)
    if different:
        raise SystemExit(f"the number of workers changed what was decided: {'; '.join(different)}")


def _simulated(job: Job) -> Schedule:
    kind, costs, repetition, workers, foresight, order = job
    return simulate(kind, costs, repetition, workers, foresight=foresight, order=order)


def _jobs(costs: Sequence[Costs], workers: Sequence[int], seeds: int) -> list[Job]:
    jobs: list[Job] = []
    for own in costs:
        for kind in KINDS:
            for seed in range(1 if kind.sweep else seeds):
                for count in sorted({1, *workers}):
                    jobs += [
                        (kind, own, seed, count, foresight, "longest first") for foresight in ((False, True) if count > 1 else (False,))
                    ]
                jobs += [(kind, own, seed, count, False, "as planned") for count in ORDERED]
    return jobs


def _different(found: Iterable[Schedule]) -> list[str]:
    """The runs that ended otherwise than with one worker."""
    alone = {(s.kind, s.costs, s.repetition): s.result for s in found if s.workers == 1}
    return [
        f"{s.kind}, {s.costs}, seed {s.repetition}, {s.workers} workers" for s in found if s.result != alone[s.kind, s.costs, s.repetition]
    ]


def markdown(found: Sequence[Schedule], costs: Sequence[Costs], machine: Mapping[str, Any]) -> str:
    """The tables: speed-ups, where workers are idle, what the order of trials brings."""
    blocks = [
        "# Scaling, simulated",
        table([{"": key, "value": value} for key, value in machine.items() if key != "versions"]),
        "\n".join(f"- {note}" for note in (*NOTES, *(f"costs of {own.name}: {own.source}" for own in costs))),
    ]
    for own in costs:
        for kind in KINDS:
            mine = [s for s in found if (s.kind, s.costs) == (kind.name, own.name)]
            blocks += [f"## {kind.name}, {own.name}", *_sections(mine)]
    return "\n\n".join(blocks) + "\n"


def _sections(mine: Sequence[Schedule]) -> list[str]:
    alone = {s.repetition: s.seconds for s in mine if s.workers == 1 and s.order == "longest first"}
    groups: dict[tuple[int, bool, str], list[Schedule]] = defaultdict(list)
    for schedule in mine:
        groups[schedule.workers, schedule.foresight, schedule.order].append(schedule)
    usual = {(workers, foresight): own for (workers, foresight, order), own in groups.items() if order == "longest first"}
    speeds = [_row(workers, foresight, own, alone) for (workers, foresight), own in sorted(usual.items())]
    idle = [
        {"workers": workers, "foresight": _yes(foresight), **{stage: f"{share:.0%}" for stage, share in _idle_shares(own).items()}}
        for (workers, foresight), own in sorted(usual.items())
        if workers in (8, 64, 512)
    ]
    order = [
        {
            "workers": workers,
            "as planned": _mean(groups[workers, False, "as planned"], "seconds"),
            "longest first": _mean(groups[workers, False, "longest first"], "seconds"),
        }
        for workers in ORDERED
        if (workers, False, "longest first") in groups
    ]
    return [
        table(speeds),
        "Share of the workers' time that nobody used, by stage:",
        table(idle),
        "Seconds without foresight, by the order in which the trials of a round begin:",
        table(order),
    ]


def _row(workers: int, foresight: bool, own: Sequence[Schedule], alone: Mapping[int, float]) -> dict[str, Any]:
    return {
        "workers": workers,
        "foresight": _yes(foresight),
        "seconds": _mean(own, "seconds"),
        "speed-up": str(Spread.of([alone[s.repetition] / s.seconds for s in own])),
        "utilization": f"{statistics.fmean(s.work / (s.workers * s.seconds) for s in own):.0%}",
        "rounds": _mean(own, "rounds"),
        "longest trials": _mean(own, "path"),
        "trials": _mean(own, "trials"),
        "begun ahead": _mean(own, "begun_ahead"),
        "of these used": _mean(own, "used"),
        "wasted": f"{statistics.fmean(s.wasted / s.work for s in own):.2f}",
        "driver": _mean(own, "driver"),
    }


def _idle_shares(own: Sequence[Schedule]) -> dict[str, float]:
    shares = {}
    for stage in own[0].spans:
        there = [s for s in own if s.spans.get(stage, 0) > 0]
        total = sum(s.workers * s.spans[stage] for s in there)
        shares[stage] = sum(s.idle[stage] for s in there) / total if total else 0.0
    return shares


def _mean(own: Sequence[Schedule], name: str) -> str:
    return f"{statistics.fmean(getattr(s, name) for s in own):.3g}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


NOTES = (
    "the pipeline, its stages, rounds and journal are the real ones; workers and their time are simulated, losses come from a made-up "
    "surface whose best values differ with the seed; all workers start at the beginning and are ready after `start` seconds of the costs",
    "speed-up: over one worker; median and extremes over seeds. utilization: time spent on trials that were planned, of all workers' time",
    "longest trials: seconds of the longest trial of each round, one after the other: no number of workers gets below that, unless trials "
    "are run ahead of the plan",
    "foresight: idle workers run trials that will probably be planned. wasted: time spent on such trials that were not, over the time of "
    "all that were. driver: seconds that planning, foresight and journal really took on this machine; they are part of the seconds",
)
