"""The same wide stage under each executor: how long it takes, from what, and whether it ends with the same table."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hptune.config.loader import from_tree
from hptune.cores import available_cores
from hptune.running import StageConcluded, StageStarted, TrialDone
from hptune.session import open_session
from speed.machine import describe_machine, load_average, results_file
from speed.processes import isolated, say, silence
from speed.results import Comparison, at_least, ratios, summary, table

WANTED = {"process": 1.6, "ray": 1.4}  # times serial's speed, on two cores
TIMING = ("seconds", "samples_per_second")


def run(arguments: argparse.Namespace) -> None:
    names = arguments.executors.split(",")
    machine: dict[str, Any] = {**describe_machine(), "load average before": load_average()}
    out = arguments.out or results_file("executors", machine)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="hptune-executors-") as folder, _cluster("ray" in names):
        for turn in range(arguments.turns):
            for name in names:
                root = str(Path(folder) / f"{name}-{turn}")
                found[name].append(isolated(measure, name, arguments.values, arguments.epochs, root))
                say(f"{name}: {found[name][-1]['stage']:.1f} s")
    machine["load average after"] = load_average()
    comparison = _compared(found, arguments)
    text = "\n\n".join(
        [
            "# Executors",
            table([{"": key, "value": value} for key, value in machine.items()]),
            "## Targets",
            summary([comparison]),
            f"## {comparison.title}",
            table(comparison.rows),
            "\n".join(f"- {note}" for note in comparison.notes),
        ]
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "measured": found}, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")
    print(f"{text}\nwritten to {out} and {out.with_suffix('.md').name}")


def measure(name: str, values: int, epochs: float, root: str) -> dict[str, Any]:
    """Run the sweep; seconds of opening, of the stage, of its trials added up, workers, and a hash of its table less timing."""
    tree = {
        "name": "wide",
        "data": {"name": "digits"},
        "model": {"name": "small_cnn", "args": {"width": 16}},
        "budget": {"epochs": epochs, "search_epochs": epochs},
        "seeds": 1,
        "stages": {"momentum": {"values": [round(0.8 + 0.19 * i / values, 4) for i in range(values)]}},  # one round, whatever comes out
        "device": "cpu",
        "executor": {"name": name, "threads": 1},
    }
    began = time.perf_counter()
    marks: dict[str, float] = {}
    records = []
    with silence(), open_session(from_tree(tree, Path(root).parent), run_dir=Path(root)) as session:
        for event in session.run(["momentum"]):
            match event:
                case StageStarted():
                    marks["started"] = time.perf_counter()
                case TrialDone():
                    records.append(event.record)
                case StageConcluded():
                    marks["concluded"] = time.perf_counter()
                case _:
                    pass
        rows = list(csv.DictReader(session.layout.table("momentum", "csv").read_text().splitlines()))
    kept = [{key: value for key, value in row.items() if key not in TIMING} for row in rows]
    return {
        "opening": marks["started"] - began,
        "stage": marks["concluded"] - marks["started"],
        "whole": time.perf_counter() - began,
        "training": sum(record.seconds for record in records),
        "trials": len(records),
        "workers": len({record.worker for record in records}),
        "table": hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16],
    }


@contextmanager
def _cluster(wanted: bool) -> Iterator[None]:
    """Two Ray nodes with half of the cores each, which `auto` finds meanwhile."""
    if not wanted:
        yield
        return
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ray's own
        cores = available_cores()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores - cores // 2})
        cluster.add_node(num_cpus=cores // 2)
        os.environ["RAY_ADDRESS"] = cluster.address
        try:
            yield
        finally:
            del os.environ["RAY_ADDRESS"]
            cluster.shutdown()


def _compared(found: Mapping[str, Sequence[Mapping[str, Any]]], arguments: argparse.Namespace) -> Comparison:
    first, *others = found
    rows, targets = [], []
    for name, own in found.items():
        row: dict[str, Any] = {"executor": name, "workers": max(one["workers"] for one in own)}
        for key in ("opening", "stage", "whole", "training"):
            row[f"{key}, s"] = round(min(one[key] for one in own), 2)
        if name != first:
            row["stage, times faster"] = str(ratios([one["stage"] for one in found[first]], [one["stage"] for one in own]))
            row["same table"] = {one["table"] for one in own} == {one["table"] for one in found[first]}
        rows.append(row)
    for name in others:
        spread = ratios([one["stage"] for one in found[first]], [one["stage"] for one in found[name]])
        if name in WANTED:
            targets.append(at_least(f"{name} over {first}, the stage", WANTED[name], spread.median))
    return Comparison(
        name="executors",
        title=f"A sweep of {arguments.values} momentums, {arguments.epochs:g} epochs each",
        rows=tuple(rows),
        targets=tuple(targets),
        notes=(
            "opening: data, model and workers that load their code; stage: from its start to its conclusion; training: the trials' own "
            "seconds added up, longer where they share caches and memory; the least of all turns",
            "times faster: median [least, most] of the turns",
        ),
    )
