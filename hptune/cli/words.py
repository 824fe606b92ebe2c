"""How the program speaks: labels, numbers, durations, and the sentences between the stages' own. Pure text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hptune.analysis import wording

if TYPE_CHECKING:
    from hptune.stages.base import Knowledge
    from hptune.trial import Hyperparameters, Numerics

TITLES = {
    "lr_range": "LR range test",
    "batch_size": "batch size",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "refine": "joint refinement",
    "confirm": "confirmation at full length",
}
LABELS = {
    "lr": "LR",
    "batch_size": "batch size",
    "momentum": "momentum",
    "momentum_min": "momentum minimum",
    "weight_decay": "weight decay",
}
BAR = 20  # characters of a progress bar

count = wording.count


def title(stage: str) -> str:
    """What people call a stage; the stage of a key sweep is its key."""
    return TITLES.get(stage, stage)


def number(value: float | int | str | None) -> str:
    """Three or four significant digits; nothing for what was not measured."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return wording.format_number(value)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as a clock shows them: `0:42`, `1:02:03`."""
    whole = max(0, math.ceil(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """An amount of time to plan by: `8 s`, `3 min`, `1.5 h`, `2.1 days`."""
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min" if seconds < 570 else f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 48 else f"{hours / 24:.3g} days"


def memory(amount: float) -> str:
    """An amount of memory, from bytes: `48 MiB`, `1.2 GiB`."""
    mebibytes = amount / 2**20
    return f"{number(mebibytes)} MiB" if mebibytes < 999.5 else f"{number(mebibytes / 1024)} GiB"


def percent(share: float | None) -> str:
    """A share as `12 %`, or `8.2 %` below ten; nothing for what was not measured."""
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share >= 0.095 or not share else f"{100 * share:.1f} %"


def bar(done: int, total: int, width: int = BAR) -> str:
    """How much of `total` is done, as a bar."""
    filled = round(width * done / total) if total else 0
    return "━" * filled + "╌" * (width - filled)


def fitting(parts: Sequence[str], width: int) -> str:
    """One line of as many `parts` as `width` holds, the most important first."""
    text = ""
    for part in filter(None, parts):
        longer = f"{text}  {part}" if text else part
        if len(longer) <= width:
            text = longer
    return text


def hyperparameters(h: Hyperparameters) -> dict[str, str]:
    """Name -> `LR 0.1` and the like; momentum with the minimum it falls to."""
    momentum = number(h.momentum) + (f" to {number(h.momentum_min)}" if h.momentum_min != h.momentum else "")
    values = {"lr": number(h.lr), "batch_size": str(h.batch_size), "momentum": momentum, "weight_decay": number(h.weight_decay)}
    return {name: f"{LABELS[name]} {value}" for name, value in values.items()}


def starts_from(knowledge: Knowledge) -> str:
    """Which value came from where, in one line."""
    origin = dict(knowledge.sources)
    groups: dict[str, list[str]] = {}
    for name, text in hyperparameters(knowledge.start).items():
        groups.setdefault(origin.get(name, "baseline"), []).append(text)
    named = {"baseline": "the config's baseline"}
    return "from " + "; ".join(f"{', '.join(texts)} ({named.get(source, title(source))})" for source, texts in groups.items())


def next_commands(commands: Sequence[Sequence[str]]) -> list[str]:
    """Commands to type next, quoted for a shell."""
    return ["next:", *(f"  {shlex.join(['hptune', *command])}" for command in commands)]


def going_on(run_dir: str) -> list[str]:
    """The command that goes on with a run, from its directory alone."""
    return ["run", f"{run_dir}/config.yaml", "--run-dir", run_dir]


def device(settled: Numerics) -> str:
    """The device, with its model where that is known: `cuda (NVIDIA H100)`."""
    return f"{settled.device} ({settled.device_model})" if settled.device_model else settled.device


def numerics(settled: Numerics) -> str:
    """How numbers are computed, as far as it is not the plainest way: `bf16, channels-last, 4 CPU threads`."""
    return ", ".join(
        [
            settled.precision,
            *(["channels-last"] if settled.channels_last else []),
            *(["compiled"] if settled.compiled else []),
            *([f"{settled.replicas} devices a trial"] if settled.replicas > 1 else []),
            *(["batch norm over all of them"] if settled.sync_batch_norm else []),
            *([f"{settled.threads} CPU threads a trial"] if settled.threads > 1 else []),
            *([f"at most {settled.micro_batch} samples at once"] if settled.micro_batch is not None else []),
        ]
    )
