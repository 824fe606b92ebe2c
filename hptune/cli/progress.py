"""A search as it happens: how far the stage is, what is best so far, how much time is left; and the lines that show it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hptune.analysis.race import Leader
from hptune.cli import words
from hptune.cli.console import Console
from hptune.cli.results import finding, stage_table
from hptune.cli.summary import show_plots
from hptune.running import Event, Remark, RoundPlanned, StageConcluded, StageStarted, TrialDone
from hptune.schedules import Schedule
from hptune.stages.base import FRESH_REPETITIONS, LONGER_REPETITIONS, Knowledge
from hptune.stages.rounds import leading
from hptune.trial import Hyperparameters, TrialRecord

Clock = Callable[[], float]
WIDE = 100  # columns from which a bar has its full length
NEEDED = 40  # columns for how far a stage is, beside its heading
LATEST = 16  # trials whose workers are taken for those at work
PACE = 1000.0  # trials a second that a terminal may compare anew: of 10,000, which takes a tenth of a second, the best is sought every 10 s


@dataclass(slots=True)
class Tracker:
    """Where the search stands.

    `stages` are those still to come or under way, `where` is the device, `workers` says how much of a cluster there is, `records` are the
    stage's trials so far.
    """

    stages: tuple[str, ...] = ()
    where: str = ""
    workers: str = ""
    stage: str = ""
    planned: int = 0
    known: int = 0
    done: int = 0
    began: float = 0.0
    knowledge: Knowledge | None = None
    records: list[TrialRecord] = field(default_factory=list)
    _best: tuple[tuple[str, int], Leader | None] = (("", 0), None)  # of a stage with so many records
    _sought: float = -math.inf  # when
    _swept: Mapping[Hashable, Any] = field(default_factory=dict)

    def take(self, event: Event, now: float) -> None:
        """Follow one event that happened at `now` (seconds of any clock that never goes back)."""
        match event:
            case StageStarted():
                self.stage, self.planned, self.known, self.done, self.began = event.stage, 0, 0, 0, now
                self.knowledge, self.records = event.knowledge, []
                self._best, self._sought, self._swept = (("", 0), None), -math.inf, _swept(event.knowledge)
            case RoundPlanned():
                self.planned += event.trials
                self.known += len(event.known)
                self.records += event.known
            case TrialDone():
                self.done += 1
                self.records.append(event.record)
            case _:
                pass

    def seconds_left(self, now: float) -> float | None:
        """Time until the trials planned so far are done, from this stage's pace; None before its first trial."""
        if self.done == 0:
            return None
        return (now - self.began) / self.done * (self.planned - self.known - self.done)

    @property
    def best(self) -> Leader | None:
        """The best candidate of the stage so far."""
        records = tuple(self.records)
        now = self.stage, len(records)
        if self.knowledge is not None and self._best[0] != now:
            self._best = now, leading(self.knowledge, records)
        return self._best[1]

    def tried(self, record: TrialRecord) -> str:
        """What a trial tried: the swept key's value where there is one, and the hyper-parameters."""
        spec = record.spec
        h = spec.hyperparameters
        if spec.schedule.kind == "ramp":
            return f"LR ramp {words.number(spec.schedule.min_lr)} to {words.number(h.lr)}"
        own = (spec.task, h, spec.schedule)
        value = [f"{self.stage} {self._swept[own]}"] if own in self._swept else []
        return ", ".join([*value, *words.hyperparameters(h).values()])

    def heading(self) -> str:
        """`stage 2 of 6: batch size`, or the stage alone."""
        if len(self.stages) < 2 or self.stage not in self.stages:
            return words.title(self.stage)
        return f"stage {self.stages.index(self.stage) + 1} of {len(self.stages)}: {words.title(self.stage)}"

    def lines(self, now: float, width: int) -> str:
        """The lines at the bottom of a terminal, how far it is and what is best: as much as `width` holds, the most important first."""
        if not self.stage:
            return ""
        finished, left = self.known + self.done, self.seconds_left(now)
        parts = [self.heading() if width > len(self.heading()) + NEEDED else words.title(self.stage)]
        bar = words.bar(finished, self.planned, words.BAR if width >= WIDE else words.BAR // 2)
        parts.append(f"{bar} {finished}/{self.planned} trials")
        parts.append(f"{words.clock(left)} left" if left is not None else words.clock(now - self.began))
        if now - self._sought >= len(self.records) / PACE:
            self._sought, best = now, self.best
        else:
            best = self._best[1]
        return two_lines([*parts, self.workers, speed(self.records), self.where], best, width)


def _swept(k: Knowledge) -> dict[Hashable, Any]:
    """The value of the swept key by what it makes of a trial; empty where none is swept."""
    found: dict[Hashable, Any] = {}
    for variant in k.settings.get("variants", ()):
        schedule = Schedule.from_json(variant["schedule"])
        found[variant["task"], Hyperparameters(**variant["hyperparameters"]), schedule] = variant["value"]
    return found


def follow(
    events: Iterable[Event],
    console: Console,
    *,
    stages: tuple[str, ...],
    where: str,
    metric: str,
    workers: Callable[[], str] = lambda: "",
    clock: Clock = time.monotonic,
) -> None:
    """Print a search while it runs: live lines and plots on a terminal, a line a trial elsewhere; each conclusion with its table.

    `where` says on which device trials run, `workers` how much of a cluster they have at the moment.
    """
    tracker = Tracker(stages=stages, where=where)

    def lines(width: int) -> str:
        tracker.workers = workers()
        return tracker.lines(clock(), width)

    with console.live_line(lines):
        for event in events:
            tracker.take(event, clock())
            _print_event(event, tracker, console, metric)


def two_lines(parts: Sequence[str], best: Leader | None, width: int) -> str:
    """How far a stage is, and below it, once there is one, what is best so far; where no interval can be given, it says so.

    What the first line does not hold stands in the second where that has room.
    """
    first = words.fitting(parts, width)
    if best is None:
        return first
    low, high = words.number(best.val_loss_low), words.number(best.val_loss_high)
    interval = f"[{low}, {high}]" if low and high else "(noise not known yet)"
    found = [f"best loss {words.number(best.val_loss)} {interval}", *words.hyperparameters(best.hyperparameters).values()]
    return f"{first}\n{words.fitting([*found, *(part for part in parts if part not in first)], width)}"


def speed(records: Sequence[TrialRecord]) -> str:
    """Training samples a second, evaluation included, of all workers that the latest trials were run by; nothing before the first."""
    total = samples_per_second(records)
    return f"{total:,.0f} samples/s" if total > 0 else ""


def samples_per_second(records: Sequence[TrialRecord]) -> float:
    """The sum over those workers of the speed of the trial each ran last."""
    return sum({record.worker: record.samples_per_second for record in records[-LATEST:]}.values())


def trial_line(tried: str, record: TrialRecord) -> str:
    """One finished trial: what was `tried`, and what came out."""
    spec = record.spec
    outcome = f"loss {words.number(record.val_loss)}" if record.usable else record.status.replace("_", " ")
    if record.status == "failed" and record.error:
        outcome += f" ({record.error.splitlines()[-1]})"
    elif record.status != "completed":
        outcome += f" after {words.count(record.steps, 'step')}"
    took = f"{words.duration(record.seconds)}{f' on {record.host}' if record.host else ''}"
    return f"{tried}, {words.count(spec.steps, 'step')}, {seed_name(spec.repetition)}: {outcome} ({took})"


def seed_name(repetition: int) -> str:
    """Which seed a repetition ran on: longer runs have seeds of their own, and so has confirm."""
    first = max(first for first in (0, LONGER_REPETITIONS, FRESH_REPETITIONS) if first <= repetition)
    return f"{'fresh ' if first else ''}seed {repetition - first + 1}"


def _print_event(event: Event, tracker: Tracker, console: Console, metric: str) -> None:
    match event:
        case StageStarted():
            console.remark()
            console.remark(tracker.heading(), "bold")
            console.remark(words.starts_from(event.knowledge), "dim")
        case RoundPlanned() if 0 < len(event.known) < event.trials and not console.live:
            console.remark(f"{words.count(len(event.known), 'trial')} of {event.trials} already done")
        case TrialDone() if not console.live or console.verbose:
            console.remark(f"{tracker.known + tracker.done}/{tracker.planned}  {trial_line(tracker.tried(event.record), event.record)}")
        case StageConcluded():
            conclusion = event.conclusion
            console.say(finding(conclusion), "bold")
            for note in conclusion.notes:
                console.say(f"note: {note}", "yellow")
            if not console.quiet:
                show_plots(conclusion, tracker.records, console)
                console.table(stage_table(conclusion, metric))
        case Remark():
            console.remark(event.text, "yellow")
        case _:
            pass
