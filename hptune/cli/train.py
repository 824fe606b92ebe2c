"""`hptune train`: one full training with the config's hyper-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from hptune.cli.options import ConfigFile, TrainingOptions, spread_options
from hptune.errors import HptuneError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.session import Session
    from hptune.trial import TrialRecord


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train", epilog="Example: hptune train runs/digits/recommended.yaml --run-dir runs/digits-final")(train)


@spread_options
def train(config: ConfigFile, options: TrainingOptions) -> None:
    """One full training with the config's hyperparameters (without that block: its baseline). The same command continues."""
    from hptune.cli.console import output_reserved
    from hptune.cli.interruption import command_line, continuing

    console = options.console()
    loaded = options.load(config)
    with options.blamed(loaded), continuing(), output_reserved(options.json):
        from hptune.session import open_session

        console.remark(f"{loaded.experiment.name}: opening data and model", "dim")
        with open_session(loaded, run_dir=options.run_dir, fresh=options.fresh, command=command_line(), training=True) as session:
            record = _train(session, console)
    for remark in session.tracking.remarks():
        console.say(remark, "yellow")
    _conclude(session, record, console)


def _train(session: Session, console: Console) -> TrialRecord:
    from hptune.cli import words
    from hptune.cli.interruption import deferred
    from hptune.cli.results import facts_line
    from hptune.cli.training import TrainingReport

    console.remark(facts_line(session.task), "dim")
    for note in session.task.notes:
        console.say(f"note: {note}", "yellow")
    spec = session.train_spec()
    settings = ", ".join(words.hyperparameters(spec.hyperparameters).values())
    block = "hyperparameters" if session.experiment.hyperparameters else "baseline"
    epochs = session.experiment.budget.epochs
    console.say(f"{words.number(epochs)} epochs, {words.count(spec.steps, 'step')} with {settings} (the config's {block})", "bold")
    done = session.trained()
    if done is not None:
        console.say("this training is done already: --fresh starts it over")
        return done
    report = TrainingReport(spec, epochs, console, session.experiment.metric.name or "metric")
    with console.live_line(report.line), deferred("stopping after this step, to save a checkpoint; once more stops at once") as asked:
        return session.train(report, asked).record


def _conclude(session: Session, record: TrialRecord, console: Console) -> None:
    """Say what the training gave and where the weights are. Raises HptuneError where it did not complete."""
    from hptune.cli import words
    from hptune.cli.documents import training_document
    from hptune.cli.summary import shown

    if record.status != "completed":
        advice = "; a lower LR may help" if record.status == "diverged" else ""
        ended = f"the training ended as {record.status.replace('_', ' ')} after {words.count(record.steps, 'step')}"
        raise HptuneError(f"{ended}: {record.error}{advice}" if record.error else f"{ended}{advice}")
    metric = session.experiment.metric.name or "metric"
    results = {"val loss": record.val_loss, metric: record.metric, "test loss": record.test_loss, f"test {metric}": record.test_metric}
    known = ", ".join(f"{name} {words.number(value)}" for name, value in results.items() if words.number(value))
    console.say(f"trained in {words.duration(record.seconds)}: {known}", "bold")
    console.say(f"weights: {shown(session.layout.weights)}")
    if console.as_json:
        console.document(training_document(record, str(session.layout.root), str(session.layout.weights)))
