"""What every export is made from."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import PurePath

from hptune.config.schema import Component, Loss, Model, Optimizer
from hptune.report.recommended import require_recommendation, verdict
from hptune.report.run import Run
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics
from hptune.version import __version__

WIDTH = 120  # of comment lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The recommended training.

    `train_samples`: size of the search's training part. `classes`: of the data, 0 for regression. `loss`: None where the user's own
    step computes it. `augment`: as in the config. `header`: sentences on where the settings come from.
    """

    hyperparameters: Hyperparameters
    epochs: float
    train_samples: int
    optimizer: Optimizer
    schedule: Schedule
    model: Model
    numerics: Numerics
    seed: int
    header: tuple[str, ...]
    loss: Loss | None
    classes: int = 0
    augment: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps on the search's training part; the ragged last batch of an epoch is dropped."""
        return self.steps_in(self.epochs)

    @property
    def accumulation(self) -> int:
        """Equal pieces a batch is split into, so that none is larger than the search's micro-batch; 1 where it had none."""
        size, largest = self.hyperparameters.batch_size, self.numerics.micro_batch or self.hyperparameters.batch_size
        return next(pieces for pieces in range(1, size + 1) if size % pieces == 0 and size // pieces <= largest)

    def steps_in(self, epochs: float) -> int:
        """Optimizer steps of so many epochs, at least one."""
        return max(1, round(epochs * (self.train_samples // self.hyperparameters.batch_size)))

    def comment(self, *more: str) -> str:
        """The header and `more` as comment lines of Python and shell."""
        texts = [line for text in (*self.header, *more) for line in text.splitlines()]
        lines = [line for text in texts for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)]
        return "".join(f"# {line}\n" for line in lines)


def settings_of(run: Run) -> Settings:
    """Collect the recommended training. Raises InputError where the run has no recommendation."""
    loaded, recommendation = require_recommendation(run)
    experiment = loaded.experiment
    knowledge = next(stage.knowledge for stage in run.stages if stage.counts)
    found = recommendation.hyperparameters
    settings = Settings(
        hyperparameters=found,
        epochs=recommendation.epochs,
        train_samples=knowledge.train_samples,
        optimizer=experiment.optimizer,
        schedule=experiment.schedule.schedule(),
        model=experiment.model,
        numerics=knowledge.numerics.for_batch(found.batch_size),
        seed=experiment.seed,
        header=(f"Recommended by hptune {__version__} for {experiment.name}.", verdict(recommendation)),
        loss=experiment.loss if experiment.step is None else None,
        classes=run.task.classes if run.task is not None else 0,
        augment=tuple(experiment.data.augment),
    )
    ways = [f"model {_called(settings.model)}"]
    ways.append(f"step {PurePath(experiment.step.target).name}" if experiment.step is not None else f"loss {_called(experiment.loss)}")
    ways.append(f"augmentation {', '.join(settings.augment) or 'none'}")
    notes = [f"Tuned with {'; '.join(ways)}; {settings.train_samples} training samples, {settings.steps} steps in all."]
    if settings.model.pretrained is not None:
        notes.append(f"It started from the weights in {PurePath(settings.model.pretrained).name}.")
    if settings.numerics.precision != "fp32":
        notes.append(f"Tuned and measured in {settings.numerics.precision}: train in it too.")
    if settings.model.freeze:
        notes.append(
            f"Freeze the parameters named like {', '.join(settings.model.freeze)} (requires_grad_(False)) first, as the search did."
        )
    return replace(settings, header=(*settings.header, *notes))


def _called(component: Component) -> str:
    """A component as a person would name it: the user's own by file and name, without the folders."""
    name = component.name if component.target is None else PurePath(component.target).name
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in component.args.items())})" if component.args else str(name)
