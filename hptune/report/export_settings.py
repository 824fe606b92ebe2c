"""What every export is made from."""

from __future__ import annotations

from dataclasses import dataclass

from hptune.config.schema import Model, Optimizer
from hptune.report.recommended import require_recommendation, verdict
from hptune.report.run import Run
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The recommended training; `train_samples` is the size of the search's training part, `header` the comment it begins with."""

    hyperparameters: Hyperparameters
    epochs: float
    train_samples: int
    optimizer: Optimizer
    schedule: Schedule
    model: Model
    numerics: Numerics
    seed: int
    header: tuple[str, ...]

    def comment(self, *more: str) -> str:
        """The header and `more` as comment lines of Python and shell."""
        lines = [line for text in (*self.header, *more) for line in text.splitlines()]
        return "".join(f"# {line}\n" for line in lines)


def settings_of(run: Run) -> Settings:
    """Collect the recommended training. Raises InputError where the run has no recommendation."""
    loaded, recommendation = require_recommendation(run)
    experiment = loaded.experiment
    knowledge = next(stage.knowledge for stage in run.stages if stage.counts)
    notes = [verdict(recommendation)]
    if knowledge.numerics.precision != "fp32":
        notes.append(f"Tuned and measured in {knowledge.numerics.precision}: train in it too.")
    if experiment.model.freeze:
        notes.append(f"Freeze the parameters named like {', '.join(experiment.model.freeze)}, as the search did.")
    return Settings(
        hyperparameters=recommendation.hyperparameters,
        epochs=recommendation.epochs,
        train_samples=knowledge.train_samples,
        optimizer=experiment.optimizer,
        schedule=experiment.schedule.schedule(),
        model=experiment.model,
        numerics=knowledge.numerics,
        seed=experiment.seed,
        header=(f"Recommended by hptune for {experiment.name}.", *notes),
    )
