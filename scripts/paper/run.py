"""From the command line to the files: perform what each claim asks for, judge it, write what was found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar

from hptune.cores import available_cores
from hptune.engine.numerics import resolve_device
from hptune.errors import DataError, HptuneError, InputError, StageError
from hptune.store.layout import write_atomic
from paper.claims import CLAIMS, Claim
from paper.document import estimate, write
from paper.evidence import Outcome
from paper.performers import Lists, MissingError, Performer, Place, Reads, Trains, answered
from paper.prepare import prepare
from paper.setups import SCALES
from speed.machine import describe_machine
from speed.processes import say
from speed.results import table

ORDER = (1, 3, 5, 6, 7, 4, 2, 8)  # what decides most for its cost comes first
Piece = tuple[Claim, Place]
P = TypeVar("P")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for. Raises SystemExit as hptune's commands end: 2 wrong input, 1 failed, 130 interrupted."""
    pieces = _pieces(arguments)
    try:
        for path in {Path(place.config().experiment.data.path or "") for _, place in pieces} if arguments.download else ():
            say(f"{path}: {'made' if prepare(path) else 'is there'}")
        if arguments.list:
            print(_listed(pieces, timed=arguments.scale == "cpu" or resolve_device(arguments.device).type != "cpu"))
        else:
            _perform(arguments, pieces)
    except HptuneError as error:
        say(str(error))
        raise SystemExit(2 if isinstance(error, InputError) else 1) from error
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        raise SystemExit(130) from None


def _pieces(arguments: argparse.Namespace) -> list[Piece]:
    setups = {setup.name: setup for setup in SCALES[arguments.scale]}
    names = _chosen("--setups", arguments.setups, list(setups))
    numbers = [int(number) for number in _chosen("--claims", arguments.claims, [str(number) for number in ORDER])]
    folder = arguments.folder / arguments.scale
    places = {name: Place(setup=setups[name], folder=folder, device=arguments.device, workers=arguments.workers) for name in names}
    pieces = [(CLAIMS[number], place) for name, place in places.items() for number in numbers if number in setups[name].claims]
    if not pieces:
        tried = "; ".join(f"{name}: {', '.join(map(str, setups[name].claims))}" for name in names)
        say(f"none of these claims is tried there. The claims by setup: {tried}")
        raise SystemExit(2)
    return pieces


def _chosen(option: str, text: str | None, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else known
    if unknown := [name for name in names if name not in known]:
        say(f"{option}: unknown {', '.join(unknown)}: use {', '.join(known)}")
        raise SystemExit(2)
    return names


def _listed(pieces: list[Piece], *, timed: bool) -> str:
    """What each claim costs in each setup; what an earlier one trains is not counted again. `timed`: in hours of this machine, too."""
    rows: list[dict[str, str]] = []
    total, lists = 0.0, _Opened(lambda place: Lists(place, timed=timed))
    for claim, place in pieces:
        row = {"claim": str(claim.number), "": claim.title, "setup": place.setup.title}
        asked = lists.of(place)
        if asked is None:
            rows.append({**row, "hours": "its data are missing"})
            continue
        trials, samples, raced = len(asked.trials), asked.samples, asked.raced
        answered(claim.ask(asked.lab), asked)
        samples = asked.samples - samples
        hours = (samples * asked.seconds_per_sample if samples else 0.0) / 3600 + (asked.raced - raced) / 3600
        total += hours
        cost = {"trials": str(len(asked.trials) - trials), "full trainings": f"{samples / asked.full:.1f}"}
        rows.append({**row, **cost, "hours": f"{hours:.2f}" if timed else ""})
    return f"{table(rows)}\n\n{_in_all(total, pieces[0][1]) if timed else 'no GPU here to measure hours on'}"


def _in_all(hours: float, place: Place) -> str:
    """All hours together; on a CPU, where as many trials as there are cores run at once unless told otherwise, also those that pass."""
    said = f"in all about {hours:.1f} h, one trial at a time"
    if resolve_device(place.device).type != "cpu":
        return said
    workers = available_cores() if place.workers == "auto" else int(place.workers)
    return f"{said}; {hours / workers:.1f} h with {workers} at once, if that slows none down" if workers > 1 else said


def _perform(arguments: argparse.Namespace, pieces: list[Piece]) -> None:
    with ExitStack() as stack:
        make: Callable[[Place], Performer] = Reads if arguments.known else lambda place: stack.enter_context(Trains(place))
        performers = _Opened(make)
        for claim, place in pieces:
            say(f"claim {claim.number}, {place.setup.title}")
            performer = performers.of(place)
            if performer is None:
                continue
            try:
                outcome = answered(claim.ask(performer.lab), performer)
            except (MissingError, StageError) as error:
                say(f"  left out: {error}")
                continue
            for finding in outcome.findings:
                say(f"  {finding.statement}: {estimate(asdict(finding.ours), finding.unit)}: {finding.verdict}")
            _keep(arguments.out, arguments.scale, claim.number, place.setup.name, outcome)


class _Opened(Generic[P]):
    """Performers by setup, each opened once; None where the data are not at hand."""

    def __init__(self, make: Callable[[Place], P]) -> None:
        self._make, self._held = make, dict[Path, P | None]()

    def of(self, place: Place) -> P | None:
        if place.trials not in self._held:
            try:
                self._held[place.trials] = self._make(place)
            except DataError as error:
                say(f"{place.setup.title} is left out: {error}")
                self._held[place.trials] = None
        return self._held[place.trials]


def _keep(out: Path, scale: str, number: int, setup: str, outcome: Outcome) -> None:
    """Add what a claim came to to what is there of others, and write everything that follows from it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"paper-{scale}.json"
    others = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    new = {"claim": number, "setup": setup, "machine": describe_machine(), **asdict(outcome)}
    kept = [other for other in others if (other["claim"], other["setup"]) != (number, setup)]
    lines = ",\n".join(json.dumps(own, ensure_ascii=False) for own in sorted([*kept, new], key=lambda o: (o["claim"], o["setup"])))
    write_atomic(path, f"[\n{lines}\n]\n")
    write(out)
