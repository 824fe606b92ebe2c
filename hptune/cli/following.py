"""A run as its journal tells it line by line: what happened, where it stands, and whether it has ended. No terminal, no files, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hptune.analysis.race import Leader
from hptune.cli import words
from hptune.cli.progress import speed, trial_line, two_lines
from hptune.stages.base import Knowledge
from hptune.stages.rounds import leading
from hptune.store.journal import JournalState
from hptune.trial import TrialRecord

SHORT = 10  # characters of a bar: who writes the run must fit beside it
QUIET = 3  # looks at a run without a holder and without a new line after which it has ended: --fresh lets go for a moment


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, in a line of text."""

    kind: Literal["plan", "trial", "conclusion", "weights"]
    text: str


@dataclass(slots=True)
class Follower:
    """Takes the journal's lines in their order. `stage` is the one planned last."""

    path: Path
    state: JournalState = field(init=False)
    stage: str = ""
    _quiet: int = 0
    _best: tuple[object, Leader | None] = (None, None)  # of the plan with so many records
    _waiting: set[str] = field(default_factory=set)  # trials of the stage that are not done

    def __post_init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forget everything: the journal was replaced."""
        self.state, self.stage, self._quiet, self._best, self._waiting = JournalState(self.path), "", 0, (None, None), set()

    def take(self, lines: Iterable[bytes]) -> Iterator[Happening]:
        """Follow new complete lines, and yield what they say. Raises DamagedLineError, naming the line, for one that is damaged."""
        for line in lines:
            before = len(self.state.records)
            self.state.add(line)
            payload: dict[str, Any] = json.loads(line)
            match payload["kind"]:
                case "plan" | "round":
                    yield self._planned(payload["stage"])
                case "trial" if len(self.state.records) > before:  # the first of an id counts
                    yield self._tried(self.state.records[payload["trial_id"]], payload["trial_id"])
                case "conclusion":
                    yield Happening("conclusion", _finding(payload))
                case "weights":
                    yield Happening("weights", "full training: its weights are saved")

    @property
    def planned(self) -> list[str]:
        """The trials of the stage, by id."""
        plan = self.state.plans.get(self.stage)
        return plan["trials"] if plan else []

    @property
    def done(self) -> int:
        """How many of them are done."""
        return len(self.planned) - len(self._waiting)

    @property
    def concluded(self) -> int:
        """Stages that concluded from all their planned trials."""
        plans, conclusions = self.state.plans, self.state.conclusions
        return sum(conclusions.get(name, {}).get("trials") == len(plan["trials"]) for name, plan in plans.items())

    @property
    def whole(self) -> bool:
        """Whether every stage that was planned has concluded."""
        return self.concluded == len(self.state.plans)

    def ended(self, news: bool, held: bool) -> bool:
        """Whether the run has ended, after one more look at it: nobody held it and nothing was new several times in a row."""
        self._quiet = 0 if news or held else self._quiet + 1
        return self._quiet >= QUIET

    def standing(self) -> str:
        """All that was done so far, in one line."""
        parts = [words.count(len(self.state.records), "trial"), f"{words.count(self.concluded, 'stage')} concluded"]
        if self.stage and self.state.conclusions.get(self.stage, {}).get("trials") != len(self.planned):
            parts.append(f"{words.title(self.stage)} at {self.done} of {len(self.planned)} planned trials")
        return ", ".join(parts)

    def findings(self) -> list[str]:
        """The latest conclusion of each stage."""
        return [_finding(payload) for payload in self.state.conclusions.values()]

    @property
    def records(self) -> list[TrialRecord]:
        """The trials of the stage that are done, in the order of the plan."""
        return [self.state.records[trial] for trial in self.planned if trial in self.state.records]

    @property
    def best(self) -> Leader | None:
        """The stage's best candidate so far, worked out when it is asked for."""
        plan, records = self.state.plans.get(self.stage), self.records
        now = id(plan), len(records)
        if plan is not None and self._best[0] != now:
            self._best = now, leading(Knowledge.from_json(plan["knowledge"]), records)
        return self._best[1]

    def lines(self, width: int, holder: str, silence: float | None) -> str:
        """Where the run stands, in as much as `width` holds; `silence`: seconds since the journal was last written."""
        records, planned = self.records, len(self.planned)  # a terminal asks from a thread of its own
        stage = self.stage.replace("_", " ") if self.stage in words.TITLES else self.stage
        parts = [stage, f"{words.bar(len(records), planned, SHORT)} {len(records)}/{planned} trials"] if self.stage else []
        parts.append(f"last record {words.clock(silence)} ago" if silence is not None else "")
        parts.append(holder or "no process writes it")
        return two_lines([*parts, speed(records), words.device(records[-1].spec.numerics) if records else ""], self.best, width)

    def _planned(self, stage: str) -> Happening:
        if stage != self.stage:
            self.stage = stage
        self._waiting = {trial for trial in self.planned if trial not in self.state.records}
        known = f", {self.done} of them done" if self.done else ""
        return Happening("plan", f"{words.title(stage)}: {words.count(len(self.planned), 'trial')} planned{known}")

    def _tried(self, record: TrialRecord, trial_id: str) -> Happening:
        h = words.hyperparameters(record.spec.hyperparameters)
        ramp = record.spec.schedule.kind == "ramp"
        tried = f"LR ramp to {words.number(record.spec.hyperparameters.lr)}" if ramp else ", ".join(h.values())
        if trial_id not in self._waiting:
            return Happening("trial", f"full training: {trial_line(tried, record)}")
        self._waiting.remove(trial_id)
        return Happening("trial", f"{words.title(self.stage)} {self.done}/{len(self.planned)}  {trial_line(tried, record)}")


def _finding(conclusion: Mapping[str, Any]) -> str:
    title, sentence = words.title(conclusion["stage"]), str(conclusion.get("sentence", ""))
    return sentence if sentence.startswith(title) else f"{title}: {sentence}"
