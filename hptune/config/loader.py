"""From a config file to an `Experiment`, and back to a file that gives the same `Experiment`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hptune.config import dump, tree
from hptune.config.expansion import expand
from hptune.config.fields import describe, quoted, suggestion
from hptune.config.messages import explain
from hptune.config.paths import TEXT_KEYS, check_files, relocate, resolve
from hptune.config.plain import plain
from hptune.config.reading import LARGEST, Document, read_yaml
from hptune.config.schema import Experiment, folder_name
from hptune.config.tree import COMPONENTS, Tree
from hptune.errors import ConfigError
from hptune.trial import Hyperparameters


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A validated config and where it came from.

    `tree`: the config as the user wrote it, overrides applied, `${VAR}` unexpanded. `path`: the file as the user named it, None for
    a config made in Python. `directory`: what relative paths refer to. `places`: where each dotted key was given.
    """

    experiment: Experiment
    tree: Tree
    path: Path | None
    directory: Path
    places: Mapping[str, str] = field(default_factory=dict)

    def locate(self, key: str) -> str | None:
        """Where `key` was given, or the nearest block around it: `c.yaml:5`, `--set`, the file's name; None without a file."""
        return _locate(key, self.places, self.path)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read and validate the config file `path`, with `overrides` of the form `key.path=value` (a later one wins).

    Raises ConfigError, with file and line, for the first mistake.
    """
    path = Path(path)
    document = _read_file(path)
    content, places = document.value, dict(document.places)
    for override in overrides:
        key, value = _parse_override(override)
        content, places = _with_override(content, places, key, value, "--set")
    return _validated(content, places, path, path.parent.resolve())


def from_tree(content: Mapping[str, Any], directory: Path) -> LoadedConfig:
    """Validate a config given as a mapping; relative paths in it refer to `directory`."""
    return _validated(content, {}, None, directory.resolve())


def with_value(loaded: LoadedConfig, key: str, value: Any) -> LoadedConfig:
    """Return the config with `value` at the dotted `key`; raises ConfigError where that is unknown or does not fit."""
    content, places = _with_override(loaded.tree, dict(loaded.places), key, value, "--values")
    return _validated(content, places, loaded.path, loaded.directory)


def parse_values(text: str) -> list[Any]:
    """Return the values of `a,b,c`, each typed as YAML; commas inside brackets and quotes separate nothing."""
    values = read_yaml(f"[{text}]", lambda _: "--values").value
    if not isinstance(values, list) or not values:
        raise ConfigError("needs values separated by commas, such as 0.1,0.2,0.5", where="--values")
    return values


def dump_config(
    loaded: LoadedConfig,
    destination_dir: Path,
    *,
    name: str | None = None,
    hyperparameters: Hyperparameters | None = None,
    epochs: float | None = None,
    comments: Sequence[str] = (),
) -> str:
    """Return the resolved config as YAML text: loaded from a file in `destination_dir`, it gives an equal `Experiment`.

    Every default is written out; relative paths are rewritten, `${VAR}` stays. `name`, `hyperparameters` and `epochs` replace the
    config's own; `comments` come first, as lines with `#`.
    """
    experiment = loaded.experiment
    resolved = experiment.model_dump()
    for block in COMPONENTS:
        resolved[block] = dump.shortened(getattr(experiment, block))
    written: Tree = relocate(dump.as_written(resolved, loaded.tree), loaded.tree, loaded.directory, destination_dir.resolve())
    if name is not None:
        written["name"] = name
    if hyperparameters is not None:
        written["hyperparameters"] = asdict(hyperparameters)
    elif experiment.hyperparameters is None:
        del written["hyperparameters"]
    if epochs is not None:
        written["budget"]["epochs"] = epochs
    return dump.to_yaml(written, comments)


def _read_file(path: Path) -> Document:
    shown = str(path)
    try:
        if path.is_dir():
            raise ConfigError("is a folder: give the config file in it", where=shown)
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(f"has more than {LARGEST:,} bytes: is it a config file?", where=shown)
        text = content.decode("utf-8")
    except FileNotFoundError:
        near = suggestion(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise ConfigError(f"there is no such file{near}", where=shown) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=shown) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start}): is it a config file?", where=shown) from None
    except ValueError:
        raise ConfigError("is no name of a file", where=shown) from None
    document = read_yaml(text, lambda line: f"{shown}:{line}")
    if document.value is None:
        raise ConfigError("the config is empty: it needs at least data and model", where=shown)
    if not isinstance(document.value, dict):
        raise ConfigError(f"a config is a block of keys (data: …, model: …), not {describe(document.value)}", where=shown)
    return document


def _parse_override(text: str) -> tuple[str, Any]:
    """Return key and value of `key.path=value`, the value typed as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"needs key.path=value, such as baseline.lr=0.05, got {quoted(text)}", where="--set")
    try:
        return key.strip(), read_yaml(value, lambda _: "--set").value
    except ConfigError as error:
        raise ConfigError(error.message, where="--set", key=key.strip()) from None


def _with_override(content: Tree, places: dict[str, str], key: str, value: Any, where: str) -> tuple[Tree, dict[str, str]]:
    content = tree.replaced(content, key, value, where=where)
    kept = {place: text for place, text in places.items() if not f"{place}.".startswith(f"{key}.")}
    parts = key.split(".")
    made = {".".join(parts[:depth]): where for depth in range(1, len(parts) + 1)}
    return content, {**made, **kept}


def _validated(content: Mapping[str, Any], places: Mapping[str, str], path: Path | None, directory: Path) -> LoadedConfig:
    def locate(key: str) -> str | None:
        return _locate(key, places, path)

    written = plain(content, locate)
    _check_filled_in(written, locate)
    expanded = plain(expand(written, os.environ, text_keys=TEXT_KEYS, locate=locate), locate)
    resolved = resolve(expanded, directory)
    if path is not None and resolved.get("name") is None:
        resolved = {**resolved, "name": folder_name(path.stem)}
    try:
        experiment = Experiment.model_validate(resolved)
    except ValidationError as error:
        raise explain(error, resolved, locate) from None
    check_files(resolved, locate, expanded)
    return LoadedConfig(experiment=experiment, tree=written, path=path, directory=directory, places=places)


def _check_filled_in(written: Tree, locate: Callable[[str], str | None]) -> None:
    """Raise ConfigError where a value is still to be given by the user."""
    keys = tree.unfilled(written)
    if keys:
        others = f"; so do {', '.join(keys[1:])}" if len(keys) > 1 else ""
        raise ConfigError(f"still says {tree.FILL_IN}: give a value{others}", where=locate(keys[0]), key=keys[0])


def _locate(key: str, places: Mapping[str, str], path: Path | None) -> str | None:
    parts = key.split(".")
    around = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((places[name] for name in around if name in places), str(path) if path is not None else None)
