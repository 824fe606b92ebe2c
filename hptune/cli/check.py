"""`hptune check`: what a config would do, before it is run."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hptune.cli import completion, words
from hptune.cli.options import RunOptions, spread_options
from hptune.errors import InputError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.estimate import Check, Outline

OptionalConfig = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="The YAML config.", show_default=False, autocompletion=completion.configs)
]
Schema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors; needs no CONFIG.")]

NoCode = Annotated[
    bool, typer.Option("--no-code", help="Only read the config: open and run nothing it names, and say what a run would execute.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("check", epilog="Example: hptune check digits.yaml --set budget.epochs=10")(check)


@spread_options
def check(options: RunOptions, config: OptionalConfig = None, schema: Schema = False, no_code: NoCode = False) -> None:
    """Validate a config, build data and model, and estimate what a run costs from a few real steps. Trains nothing more."""
    from hptune.cli.console import output_reserved

    console = options.console()
    if schema:
        from hptune.config.schema import json_schema

        console.document(json_schema())
        return
    if config is None:
        raise InputError("hptune check needs a CONFIG (or --schema)")
    loaded = options.load(config)
    from hptune.estimate import Outline, outline
    from hptune.estimate import check as examine

    with options.blamed(loaded), output_reserved(options.json):
        found = outline(loaded) if no_code else examine(loaded)
    if options.run_dir is not None:
        found = replace(found, run_dir=str(options.run_dir))
    if options.json:
        console.document(asdict(found))
        return
    if isinstance(found, Outline):
        _show_outline(found, console)
    else:
        _show(found, console)
    console.verbatim(words.next_commands([["check" if no_code else "run", str(config), *options.repeated()]]))


def _show_outline(found: Outline, console: Console) -> None:
    """Say what a config would have executed, for whoever does not know where it comes from."""
    console.verbatim(found.config.splitlines())
    console.say()
    console.say(f"{found.name}: a valid config; nothing that it names was opened or run", "bold")
    console.say(f"a run executes: {', '.join(found.code) or 'no code but hptune and its packages'}")
    if found.files:
        console.say(f"a run reads: {', '.join(found.files)}")
    if found.variables:
        console.say(f"the config takes from the environment: {', '.join(found.variables)}")
    console.say(f"run directory: {found.run_dir}")


def _show(found: Check, console: Console) -> None:
    from hptune.cli.results import estimate_table, facts_line

    console.say(found.name, "bold")
    console.say(facts_line(found))
    if found.user_code:
        console.say(f"runs your code: {', '.join(found.user_code)}")
        console.say(f"which consists of: {', '.join(found.code_files)}")
    for note in found.notes:
        console.say(f"note: {note}", "yellow")
    console.table(estimate_table(found))
    workers = words.count(found.workers, "worker")
    trials = words.count(sum(stage.trials for stage in found.stages), "trial")
    console.say(f"{trials}, about {words.duration(found.seconds)} with {workers}; what the stages find may change it", "bold")
    if found.memory is not None:
        where = "a process" if found.device == "cpu" else f"of the {found.device} device"
        console.say(f"memory: {words.memory(found.memory)} {where} at the baseline's batch size")
    console.say(f"run directory: {found.run_dir}")
