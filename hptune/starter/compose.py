"""From what a user wants and what was found to the text of a config, with comments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hptune.config.dump import inline
from hptune.config.fields import is_file_target
from hptune.config.loader import from_tree
from hptune.config.paths import as_written_in
from hptune.config.schema import folder_name
from hptune.errors import ConfigError, InputError, printable
from hptune.starter.data import Found, look_at
from hptune.starter.own import LOADER, Target, archive_data, baseline_of, data_of, is_code, own_data, read_target, remarks

UNNAMED = "hptune"  # the stem of init's default: it says nothing of the run
COLUMN = 28  # where comments stand, at least
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 1e-2}
BATCH_SIZES = ((400, 16), (2_000, 32), (50_000, 64))  # up to so many samples
LARGEST_SHARE = 4  # batches offered to the sweep are at most a fourth of the samples
METRICS = {"cross_entropy": "accuracy", "bce_with_logits": "none"}
ARGS: dict[str, dict[str, Any]] = {"small_cnn": {"width": 16}, "mlp": {"hidden": [64, 64], "dropout": 0.0}}
OPTIONS = {
    "budget.epochs": "--epochs",
    "baseline.lr": "--lr",
    "baseline.batch_size": "--batch-size",
    "baseline.weight_decay": "--weight-decay",
    "optimizer.name": "--optimizer",
    "budget.search": "--budget",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user said, None where nothing: `data` and `model` as words, paths or targets; the rest as in the config."""

    data: str | None = None
    model: str | None = None
    optimizer: str | None = None
    lr: float | None = None
    batch_size: int | None = None
    weight_decay: float | None = None
    epochs: float | None = None
    budget: str | None = None

    def but(self, **said: Any) -> Wishes:
        """The same with more said."""
        return replace(self, **said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the config will say besides data and model."""

    optimizer: str
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    epochs: float
    budget: float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the config `file` will say, and how it was found: `sentences` for the reader, `companions` to be written beside it."""

    file: Path
    found: Found
    network: str | None
    model: Target | None
    settings: Settings
    companions: Mapping[str, str] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()


def plan(wishes: Wishes, file: Path) -> Plan:
    """Look at the data and the code that are named, and settle what was not said.

    Raises InputError for what is not there or does not fit together, naming the option.
    """
    model = read_target(wishes.model) if wishes.model is not None and is_code(wishes.model) else None
    code = model.code if model is not None else None
    found, companions = _data(wishes, model, file)
    baseline, seen = baseline_of(code) if code is not None else ({}, [])
    loss = baseline.get("loss", found.loss) if "target" in found.block else found.loss
    named = found.name if file.stem == UNNAMED else folder_name(file.stem)
    found = replace(found, name=named, loss=loss, metric=found.metric if loss == found.loss else METRICS.get(loss, "mae"))
    used = [target.rpartition(":")[2] for target in (wishes.model or "", str(found.block.get("target", "")))]
    notes = [f"note: {note}" for note in remarks(code, used)] if code is not None else []
    return Plan(
        file=file,
        found=found,
        network=None if model is not None else wishes.model or found.model,
        model=model,
        settings=_settings(wishes, found, baseline),
        companions=companions,
        sentences=(*found.sentences, *seen, *notes),
    )


def config_text(made: Plan) -> str:
    """The config with its comments. Raises InputError where no network is known that takes such data."""
    found, settings, file = made.found, made.settings, made.file
    head = [
        *made.sentences,
        f"  hptune check {file.name}     what would be run, and how long it takes",
        f"  hptune run {file.name}       the whole search; results go to runs/{found.name}",
    ]
    blocks = [f"name: {inline(found.name)}", *_data_lines(found, file), *_model_lines(made), *_settings_lines(found, settings)]
    return "\n".join([*(f"# {printable(line)}" for line in head), *blocks, ""])


def batch_grid(batch_size: int, samples: int | None) -> list[int]:
    """The baseline's batch size, its half, and its double and fourfold as far as the data allow."""
    largest = samples // LARGEST_SHARE if samples else 4 * batch_size
    sizes = {size for size in (batch_size // 2, 2 * batch_size, 4 * batch_size) if 1 <= size <= largest}
    return sorted({batch_size, *sizes})


def _data(wishes: Wishes, model: Target | None, file: Path) -> tuple[Found, dict[str, str]]:
    """What was found for `--data`, or beside the model, or else a function to be written."""
    if wishes.data is not None:
        return (own_data(read_target(wishes.data)) if is_code(wishes.data) else look_at(wishes.data)), {}
    if model is None:
        if wishes.model is not None:
            raise InputError("--model alone says nothing of the data: add --data digits, a folder of images, an .npz file, or FILE.py:NAME")
        return look_at("digits"), {}
    beside = data_of(model)
    if beside is not None:
        return own_data(beside), {}
    stem = model.code.file.stem if model.code is not None else "my"
    companion = f"{stem}_data.py"
    return archive_data(folder_name(stem), companion), {companion: LOADER.format(config=file.name)}


def _settings(wishes: Wishes, found: Found, seen: Mapping[str, Any]) -> Settings:
    """The user's word first, then what the code does now, then what suits the data. Raises ConfigError for what no config takes."""
    optimizer = wishes.optimizer or seen.get("optimizer", found.optimizer)
    size = next((size for most, size in BATCH_SIZES if (found.samples or 10_000) <= most), 128)
    usual: dict[str, Any] = {
        "lr": found.lr if optimizer == found.optimizer else {"adamw": 1e-3}.get(optimizer, 0.01),
        "batch_size": size,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 1e-4),
        "epochs": found.epochs,
    }
    chosen: dict[str, Any] = {
        name: next(v for v in (getattr(wishes, name), seen.get(name), value) if v is not None) for name, value in usual.items()
    }
    budget = _budget(wishes.budget)
    momentum = float(seen.get("momentum", 0.9))
    tree = {
        "data": {"name": "digits"},
        "model": "linear",
        "optimizer": {"name": optimizer},
        "baseline": {name: chosen[name] for name in ("lr", "batch_size", "weight_decay")},
        "budget": {"epochs": chosen["epochs"], "search": budget},
    }
    try:
        from_tree(tree, Path.cwd())
    except ConfigError as error:
        raise ConfigError(error.message, where=OPTIONS.get(error.key or "", "init")) from None
    chosen["epochs"] = float(chosen["epochs"])
    return Settings(optimizer=optimizer, momentum=momentum, budget=budget, **chosen)


def _budget(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _data_lines(found: Found, file: Path) -> list[str]:
    block = dict(found.block)
    if found.path is not None:
        block[found.path] = _moved(str(block[found.path]), file)
    return _block("data", block, found.comments)


def _model_lines(made: Plan) -> list[str]:
    model, name, found = made.model, made.network, made.found
    if model is not None:
        block = {"target": _moved(model.given, made.file), **({"args": model.args()} if model.args() else {})}
        return _block("model", block, {"target": model.takes() or "returns an nn.Module", **model.comments()})
    if name is None:
        raise InputError(f"{found.sentences[-1]}: add --model NAME or --model FILE.py:NAME")
    args = found.model_args if name == found.model else ARGS.get(name, {})
    return [
        _commented(f"model: {inline({'name': name, 'args': args} if args else {'name': name})}", "or mlp, resnet20, any torchvision name …")
    ]


def _moved(given: str, file: Path) -> str:
    """A path or file target as the config names it."""
    if is_code(given):
        where, _, name = given.rpartition(":")
        return f"{as_written_in(file.parent, where)}:{name}" if is_file_target(given) else given
    return as_written_in(file.parent, given)


def _settings_lines(found: Found, s: Settings) -> list[str]:
    baseline = {name: asdict(s)[name] for name in ("lr", "batch_size", "momentum", "weight_decay")}
    commented = {
        f"loss: {found.loss}": "cross_entropy, mse, l1, smooth_l1, bce_with_logits, or {target: my.py:my_loss}",
        f"metric: {found.metric}": "shown beside the loss: accuracy, mae, mse, none, or {target: my.py:my_metric}",
        f"optimizer: {{name: {s.optimizer}}}": "sgd or adamw",
        f"baseline: {inline(baseline)}": "what you use now: the search starts here and must beat it",
        "budget:": "",
        f"  epochs: {inline(s.epochs)}": "the full training you are tuning for",
        f"  search_epochs: {inline(max(s.epochs / 5, min(1.0, s.epochs)))}": "one short run of the search",
        f"  search: {inline(s.budget)}": "limits the whole search: 20m, or 40 (short runs)",
        "seeds: 2": "short runs of one candidate, each on its own seed",
        "stages:": "each may be switched off, e.g. refine: off",
        f"  batch_size: {{values: {inline(batch_grid(s.batch_size, found.samples))}}}": "",
        f"  confirm: {{seeds: {found.confirm_seeds}}}": "full trainings of each finalist and of the baseline",
    }
    return [_commented(line, comment) for line, comment in commented.items()]


def _block(title: str, block: Mapping[str, Any], comments: Mapping[str, str], indent: str = "") -> list[str]:
    """A block with a key a line; `args` that are to be filled in likewise."""
    lines = [f"{indent}{title}:"]
    for key, value in block.items():
        if key == "args":
            lines += _block(key, value, comments, indent + "  ")
        else:
            lines.append(_commented(f"{indent}  {key}: {inline(value)}", comments.get(key, "")))
    return lines


def _commented(line: str, comment: str) -> str:
    return f"{line.ljust(COLUMN)} # {printable(comment)}" if comment else line
