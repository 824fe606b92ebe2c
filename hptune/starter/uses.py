"""Which settings a training script uses now, as far as its source says so in plain numbers: they are the baseline to beat."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LOSSES = {
    "CrossEntropyLoss": "cross_entropy",
    "cross_entropy": "cross_entropy",
    "MSELoss": "mse",
    "mse_loss": "mse",
    "L1Loss": "l1",
    "l1_loss": "l1",
    "SmoothL1Loss": "smooth_l1",
    "smooth_l1_loss": "smooth_l1",
    "BCEWithLogitsLoss": "bce_with_logits",
    "binary_cross_entropy_with_logits": "bce_with_logits",
}
OPTIMIZERS = {"SGD": "sgd", "AdamW": "adamw", "Adam": "adamw"}
SETTINGS = {
    "lr": re.compile(r"(lr|learning_rate|base_lr|max_lr)"),
    "batch_size": re.compile(r"(train_)?(batch_size|bs|batchsize)"),
    "weight_decay": re.compile(r"(weight_decay|wd)"),
    "momentum": re.compile(r"momentum"),
    "epochs": re.compile(r"((num|n|max)_)?epochs"),
}
OF_CALLS = {"lr": OPTIMIZERS, "weight_decay": OPTIMIZERS, "momentum": ("SGD",), "batch_size": ("DataLoader",)}
POSITIVE = ("lr", "batch_size", "epochs")
WHOLE = ("batch_size", "epochs")
LARGEST = {"lr": 1e3, "batch_size": 10**6, "weight_decay": 10.0, "momentum": 0.999, "epochs": 10**5}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and the line it stands in."""

    value: Any
    line: int


def settings_in(tree: ast.Module) -> dict[str, Setting]:
    """Return optimizer (Adam counts as adamw), loss, and the `SETTINGS`, as far as the source gives them as constants.

    A call's own keyword counts first, then an option's default, then a name that is set once. A loss counts where it is the only one.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = dict(_assigned(tree))
    found: dict[str, Setting] = {}
    optimizers = [(OPTIMIZERS[word], call) for call in calls if (word := _word(call.func)) in OPTIMIZERS]
    if len({name for name, _ in optimizers}) == 1:
        found["optimizer"] = Setting(optimizers[0][0], optimizers[0][1].lineno)
    words = [(LOSSES[word], node.lineno) for node in ast.walk(tree) if isinstance(node, ast.expr) and (word := _word(node)) in LOSSES]
    if len({name for name, _ in words}) == 1:
        found["loss"] = Setting(*words[0])
    options = dict(_options(calls))
    for name, pattern in SETTINGS.items():
        given = [_keyword(call, name, names) for call in calls if _word(call.func) in OF_CALLS.get(name, ())]
        candidates = [*given, *(value for key, value in (*options.items(), *names.items()) if pattern.fullmatch(key.lower()))]
        fitting = [each for each in candidates if each is not None and _fits(name, each.value)]
        if fitting:
            found[name] = fitting[0]
    if "epochs" not in found and (loop := _epoch_loop(tree, names)) is not None:
        found["epochs"] = loop
    return found


def _fits(name: str, value: Any) -> bool:
    """Whether a config would take the value."""
    if isinstance(value, bool) or not isinstance(value, int if name in WHOLE else int | float):
        return False
    return 0 <= value <= LARGEST[name] and (value > 0 or name not in POSITIVE)


def _keyword(call: ast.Call, name: str, names: Mapping[str, Setting]) -> Setting | None:
    """The value of a keyword, or of the LR's and batch size's usual place, as a constant or a name that holds one."""
    value = next((word.value for word in call.keywords if word.arg == name), None)
    if value is None and name in ("lr", "batch_size") and len(call.args) > 1:
        value = call.args[1]
    return _constant(value, names) if value is not None else None


def _constant(value: ast.expr, names: Mapping[str, Setting]) -> Setting | None:
    if isinstance(value, ast.Constant):
        return Setting(value.value, value.lineno)
    return names.get(value.id) if isinstance(value, ast.Name) else None


def _assigned(tree: ast.Module) -> Iterator[tuple[str, Setting]]:
    """Names given a constant exactly once, and parameters with a constant default."""
    seen: dict[str, list[Setting]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    seen.setdefault(target.id, []).append(Setting(node.value.value, node.lineno))
        elif isinstance(node, ast.FunctionDef):
            for arg, default in zip(reversed(node.args.args), reversed(node.args.defaults), strict=False):
                if isinstance(default, ast.Constant):
                    seen.setdefault(arg.arg, []).append(Setting(default.value, default.lineno))
    return ((name, values[0]) for name, values in seen.items() if len({repr(each.value) for each in values}) == 1)


def _options(calls: list[ast.Call]) -> Iterator[tuple[str, Setting]]:
    """`add_argument("--lr", default=0.1)` as lr -> 0.1."""
    for call in calls:
        default = next((word.value for word in call.keywords if word.arg == "default"), None)
        if _word(call.func) not in ("add_argument", "option") or not isinstance(default, ast.Constant):
            continue
        for flag in call.args:
            if isinstance(flag, ast.Constant) and isinstance(flag.value, str):
                yield flag.value.lstrip("-").replace("-", "_"), Setting(default.value, call.lineno)


def _epoch_loop(tree: ast.Module, names: Mapping[str, Setting]) -> Setting | None:
    """`for epoch in range(10)`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.For)
            and isinstance(node.target, ast.Name)
            and "epoch" in node.target.id
            and isinstance(node.iter, ast.Call)
        ):
            last = node.iter.args[-1:] if _word(node.iter.func) == "range" and len(node.iter.args) < 3 else []
            found = _constant(last[0], names) if last else None
            if found is not None and _fits("epochs", found.value):
                return found
    return None


def _word(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
