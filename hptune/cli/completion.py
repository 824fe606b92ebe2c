"""What a shell offers when Tab is pressed.

It must come at once, so that names stand here again whose own modules take long to import; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

RUNS, JOURNAL = "runs", "journal.jsonl"
PRESETS = ("digits", "mnist", "cifar10", "image-folder", "arrays", "custom")
TOOLS = ("pytorch", "lightning", "fastai", "huggingface", "timm", "optuna")
STAGES = ("lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm")
SWEEPS = ("batch-size", "momentum", "wd")
DATA = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
MODELS = ("small_cnn", "mlp", "linear", "lenet", "cifar3", "resnet20", "resnet56")


def run_directories(incomplete: str) -> list[str]:
    """Run directories below the folder that is being typed; below `runs` as well where none is."""
    folder = incomplete.rpartition("/")[0]
    places = [incomplete[: len(folder) + 1]] if "/" in incomplete else ["", f"{RUNS}/"]
    return sorted(name for place in places for name in _runs_in(place) if name.startswith(incomplete))


def configs(incomplete: str) -> list[str]:
    """YAML files beside what is being typed, and folders on the way to more."""
    return _files(incomplete, (".yaml", ".yml"))


def sources(incomplete: str) -> list[str]:
    """Run directories and configs."""
    runs = run_directories(incomplete)
    return [*runs, *(name for name in configs(incomplete) if name.rstrip("/") not in runs)]


def python_files(incomplete: str) -> list[str]:
    """Python files; what they hold is not looked at before there is a colon."""
    file, colon, name = incomplete.rpartition(":")
    return _names_in(file, name) if colon else _files(incomplete, (".py",))


def data(incomplete: str) -> list[str]:
    """What `init --data` takes."""
    return [*words(DATA)(incomplete), *(python_files(incomplete) if ":" in incomplete else _files(incomplete, (".npz", ".py")))]


def models(incomplete: str) -> list[str]:
    """What `init --model` takes."""
    return [*words(MODELS)(incomplete), *python_files(incomplete)]


def words(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A completion by constants."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def _files(incomplete: str, kinds: tuple[str, ...]) -> list[str]:
    place = incomplete[: incomplete.rfind("/") + 1]
    found = [*_children(place, lambda path: path.suffix in kinds), *(f"{name}/" for name in _children(place, Path.is_dir))]
    return sorted(name for name in found if name.startswith(incomplete) and not Path(name).name.startswith("."))


def _names_in(file: str, name: str) -> list[str]:
    """What a Python file holds that a config could name."""
    from hptune.errors import InputError
    from hptune.starter.own import candidates_named

    try:
        return [f"{file}:{found}" for found in candidates_named(file) if found.startswith(name)]
    except InputError:
        return []


def _runs_in(place: str) -> list[str]:
    return _children(place, lambda path: (path / JOURNAL).is_file())


def _children(place: str, fits: Callable[[Path], bool]) -> list[str]:
    """Names, with `place` before them, of what lies there and fits; none where it cannot be listed."""
    try:
        return [place + child.name for child in Path(place or ".").expanduser().iterdir() if fits(child)]
    except OSError:
        return []
