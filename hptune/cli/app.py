"""The program: its commands, and what a mistake on the command line is answered with."""

from __future__ import annotations

from typing import Annotated

import typer

from hptune.cli import bench, check, explain, read, search, start, train, watch
from hptune.version import __version__

app = typer.Typer(
    name="hptune",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hptune {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: hptune init digits.yaml --preset digits && hptune run digits.yaml")
def hptune(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False) -> None:
    """Find learning rate, batch size, momentum and weight decay for PyTorch training by short, staged experiments, and see why."""


start.register(app)
check.register(app)
bench.register(app)
search.register(app)
train.register(app)
read.register(app)
watch.register(app)
explain.register(app)
