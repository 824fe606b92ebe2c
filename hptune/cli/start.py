"""`hptune init`: a starter config, from a preset, from options, or by asking."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from hptune.cli import completion, words
from hptune.cli.options import Options, spread_options
from hptune.errors import InputError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.starter.compose import Plan, Wishes

DEFAULT_PRESET = "digits"
DATA = "digits, mnist, fashion_mnist, cifar10, cifar100, a folder of images, an .npz file, or FILE.py:NAME, which returns (train, val)"
MODEL = "small_cnn, mlp, resnet20, any torchvision name, or FILE.py:NAME"
FROM = "Start from your own code: a class or function that makes the model. FILE.py alone lists what it holds. It is read, never run."
Destination = Annotated[Path, typer.Argument(metavar="FILE", help="The config to write.")]
Preset = Annotated[
    str | None,
    Option(
        "--preset",
        metavar="NAME",
        help="digits, mnist, cifar10, image-folder, arrays or custom.",
        show_default=False,
        autocompletion=completion.words(completion.PRESETS),
    ),
]
From = Annotated[
    str | None, Option("--from", metavar="FILE.py:NAME", help=FROM, show_default=False, autocompletion=completion.python_files)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions(Options):
    """What the config is to say; what is not said follows from the data and the code."""

    data: Annotated[str | None, Option("--data", metavar="DATA", help=f"{DATA}.", show_default=False, autocompletion=completion.data)] = (
        None
    )
    model: Annotated[
        str | None, Option("--model", metavar="MODEL", help=f"{MODEL}.", show_default=False, autocompletion=completion.models)
    ] = None
    optimizer: Annotated[
        str | None,
        Option("--optimizer", metavar="NAME", help="sgd or adamw.", show_default=False, autocompletion=completion.words(("sgd", "adamw"))),
    ] = None
    lr: Annotated[float | None, Option("--lr", metavar="LR", help="The learning rate you use now.", show_default=False)] = None
    batch_size: Annotated[int | None, Option("--batch-size", metavar="N", help="The batch size you use now.", show_default=False)] = None
    weight_decay: Annotated[
        float | None, Option("--weight-decay", metavar="WD", help="The weight decay you use now.", show_default=False)
    ] = None
    epochs: Annotated[float | None, Option("--epochs", metavar="N", help="The length of a full training.", show_default=False)] = None
    budget: Annotated[
        str | None, Option("--budget", metavar="BUDGET", help="What the search may cost: 20m, or 40 (short runs).", show_default=False)
    ] = None

    def given(self) -> dict[str, Any]:
        """What was said, by field."""
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "verbose"}
        return {name: value for name, value in said.items() if value is not None}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("init", epilog="Example: hptune init my.yaml --from train.py:Net --data train.py:load_data --epochs 20")(init)


@spread_options
def init(options: InitOptions, file: Destination = Path("hptune.yaml"), preset: Preset = None, start: From = None) -> None:
    """Write a commented starter config: asks on a terminal, or takes options. An existing file is never overwritten."""
    console = options.console()
    _refuse_folder(file)
    if preset is not None:
        _refuse_mixture(preset, start, options)
        _write(preset_texts(preset, file), console)
    elif start is not None and not _names_something(start):
        _list_candidates(start, file, console)
        return
    elif start is not None or options.given():
        from hptune.starter.compose import plan

        made = plan(wishes_of(options, start), file)
        for sentence in made.sentences:
            console.say(sentence, "yellow" if sentence.startswith("note: ") else "")
        _write_plan(made, console)
    elif sys.stdin.isatty() and console.terminal.is_terminal:
        from hptune.cli.questions import ask

        _refuse_existing([file])
        _write_plan(ask(console, file), console)
    else:
        _write(preset_texts(DEFAULT_PRESET, file), console)
    console.verbatim(words.next_commands([["check", str(file)], ["run", str(file)]]))


def preset_texts(preset: str, file: Path) -> dict[Path, str]:
    """Path -> text of the config and its companions. Raises ConfigError for an unknown preset."""
    from hptune.config.presets import preset_files

    config, *companions = preset_files(preset).items()
    return {file: config[1], **{file.parent / name: text for name, text in companions}}


def wishes_of(options: InitOptions, start: str | None) -> Wishes:
    """The options as wishes; `--from` names the model."""
    from hptune.starter.compose import Wishes
    from hptune.starter.own import is_code

    if start is not None:
        if options.model is not None:
            raise InputError("--from names the model: give it or --model, not both")
        if not is_code(start):
            raise InputError(f"--from {start}: write FILE.py:NAME, such as train.py:Net, or FILE.py alone to see what it holds")
    wishes = Wishes(**options.given())
    return wishes if start is None else wishes.but(model=start)


def _names_something(start: str) -> bool:
    return not start.endswith(".py")


def _write_plan(made: Plan, console: Console) -> None:
    """Write what was settled, and say what is still to be filled in."""
    from hptune.config.tree import FILL_IN
    from hptune.starter.compose import config_text

    text = config_text(made)
    _write({made.file: text, **{made.file.parent / name: code for name, code in made.companions.items()}}, console)
    settings = [line.partition("#")[0].strip() for line in text.splitlines()]
    unfilled = [line for line in settings if FILL_IN in line]
    if unfilled:
        console.say(f"fill in before the next command: {', '.join(unfilled)}", "bold")


def _list_candidates(start: str, file: Path, console: Console) -> None:
    """Say what a file holds that a config could name, and the command that takes it."""
    from hptune.cli.tables import Column, Table
    from hptune.starter.code import read_code
    from hptune.starter.own import candidates

    rows = candidates(read_code(Path(start)))
    if not any(role == "model" for role, _, _ in rows):
        raise InputError(f"{start} holds nothing that looks like a model: name it all the same, with --from {start}:NAME")
    columns = (Column(title="looks like", words=True), Column(title="name", words=True), Column(title="", words=True))
    console.table(Table(columns=columns, rows=tuple(rows)))
    models = [name for role, name, _ in rows if role == "model"]
    data = [name for role, name, _ in rows if role == "data"]
    with_data = ["--data", data[0]] if len(data) > 1 else []
    console.verbatim(words.next_commands([["init", str(file), "--from", model, *with_data] for model in models]))


def _refuse_folder(file: Path) -> None:
    if file.is_dir():
        raise InputError(f"{file} is a folder: name the config to write in it, such as {file / 'hptune.yaml'}")


def _refuse_mixture(preset: str, start: str | None, options: InitOptions) -> None:
    said = [*(["--from"] if start is not None else []), *(f"--{name.replace('_', '-')}" for name in options.given())]
    if said:
        raise InputError(f"--preset {preset} is a whole config: leave out {', '.join(said)}, or give --data instead of --preset")


def _refuse_existing(targets: Mapping[Path, str] | list[Path]) -> None:
    for target in targets:
        if target.exists():
            raise InputError(f"{target} exists and is not overwritten: give another FILE, or remove it")


def _write(targets: Mapping[Path, str], console: Console) -> None:
    from hptune.store.layout import write_atomic

    _refuse_existing(targets)
    for target, text in targets.items():
        write_atomic(target, text)
        console.say(f"wrote {target}")
