"""A full training as it happens: a line an epoch, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hptune.cli import words
from hptune.cli.console import Console
from hptune.schedules import tabulate
from hptune.trial import TrialSpec

if TYPE_CHECKING:
    from hptune.engine.full import Progress


class TrainingReport:
    """The callback of a training: prints each epoch once it is over; `line` is what stands below meanwhile."""

    def __init__(self, spec: TrialSpec, epochs: float, console: Console, metric: str) -> None:
        h = spec.hyperparameters
        self._rates = tabulate(spec.schedule, steps=spec.steps, lr=h.lr, momentum=h.momentum, momentum_min=h.momentum_min).lr
        self._epochs = epochs
        self._metric = metric
        self._console = console
        self._printed = 0
        self._first: Progress | None = None
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take in how far the training is."""
        self._first, self._latest = self._first or progress, progress
        for note in progress.notes:
            self._console.say(note, "yellow")
        if progress.done and (int(progress.epoch) > self._printed or progress.done == progress.steps):
            self._printed = int(progress.epoch)
            self._console.remark(self._epoch(progress))

    def line(self, width: int) -> str:
        """Steps done and time left, from the pace since this call began."""
        if self._first is None or self._latest is None:
            return ""
        now, new = self._latest, self._latest.done - self._first.done
        text = f"training  {words.bar(now.done, now.steps)} {now.done:,}/{now.steps:,} steps"
        if new:
            text += f"  {words.clock((now.seconds - self._first.seconds) / new * (now.steps - now.done))} left"
        return text[:width]

    def _epoch(self, progress: Progress) -> str:
        losses = {"train loss": progress.train_loss, "val loss": progress.val_loss, self._metric: progress.metric}
        shown = [f"{name} {words.number(value)}" for name, value in losses.items() if words.number(value)]
        epoch = f"epoch {words.number(progress.epoch)}/{words.number(self._epochs)}"
        return "  ".join([epoch, *shown, f"LR {words.number(float(self._rates[progress.done - 1]))}"])
