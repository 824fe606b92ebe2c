"""From the command line to the files: run what is missing on all cores, print and write the verdicts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from contest.chart import draw
from contest.compare import Row, Wanted, compare
from contest.jobs import JOBS, Job
from contest.searches import PEERS
from contest.verdicts import by_job, overall, targets
from hptune.executors.factory import available_cores
from speed.machine import describe_machine, results_file
from speed.processes import say
from speed.results import table

QUICK_JOBS = ("digits-cnn", "magic-adamw", "digits-mlp", "housing")
QUICK = Wanted(budgets=(8, 16), peers=("tpe",), times=(1,))
FULL = Wanted(budgets=(8, 16, 32), peers=tuple(PEERS), confirm=(16,))
HIDDEN = ("low", "high")  # columns for the targets


def run(arguments: argparse.Namespace) -> None:
    wanted = _wanted(arguments)
    jobs, left_out = _jobs(arguments.jobs, arguments.quick)
    repetitions = arguments.repetitions or (3 if arguments.quick else 10)
    machine = {**describe_machine(), "mode": f"{'quick, ' if arguments.quick else ''}{repetitions} repetitions from {arguments.first} on"}
    machine["left out, without data"] = ", ".join(left_out) or "nothing"
    out = arguments.out or results_file("search", machine)
    cells = [(job, repetition) for repetition in range(arguments.first, arguments.first + repetitions) for job in jobs]
    rows: list[Row] = []
    with ProcessPoolExecutor(arguments.workers or available_cores(), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(compare, job, repetition, wanted, arguments.folder): (job, repetition) for job, repetition in cells}
        try:
            for done in as_completed(waiting):
                job, repetition = waiting[done]
                rows += done.result()
                say(f"{job.name} {repetition}: {_told(done.result())}")
                _write(out, rows, machine)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what is running ends in peace, what waits is for another time
            raise
    print(_markdown(rows, machine))


def _wanted(arguments: argparse.Namespace) -> Wanted:
    """The comparison asked for; raises SystemExit for what there is not."""
    found = QUICK if arguments.quick else FULL
    if arguments.peers is not None:
        names = tuple(name.strip() for name in arguments.peers.split(";") if name.strip())
        if unknown := [name for name in names if name not in PEERS]:
            raise SystemExit(f"--peers: unknown {'; '.join(unknown)}: use {'; '.join(PEERS)}")
        found = replace(found, peers=names)
    for name in ("budgets", "times", "confirm"):
        if (text := getattr(arguments, name)) is not None:
            found = replace(found, **{name: tuple(int(word) for word in text.split(",") if word)})
    return found


def _told(rows: Sequence[Row]) -> str:
    shown = {(row.search, row.budget): row.loss for row in rows if row.times == 1 and row.search in ("hptune", "tpe", "baseline")}
    return ", ".join(f"{search} {budget}: {loss:.4g}" for (search, budget), loss in shown.items())


def _jobs(text: str | None, quick: bool) -> tuple[list[Job], list[str]]:
    """The jobs asked for whose data are at hand, and the names of the others."""
    names = [name.strip() for name in text.split(",")] if text else list(QUICK_JOBS) if quick else [job.name for job in JOBS]
    known = {job.name: job for job in JOBS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--jobs: unknown {', '.join(unknown)}: use {', '.join(known)}")
    found = [known[name] for name in names]
    missing = [job.name for job in found if job.pool() is None]
    if missing:
        say(f"left out, their data are not in HPTUNE_DATA: {', '.join(missing)}")
    return [job for job in found if job.name not in missing], missing


def _write(out: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(row)) for row in sorted(rows, key=lambda r: (r.job, r.repetition)))
    out.write_text(f'{{"machine": {json.dumps(machine)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    out.with_suffix(".md").write_text(_markdown(rows, machine), encoding="utf-8")
    draw(rows, out.with_suffix(".png"))


def _markdown(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    compared = overall(rows)
    verdicts = [{"target": t.what, "wanted": t.wanted, "measured": t.measured, "": t.verdict} for t in targets(rows, compared)]
    blocks = [
        "# Searches compared",
        table([{"": key, "value": value} for key, value in machine.items()]),
        "## Targets",
        table(verdicts),
        "## hptune's final test loss over others'",
        table([{key: value for key, value in entry.items() if key not in HIDDEN} for entry in compared]),
        "## Job by job, at equal cost",
        table(by_job(rows)),
        "\n".join(f"- {note}" for note in NOTES),
    ]
    return "\n\n".join(blocks) + "\n"


NOTES = (
    "ratios below 1 are in hptune's favour: geometric means over repetitions, then over jobs; brackets: bootstrap 95 % over repetitions",
    "the loss is that of the test part after a training at full length with the recommended configuration, geometric mean over 2 seeds "
    "that no search has seen; a training that diverges counts with the loss of chance",
    "cost: samples trained on, and a third of the samples measured, range tests included; in short runs measured once, at their end",
    "all searches use the same engine, schedule, data, seeds and ranges; the others train one seed a configuration and measure it once "
    "(hyperband six times), hptune measures as often as its stages do",
    "confirmed: the three best candidates of a search and the baseline at full length on 2 paired seeds, by the code of the stage confirm; "
    "such searches are compared with hptune confirmed likewise",
    "excess ratio: hptune's mean excess over the lowest loss known of each repetition, over the other's",
)
