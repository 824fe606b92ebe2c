"""A search as it happens: how far the stage is, what is best so far, how much time is left; and the line that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hptune.cli import words
from hptune.cli.console import Console
from hptune.cli.results import finding, stage_table
from hptune.running import Event, Remark, RoundPlanned, StageConcluded, StageStarted, TrialDone
from hptune.stages.base import FRESH_REPETITIONS, LONGER_REPETITIONS
from hptune.trial import TrialRecord

Clock = Callable[[], float]


@dataclass(slots=True)
class Tracker:
    """Where the search stands; `stages` are those still to come or under way, `where` the device."""

    stages: tuple[str, ...] = ()
    where: str = ""
    stage: str = ""
    planned: int = 0
    known: int = 0
    done: int = 0
    began: float = 0.0
    best: TrialRecord | None = None
    variants: Sequence[Mapping[str, Any]] = ()

    def take(self, event: Event, now: float) -> None:
        """Follow one event that happened at `now` (seconds of any clock that never goes back)."""
        match event:
            case StageStarted():
                self.stage, self.planned, self.known, self.done, self.began, self.best = event.stage, 0, 0, 0, now, None
                self.variants = event.knowledge.settings.get("variants", ())
            case RoundPlanned():
                self.planned += event.trials
                self.known += event.known
            case TrialDone():
                self.done += 1
                ranked = event.record.usable and event.record.spec.schedule.kind != "ramp"
                if ranked and (self.best is None or event.record.val_loss < self.best.val_loss):
                    self.best = event.record
            case _:
                pass

    def seconds_left(self, now: float) -> float | None:
        """Time until the trials planned so far are done, from this stage's pace; None before its first trial."""
        if self.done == 0:
            return None
        return (now - self.began) / self.done * (self.planned - self.known - self.done)

    def tried(self, record: TrialRecord) -> str:
        """What a trial tried: the swept key's value where there is one, and the hyper-parameters."""
        spec = record.spec
        h = spec.hyperparameters
        if spec.schedule.kind == "ramp":
            return f"LR ramp {words.number(spec.schedule.min_lr)} to {words.number(h.lr)}"
        own = (spec.task, asdict(h), asdict(spec.schedule))
        values = [v["value"] for v in self.variants if (v["task"], v["hyperparameters"], v["schedule"]) == own]
        return ", ".join([*(f"{self.stage} {value}" for value in values), *words.hyperparameters(h).values()])

    def heading(self) -> str:
        """`stage 2 of 6: batch size`, or the stage alone."""
        if len(self.stages) < 2 or self.stage not in self.stages:
            return words.title(self.stage)
        return f"stage {self.stages.index(self.stage) + 1} of {len(self.stages)}: {words.title(self.stage)}"

    def line(self, now: float, width: int) -> str:
        """The line of a terminal: as much as `width` holds, the most important first."""
        if not self.stage:
            return ""
        finished = self.known + self.done
        parts = [words.title(self.stage), f"{words.bar(finished, self.planned)} {finished}/{self.planned} trials"]
        left = self.seconds_left(now)
        parts.append(f"{words.clock(left)} left" if left is not None else words.clock(now - self.began))
        if self.best is not None:
            parts.append(f"best loss {words.number(self.best.val_loss)}")
            parts.append(", ".join(words.hyperparameters(self.best.spec.hyperparameters).values()))
        parts.append(self.where)
        return words.fitting(parts, width)


def follow(
    events: Iterable[Event], console: Console, *, stages: tuple[str, ...], where: str, metric: str, clock: Clock = time.monotonic
) -> None:
    """Print a search while it runs: a live line on a terminal, a line a trial elsewhere, each conclusion with its table."""
    tracker = Tracker(stages=stages, where=where)
    with console.live_line(lambda width: tracker.line(clock(), width)):
        for event in events:
            tracker.take(event, clock())
            _print_event(event, tracker, console, metric)


def trial_line(tried: str, record: TrialRecord) -> str:
    """One finished trial: what was `tried`, and what came out."""
    spec = record.spec
    outcome = f"loss {words.number(record.val_loss)}" if record.usable else record.status.replace("_", " ")
    if record.status == "failed" and record.error:
        outcome += f" ({record.error.splitlines()[-1]})"
    elif record.status != "completed":
        outcome += f" after {words.count(record.steps, 'step')}"
    return f"{tried}, {words.count(spec.steps, 'step')}, {seed_name(spec.repetition)}: {outcome} ({words.duration(record.seconds)})"


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
        case RoundPlanned() if 0 < event.known < event.trials and not console.live:
            console.remark(f"{words.count(event.known, 'trial')} of {event.trials} already done")
        case TrialDone() if not console.live or console.verbose:
            console.remark(f"{tracker.known + tracker.done}/{tracker.planned}  {trial_line(tracker.tried(event.record), event.record)}")
        case StageConcluded():
            conclusion = event.conclusion
            console.say(finding(conclusion), "bold")
            for note in conclusion.notes:
                console.say(f"note: {note}", "yellow")
            if not console.quiet:
                ranges = conclusion.detail.get("ranges", ())
                console.verbatim(words.range_plot(ranges, conclusion.detail.get("suggested")))
                console.table(stage_table(conclusion, metric))
        case Remark():
            console.remark(event.text, "yellow")
        case _:
            pass
