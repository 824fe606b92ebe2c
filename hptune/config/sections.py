"""The blocks of the config that say how to train and what to search."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, WithJsonSchema, field_validator, model_validator

from hptune.config.fields import (
    Count,
    Distinct,
    Fraction,
    InnerFraction,
    Momentum,
    NonNegative,
    Positive,
    Ratio,
    Section,
    describe,
    needs,
)
from hptune.schedules import Schedule

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)")
BUDGET = "short runs (16) or wall time (90s, 20m, 1.5h)"
HEARTBEAT = "a time (90s, 30m, 1.5h), or off"
ON, OFF = "<on>", "<off>"
"""Tags of a stage's two forms: a block of settings, or False. They stand in pydantic's error places, where no key looks like them."""


def seconds_of(text: str) -> float | None:
    """Seconds of a time such as 90s, 20m or 1.5h; None for any other text, and for no time at all or more than a life."""
    match = DURATION.fullmatch(text)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match and 0 < float(match[1]) <= 1e9 else None


class ScheduleSection(Section):
    """The schedule of every trial but the range test; see `hptune.schedules`."""

    name: Literal["one_cycle", "constant", "step"] = "one_cycle"
    shape: Literal["linear", "torch", "three_phase"] = "linear"
    warmup_fraction: InnerFraction = 0.45
    lr_ratio: Ratio = 10.0
    tail_fraction: Fraction = 0.1
    tail_ratio: Ratio = 1000.0
    milestones: list[Fraction] = Field(default_factory=lambda: [0.5, 0.75])
    gamma: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.shape == "linear" and self.warmup_fraction + self.tail_fraction >= 1:
            raise ValueError("warmup_fraction and tail_fraction together must stay below 1: they leave no way down")
        if self.shape == "three_phase" and self.warmup_fraction > 0.5:
            raise ValueError("three_phase needs a warmup_fraction of at most 0.5: the way down takes as long as the way up")
        return self

    def schedule(self) -> Schedule:
        """Return the pure form that trials carry."""
        values = self.model_dump(exclude={"name", "milestones"})
        return Schedule(kind=self.name, milestones=tuple(self.milestones), **values)


class Values(Section):
    """Hyper-parameters of one configuration; None means the default that goes with the optimizer."""

    lr: Positive | None = None
    batch_size: Count = 64
    momentum: Momentum = 0.9
    momentum_min: Momentum | None = None
    weight_decay: NonNegative | None = None


class BudgetSection(Section):
    """`epochs`: the full training; `search_epochs`: one short run; `search`: cost of stages 1-5, short runs or wall time."""

    epochs: Positive = 30.0
    search_epochs: Positive = 6.0
    search: Annotated[Positive | str | None, needs(BUDGET)] = None

    @model_validator(mode="before")
    @classmethod
    def _short_run_default(cls, value: Any) -> Any:
        """A short run is a fifth of the full training, but at least one epoch where the full training has one."""
        epochs = value.get("epochs", 30.0) if isinstance(value, dict) else None
        if isinstance(epochs, int | float) and 0 < epochs < math.inf and value.get("search_epochs") is None:
            return {**value, "search_epochs": max(epochs / 5, min(1.0, epochs))}
        return value

    @field_validator("search")
    @classmethod
    def _is_a_duration(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, str) and not seconds_of(value):
            raise ValueError(f"needs {BUDGET}, got {describe(value)}")
        return value

    @property
    def short_epochs(self) -> float:
        """Epochs of one short run."""
        return self.search_epochs

    @property
    def search_seconds(self) -> float | None:
        """Wall time for stages 1-5 in seconds, where the budget is one."""
        return seconds_of(self.search) if isinstance(self.search, str) else None

    @property
    def search_runs(self) -> float | None:
        """Short-run equivalents for stages 1-5, where the budget is that."""
        return self.search if isinstance(self.search, int | float) else None


CountOrAuto = Annotated[Count | Literal["auto"], needs("a whole number of at least 1, or auto")]
FewOrAuto = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | Literal["auto"], needs("a whole number of at least 1 and at most 1000, or auto")
]
"""Threads or processes: the system runs out of memory for many more, and that ends the program without a word."""


class ExecutorSection(Section):
    """Where and how trials run.

    `heartbeat`: a worker process that gives no sign of life for so long is replaced. `foresight`: idle workers begin trials that
    will probably be planned next, which changes no result. `threads`, `micro_batch` and `compile` change how numbers are rounded, so they
    belong to a trial; `auto` is by a fixed rule. So do `devices_per_trial`, which train one network together, each on its rows of every
    batch, and `sync_batch_norm`, with which batch norm then sees the whole batch. `address`, `cpus_per_trial` and `gpus_per_trial` are for
    Ray: the cluster (auto: the one this machine belongs to, or else one on this machine), and what a trial takes of it (auto: a CPU for
    each thread; a GPU where there are any); fractions of a GPU are trials that share one.
    """

    name: Literal["auto", "serial", "process", "ray"] = "auto"
    workers: FewOrAuto = "auto"
    address: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "auto"
    cpus_per_trial: Annotated[Positive | Literal["auto"], needs("a number of CPUs, or auto")] = "auto"
    gpus_per_trial: Annotated[NonNegative | Literal["auto"], needs("a number of GPUs, or auto")] = "auto"
    heartbeat: Annotated[str | Literal[False], needs(HEARTBEAT)] = "30m"
    foresight: bool = True
    threads: FewOrAuto = "auto"
    micro_batch: CountOrAuto = "auto"  # samples of one forward pass; auto: whole batches, fewer where memory does not suffice
    compile: Annotated[bool | Literal["auto"], needs("true, false or auto")] = "auto"
    devices_per_trial: Annotated[int, Field(ge=1, le=1000)] = 1
    sync_batch_norm: bool = False

    @field_validator("gpus_per_trial")
    @classmethod
    def _is_whole_or_a_part(cls, value: float | Literal["auto"]) -> float | Literal["auto"]:
        if value != "auto" and value > 1 and value != int(value):
            raise ValueError(f"needs whole GPUs, or a part of one, got {value:g}")
        return value

    @field_validator("heartbeat")
    @classmethod
    def _is_a_time(cls, value: str | Literal[False]) -> str | Literal[False]:
        if value is not False and not seconds_of(value):
            raise ValueError(f"needs {HEARTBEAT}, got {describe(value)}")
        return value

    @property
    def heartbeat_seconds(self) -> float | None:
        """The heartbeat in seconds, None for off."""
        return None if self.heartbeat is False else seconds_of(self.heartbeat)


class LrRange(Section):
    """Stage 1."""

    min_lr: Positive | None = None
    max_lr: Positive | None = None
    ramp: Literal["exponential", "linear"] = "exponential"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_lr is not None and self.max_lr is not None and self.min_lr >= self.max_lr:
            raise ValueError(f"min_lr ({self.min_lr:g}) must be below max_lr ({self.max_lr:g})")
        return self


class BatchSize(Section):
    """Stage 2; `compare: samples` makes no result depend on timing."""

    values: Annotated[list[Count], Field(min_length=1), Distinct] = Field(default_factory=lambda: [32, 64, 128, 256])
    compare: Literal["time", "samples"] = "time"


class MomentumStage(Section):
    """Stage 3: the largest momentum of the cycle; `minimum` is where it falls to."""

    values: Annotated[list[Momentum], Field(min_length=1), Distinct] = Field(default_factory=lambda: [0.99, 0.97, 0.95, 0.9])
    minimum: Momentum = 0.85


class WeightDecay(Section):
    """Stage 4."""

    values: Annotated[list[NonNegative], Field(min_length=1), Distinct] | None = None
    bisect: bool = True


class Refine(Section):
    """Stage 5: trials, of full length from three on, when no search budget is given; with one, whatever is left of it."""

    trials: Annotated[int, Field(ge=0, le=100_000)] = 4


class Confirm(Section):
    """Stage 6: full-length trainings on fresh seeds of so many finalists besides the baseline."""

    seeds: Count = 5
    finalists: Annotated[int, Field(ge=1, le=20)] = 3


def _form(value: Any) -> str:
    return OFF if value is False else ON


Off = Annotated[Literal[False], Tag(OFF), WithJsonSchema({"enum": [False, "off"], "description": "leave this stage out"})]
Form = Discriminator(_form)


class Stages(Section):
    """What is searched, in order; False switches a stage off."""

    lr_range: Annotated[Annotated[LrRange, Tag(ON)] | Off, Form] = Field(default_factory=LrRange)
    batch_size: Annotated[Annotated[BatchSize, Tag(ON)] | Off, Form] = Field(default_factory=BatchSize)
    momentum: Annotated[Annotated[MomentumStage, Tag(ON)] | Off, Form] = Field(default_factory=MomentumStage)
    weight_decay: Annotated[Annotated[WeightDecay, Tag(ON)] | Off, Form] = Field(default_factory=WeightDecay)
    refine: Annotated[Annotated[Refine, Tag(ON)] | Off, Form] = Field(default_factory=Refine)
    confirm: Annotated[Annotated[Confirm, Tag(ON)] | Off, Form] = Field(default_factory=Confirm)
