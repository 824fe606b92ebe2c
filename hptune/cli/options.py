"""Arguments and options that several commands share, and how they become config overrides: validation stays in one place."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Argument, Option

from hptune.cli import completion
from hptune.cli.console import Console
from hptune.errors import ConfigError, InputError

if TYPE_CHECKING:
    from hptune.config.loader import LoadedConfig

ConfigFile = Annotated[Path, Argument(metavar="CONFIG", help="The YAML config.", show_default=False, autocompletion=completion.configs)]
RunDirectory = Annotated[
    Path, Argument(metavar="RUN_DIR", help="A run directory.", show_default=False, autocompletion=completion.run_directories)
]
OptionalRunDir = Annotated[
    Path | None, Option("--run-dir", metavar="DIR", help="The run directory, instead of runs/NAME.", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Set a config key, e.g. budget.epochs=10; may be repeated.", show_default=False),
]


Device = Annotated[str | None, Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", show_default=False)]
Executor = Annotated[
    str | None, Option("--executor", metavar="NAME", help="Where trials run: auto, serial, process or ray.", show_default=False)
]
Workers = Annotated[str | None, Option("--workers", metavar="N", help="Trials at a time.", show_default=False)]
Seeds = Annotated[str | None, Option("--seeds", metavar="N", help="Seeds of each candidate in short runs.", show_default=False)]
Budget = Annotated[
    str | None,
    Option("--budget", metavar="BUDGET", help="What stages 1-5 may cost: wall time (20m) or short runs (16).", show_default=False),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every command takes; `hptune.__main__` looks for --verbose itself, so that it helps whatever goes wrong."""

    verbose: Annotated[bool, Option("--verbose", help="Say more; show the traceback of an error.")] = False

    def console(self) -> Console:
        """Where the command speaks."""
        return Console(verbose=self.verbose)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions(Options):
    """What a command takes that has a result to print."""

    json: Annotated[bool, Option("--json", help="One JSON document on standard output, everything else on standard error.")] = False

    def console(self) -> Console:
        """Where the command speaks."""
        return Console(as_json=self.json, verbose=self.verbose)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOptions(OutputOptions):
    """What a command takes that reads a config."""

    sets: Sets = None
    device: Device = None

    def given(self) -> dict[str, tuple[str, str]]:
        """Config key -> (option, value) for each option given that stands for a key."""
        return {"device": ("--device", self.device)} if self.device is not None else {}

    def repeated(self) -> list[str]:
        """What was given, as words of a command line."""
        found = [word for text in self.sets or () for word in ("--set", text)]
        return [*found, *(word for pair in self.given().values() for word in pair)]

    def load(self, config: Path) -> LoadedConfig:
        """Read `config` with all overrides. Raises ConfigError, naming the option where one is to blame."""
        from hptune.config.loader import load_config

        refuse_folder(config)
        with self.blamed():
            return load_config(config, [*(self.sets or ()), *(f"{key}={value}" for key, (_, value) in self.given().items())])

    @contextlib.contextmanager
    def blamed(self, loaded: LoadedConfig | None = None) -> Iterator[None]:
        """Give a ConfigError its place: the option that set the key, or the line of the config."""
        try:
            yield
        except ConfigError as error:
            option = next((option for key, (option, _) in self.given().items() if error.key == key), None)
            if option is not None:
                raise ConfigError(error.message, where=option) from error
            where = loaded.locate(error.key) if loaded is not None and error.key and error.where is None else None
            if where is None:
                raise
            raise ConfigError(error.message, where=where, key=error.key) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringOptions(ConfigOptions):
    """What a command takes that measures and keeps nothing."""

    quiet: Annotated[bool, Option("--quiet", help="Only the table and what it says.")] = False

    def console(self) -> Console:
        """Where the command speaks."""
        return Console(as_json=self.json, quiet=self.quiet, verbose=self.verbose)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(ConfigOptions):
    """What a command takes that is about a whole run."""

    run_dir: OptionalRunDir = None
    executor: Executor = None
    workers: Workers = None
    seeds: Seeds = None
    budget: Budget = None

    def given(self) -> dict[str, tuple[str, str]]:
        """Config key -> (option, value) for each option given that stands for a key."""
        options = {
            "executor.name": ("--executor", self.executor),
            "executor.workers": ("--workers", self.workers),
            "seeds": ("--seeds", self.seeds),
            "budget.search": ("--budget", self.budget),
        }
        return {**ConfigOptions.given(self), **{key: (option, value) for key, (option, value) in options.items() if value is not None}}

    def repeated(self) -> list[str]:
        """What was given, as words of a command line."""
        return [*([] if self.run_dir is None else ["--run-dir", str(self.run_dir)]), *ConfigOptions.repeated(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions(RunOptions):
    """What a command takes that trains."""

    fresh: Annotated[bool, Option("--fresh", help="Start over; the old run directory is renamed, never deleted.")] = False
    quiet: Annotated[bool, Option("--quiet", help="Only conclusions and the recommendation, no progress.")] = False

    def console(self) -> Console:
        """Where the command speaks."""
        return Console(as_json=self.json, quiet=self.quiet, verbose=self.verbose)


def refuse_folder(config: Path) -> None:
    """Say what to type where a run directory was given for a config."""
    if config.is_dir():
        if (config / "config.yaml").exists():
            raise InputError(f"{config} is a run directory, and this command needs a config: give {config / 'config.yaml'}")
        raise InputError(f"{config} is a folder, and this command needs a config file (hptune init writes one)")


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see each field of the `Options` that `command` takes as an option of its own."""
    signature = inspect.signature(command, eval_str=True)
    holders: dict[str, type[Options]] = {
        p.name: p.annotation for p in signature.parameters.values() if inspect.isclass(p.annotation) and issubclass(p.annotation, Options)
    }
    parameters = [p for p in signature.parameters.values() if p.name not in holders]
    for holder in holders.values():
        hints = get_type_hints(holder, include_extras=True)
        own_first = [field for cls in holder.__mro__ for field in fields(holder) if field.name in inspect.get_annotations(cls)]
        parameters += [_parameter(field, hints[field.name]) for field in own_first]

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, holder in holders.items():
            values[name] = holder(**{field.name: values.pop(field.name) for field in fields(holder)})
        command(**values)

    spread.__dict__["__signature__"] = signature.replace(parameters=parameters)
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _parameter(field: Field[Any], annotation: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
