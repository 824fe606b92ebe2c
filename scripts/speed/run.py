"""From the command line to the files: run the comparisons asked for, print and write what they found."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from speed.data import NETS
from speed.machine import describe_machine, has_bf16, load_average, results_file
from speed.options import Options
from speed.processes import say
from speed.results import Comparison, markdown, summary

COMPARISONS = ("bare", "equivalence", "ranges", "search", "growth")


def run(arguments: argparse.Namespace) -> None:
    names, nets = (
        _names(arguments.only, COMPARISONS, "--only"),
        _names(arguments.nets or ("mlp,small_cnn" if arguments.quick else ",".join(NETS)), NETS, "--nets"),
    )
    if "bare" in names and has_bf16() and "equivalence" not in names:
        names = [*names, "equivalence"]  # a faster precision is worth what it trains to
    machine: dict[str, Any] = {**describe_machine(), "load average before": load_average()}
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    machine["mode"] = f"{'quick, ' if arguments.quick else ''}{repetitions} repetition(s)"
    out = arguments.out or results_file("speed", machine)
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="hptune-speed-") as folder:
        options = Options(repetitions=repetitions, quick=arguments.quick, nets=tuple(nets), folder=Path(folder))
        for name in [known for known in COMPARISONS if known in names]:
            say(name)
            found.append(_compare(name)(options))
            machine["load average after"] = load_average()
            _write(out, found, machine)  # each time: whatever ends a later comparison does not take the earlier ones along
    print(markdown(found, machine))
    print(f"targets\n\n{summary(found)}\n\nwritten to {out} and {out.with_suffix('.md').name}")


def _compare(name: str) -> Callable[[Options], Comparison]:
    function: Callable[[Options], Comparison] = import_module(f"speed.{name}").compare
    return function


def _names(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"{option}: unknown {', '.join(unknown)}: use {', '.join(known)}")
    return names


def _write(out: Path, found: Sequence[Comparison], machine: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "comparisons": [asdict(c) for c in found]}, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(markdown(found, machine), encoding="utf-8")
