"""A run as its journal tells it line by line: what happened, where it stands, and whether it has ended. No terminal, no files, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hptune.cli import words
from hptune.cli.progress import trial_line
from hptune.store.journal import JournalState
from hptune.trial import TrialRecord

QUIET = 3  # looks at a run without a holder and without a new line after which it has ended: --fresh lets go for a moment


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, in a line of text."""

    kind: Literal["plan", "trial", "conclusion", "weights"]
    text: str


@dataclass(slots=True)
class Follower:
    """Takes the journal's lines in their order. `stage` is the one planned last, `best` its best trial so far."""

    path: Path
    state: JournalState = field(init=False)
    stage: str = ""
    best: TrialRecord | None = None
    _quiet: int = 0

    def __post_init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forget everything: the journal was replaced."""
        self.state, self.stage, self.best, self._quiet = JournalState(self.path), "", None, 0

    def take(self, lines: Iterable[bytes]) -> Iterator[Happening]:
        """Follow new complete lines, and yield what they say. Raises DamagedLineError, naming the line, for one that is damaged."""
        for line in lines:
            before = len(self.state.records)
            self.state.add(line)
            payload: dict[str, Any] = json.loads(line)
            match payload["kind"]:
                case "plan":
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
        return list(plan["trials"]) if plan else []

    @property
    def done(self) -> int:
        """How many of them are done."""
        return sum(trial in self.state.records for trial in self.planned)

    @property
    def concluded(self) -> int:
        """Stages that concluded from all their planned trials."""
        plans, conclusions = self.state.plans, self.state.conclusions
        return sum(conclusions.get(name, {}).get("trials") == len(plan["trials"]) for name, plan in plans.items())

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

    def line(self, width: int, silence: float | None, holder: str) -> str:
        """Where the run stands, in as much as `width` holds; `silence`: seconds since the journal was last written."""
        best, planned = self.best, self.planned  # a terminal asks for the line from a thread of its own
        stage = self.stage.replace("_", " ") if self.stage in words.TITLES else self.stage
        parts = [stage, f"{self.done}/{len(planned)} trials" if stage else ""]
        parts.append(f"best loss {words.number(best.val_loss)}" if best else "")
        parts.append(f"last record {words.clock(silence)} ago" if silence is not None else "")
        parts.append(holder or "no process writes it")
        if best is not None:
            parts.append(", ".join(words.hyperparameters(best.spec.hyperparameters).values()))
        return words.fitting(parts, width)

    def _planned(self, stage: str) -> Happening:
        if stage != self.stage:
            self.stage = stage
        records = [self.state.records[trial] for trial in self.planned if trial in self.state.records]
        self.best = None
        for record in records:
            self._compare(record)
        known = f", {len(records)} of them done" if records else ""
        return Happening("plan", f"{words.title(stage)}: {words.count(len(self.planned), 'trial')} planned{known}")

    def _tried(self, record: TrialRecord, trial_id: str) -> Happening:
        h = words.hyperparameters(record.spec.hyperparameters)
        ramp = record.spec.schedule.kind == "ramp"
        tried = f"LR ramp to {words.number(record.spec.hyperparameters.lr)}" if ramp else ", ".join(h.values())
        if trial_id not in self.planned:
            return Happening("trial", f"full training: {trial_line(tried, record)}")
        self._compare(record)
        return Happening("trial", f"{words.title(self.stage)} {self.done}/{len(self.planned)}  {trial_line(tried, record)}")

    def _compare(self, record: TrialRecord) -> None:
        ranked = record.usable and record.spec.schedule.kind != "ramp"
        if ranked and (self.best is None or record.val_loss < self.best.val_loss):
            self.best = record


def _finding(conclusion: Mapping[str, Any]) -> str:
    title, sentence = words.title(conclusion["stage"]), str(conclusion.get("sentence", ""))
    return sentence if sentence.startswith(title) else f"{title}: {sentence}"
