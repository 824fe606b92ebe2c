"""Commands that search: `lr-range`, `sweep`, `run`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hptune.cli import completion
from hptune.cli.options import ConfigFile, TrainingOptions, spread_options
from hptune.errors import InputError, StageError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.config.loader import LoadedConfig
    from hptune.running import Event
    from hptune.session import Session

STAGES_BY_WORD = {"batch-size": "batch_size", "momentum": "momentum", "wd": "weight_decay", "weight-decay": "weight_decay"}
SweepKey = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="batch-size, momentum, wd, or any config key.",
        show_default=False,
        autocompletion=completion.words(completion.SWEEPS),
    ),
]
Values = Annotated[
    str | None, typer.Option("--values", metavar="A,B,C", help="The values to compare; for wd and its like: instead of the config's.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a search command does: with the config `loaded`, go through the `events` of a session's `stages` (None: all).

    `whole`: recommend and report at the end; else `following` is the command to give next.
    """

    loaded: LoadedConfig
    events: Callable[[Session], Iterator[Event]]
    stages: Sequence[str] | None
    whole: bool = False
    following: str = "recommend"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("lr-range", epilog="Example: hptune lr-range digits.yaml --seeds 3")(lr_range)
    app.command("sweep", epilog="Example: hptune sweep model.args.width digits.yaml --values 8,16,32")(sweep)
    app.command("run", epilog="Example: hptune run digits.yaml --budget 20m --set seed=1")(run)


@spread_options
def lr_range(config: ConfigFile, options: TrainingOptions) -> None:
    """Stage 1: an LR range test, its suggestion checked in short runs."""
    _stage("lr_range", config, options)


@spread_options
def sweep(key: SweepKey, config: ConfigFile, options: TrainingOptions, values: Values = None) -> None:
    """Stages 2-4 alone (batch-size, momentum, wd), or the same machinery for any other config key."""
    _check_order(key, config)
    stage = STAGES_BY_WORD.get(key.replace("_", "-"))
    if stage is not None:
        _stage(stage, config, options, values)
        return
    if values is None:
        near = difflib.get_close_matches(key, STAGES_BY_WORD, n=1)
        meant = f"; did you mean {near[0]}?" if near and "." not in key else ""
        raise InputError(f"hptune sweep {key} needs --values, such as --values 0.1,0.2{meant}")

    from hptune.config.loader import parse_values

    loaded, candidates = options.load(config), parse_values(values)
    _search(Job(loaded=loaded, events=lambda session: session.sweep(key, candidates), stages=(key,), following="show"), options)


@spread_options
def run(config: ConfigFile, options: TrainingOptions) -> None:
    """Run all stages in order, then recommend and report. The same command given again continues."""
    _search(Job(loaded=options.load(config), events=lambda session: session.run(), stages=None, whole=True), options)


def _stage(stage: str, config: Path, options: TrainingOptions, values: str | None = None) -> None:
    from hptune.config.loader import parse_values, with_value
    from hptune.session import enabling

    loaded = enabling(options.load(config), stage)
    if values is not None:
        loaded = with_value(loaded, f"stages.{stage}.values", parse_values(values))
    _search(Job(loaded=loaded, events=lambda session: session.run((stage,)), stages=(stage,)), options)


def _search(job: Job, options: TrainingOptions) -> None:
    from hptune.cli.console import output_reserved
    from hptune.cli.interruption import command_line, continuing

    console = options.console()
    loaded = job.loaded
    with options.blamed(loaded), continuing(), output_reserved(options.json):
        from hptune.cli.summary import show_next, shown
        from hptune.knowledge import enabled_stages
        from hptune.session import open_session

        console.remark(f"{loaded.experiment.name}: opening data and model", "dim")
        with open_session(loaded, run_dir=options.run_dir, fresh=options.fresh, command=command_line()) as session:
            try:
                _follow(job, session, tuple(job.stages or enabled_stages(loaded.experiment)), console)
            except StageError:
                show_next([["show", shown(session.layout.root)], ["explain", "clues"]], console)
                raise
            if job.whole:
                console.remark("writing tables, figures and the report", "dim")
                session.finish()
            if session.tracking.names:
                console.remark(f"telling {', '.join(session.tracking.names)}", "dim")
    for remark in session.tracking.remarks():
        console.say(remark, "yellow")
    _conclude(job, session, console)


def _follow(job: Job, session: Session, stages: tuple[str, ...], console: Console) -> None:
    from hptune.cli import words
    from hptune.cli.progress import follow
    from hptune.cli.results import facts_line

    console.remark(facts_line(session.task), "dim")
    for note in session.task.notes:
        console.say(f"note: {note}", "yellow")
    metric = session.experiment.metric.name or "metric"
    where = words.device(session.task.numerics)
    follow(job.events(session), console, stages=stages, where=where, metric=metric, workers=lambda: session.where)


def _conclude(job: Job, session: Session, console: Console) -> None:
    """Say what came out and what to type next."""
    from hptune import report
    from hptune.cli.documents import run_document
    from hptune.cli.summary import show_next, show_recommendation, shown

    run = report.load(session.layout.root)
    if job.whole:
        show_recommendation(run, console)
    else:
        console.remark(f"tables: {shown(session.layout.tables)}", "dim")
        show_next([[job.following, shown(session.layout.root)]], console)
    if console.as_json:
        console.document(run_document(run))


def _check_order(key: str, config: Path) -> None:
    """The two arguments are easily swapped."""
    if key.endswith((".yaml", ".yml")) and not config.suffix:
        raise InputError(f"what to sweep comes first: hptune sweep {config} {key}")
