"""From the command line to the files: measure every case in a process of its own, print and write what was found."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scale.measure import LOOKS, SEEDS, measure
from speed.machine import describe_machine, file_system, load_average, results_file
from speed.processes import isolated, say
from speed.results import Comparison, Target, at_most, summary, table

LIMIT = 5.0  # ms a trial in this process, fsync apart
NETWORKED = 20.0  # the same where another engine runs the trials
LOCAL = ("serial", "process")
PARTS = ("pipeline", "executor", "journal", "curve", "fsync")


def run(arguments: argparse.Namespace) -> None:
    counts = sorted(int(count) for count in arguments.trials.split(","))
    if any(count % SEEDS for count in counts):
        raise SystemExit(f"--trials: they run on {SEEDS} seeds, so that each number is a multiple of {SEEDS}")
    cases = [_case(text) for text in arguments.executors.split(",")]
    machine: dict[str, Any] = {**describe_machine(), "load average before": load_average()}
    out = arguments.out or results_file("scale", machine)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hptune-scale-", dir=arguments.folder) as folder:
        machine["file system"] = file_system(Path(folder))
        found: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in cases}
        for case in cases:
            for trials in counts:
                root = Path(folder) / f"{case[0]}-{case[1]}-{trials}"
                found[case].append(isolated(measure, trials, *case, str(root), arguments.report))
                say(f"{_name(case)}: {trials} trials, {_own_time(found[case][-1], trials):.2f} ms each, fsync apart")
    machine["load average after"] = load_average()
    comparisons = (_costs(counts, found), _memory(counts, found), _reading(counts, found))
    text = _markdown(comparisons, machine, time.perf_counter() - began)
    out.parent.mkdir(parents=True, exist_ok=True)
    raw = [{"executor": _name(case), "trials": count, **one} for case, own in found.items() for count, one in zip(counts, own, strict=True)]
    out.write_text(json.dumps({"machine": machine, "measured": raw}, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {out} and {out.with_suffix('.md').name}")


def _case(text: str) -> tuple[str, int]:
    name, _, workers = text.strip().partition(":")
    return name, int(workers or 1)


def _name(case: tuple[str, int]) -> str:
    return case[0] if case[0] == "serial" else f"{case[0]}, {case[1]} worker{'s' * (case[1] > 1)}"


def _own_time(one: Mapping[str, Any], trials: int) -> float:
    """Milliseconds a trial, fsync apart."""
    return 1000 * sum(one["parts"][part] for part in PARTS if part != "fsync") / trials


def _costs(counts: Sequence[int], found: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Comparison:
    rows, targets = [], []
    for case, own in found.items():
        for count, one in zip(counts, own, strict=True):
            cells = {part: round(1000 * one["parts"][part] / count, 3) for part in PARTS}
            rows.append({"run by": _name(case), "trials": count, "all but fsync": round(_own_time(one, count), 2), **cells})
        limit = LIMIT if case[0] in LOCAL else NETWORKED
        targets.append(at_most(f"{_name(case)}: ms a trial with {counts[-1]} trials, fsync apart", limit, _own_time(own[-1], counts[-1])))
        slower = _own_time(own[-1], counts[-1]) / _own_time(own[0], counts[0])
        targets.append(Target(what=f"{_name(case)}: {counts[-1]} trials over {counts[0]}, time a trial", wanted="about 1",
                              measured=f"{slower:.2f}", met=None))  # fmt: skip
    return Comparison(
        name="cost",
        title="Milliseconds a trial",
        rows=tuple(rows),
        targets=tuple(targets),
        notes=(
            "pipeline: planning, rounds, identities and records, ranking and conclusion; executor: the wait for a result, which is what "
            "the training took where it is worked out elsewhere, and without it where it is worked out here (serial)",
            "journal: a record's line written and taken in; curve: a file of 40 rows, renamed into place; fsync: of journal, curve "
            "and folder, three a trial",
        ),
    )


def _memory(counts: Sequence[int], found: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Comparison:
    rows = []
    for case, own in found.items():
        for count, one in zip(counts, own, strict=True):
            sizes = {"before": one["memory"]["before"], "largest": one["memory"]["sweep"], "journal": one["sizes"]["journal"] / 2**20}
            sizes |= {"after reading": one["reading"]["memory"]} if one["reading"] else {}
            rows.append({"run by": _name(case), "trials": count, **{f"{name}, MiB": round(size, 1) for name, size in sizes.items()}})
    slopes = [
        {"run by": _name(case), "KiB more a trial": round(1024 * (own[-1]["memory"]["sweep"] - own[0]["memory"]["sweep"]) / more, 1)}
        for case, own in found.items()
        if (more := counts[-1] - counts[0])
    ]
    return Comparison(
        name="memory",
        title="Largest resident memory of the driver",
        rows=(*rows, *slopes),
        notes=(
            "no torch in this process, which a search has besides; a record is kept once, for ranking, and once more by what shows "
            "progress; after reading: with the report's charts drawn",
        ),
    )


def _reading(counts: Sequence[int], found: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Comparison:
    own = next((own for own in found.values() if own[0]["reading"]), ())
    rows = []
    for count, one in zip(counts, own, strict=False):
        seconds = {what: round(value, 2) for what, value in one["reading"].items() if what != "memory"}
        looks = one["looking"]
        rows.append({"trials": count, **seconds, "a terminal's longest look": round(looks["longest"], 3), "looks": looks["looks"]})
    return Comparison(
        name="reading",
        title="Seconds of what is done with a run directory",
        rows=tuple(rows),
        notes=(
            "decode: every record from its line; load: replay, and all stages concluded afresh; rank: the sweep's conclusion; resume: what "
            "a continued run does first; tables: with recommended.yaml; report: page and pictures of three stages",
            f"a terminal looks every {LOOKS} s; of many trials it seeks the best less often",
        ),
    )


def _markdown(comparisons: Sequence[Comparison], machine: Mapping[str, Any], seconds: float) -> str:
    blocks = ["# Scale", table([{"": key, "value": value} for key, value in machine.items()]), "## Targets", summary(comparisons)]
    for found in comparisons:
        blocks += [f"## {found.title}", table(found.rows), "\n".join(f"- {note}" for note in found.notes)]
    return "\n\n".join(block for block in [*blocks, f"Took {seconds:.0f} s."] if block) + "\n"
