"""The config as pydantic models: every key, its type, range and default.

`Experiment` is the validated whole. Paths and targets inside it are absolute (the loader resolves them against the config
file); nothing here touches files. Defaults that depend on the optimizer are filled by `Experiment` itself, so that a dumped
config shows every value in force.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from hptune.schedules import Schedule
from hptune.trial import Hyperparameters

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]

DATA_NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "arrays", "custom")
LOSSES = ("cross_entropy", "mse", "l1", "smooth_l1", "bce_with_logits")
METRICS = ("accuracy", "mse", "mae", "none")
DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h)$")


class Section(BaseModel):
    """Unknown keys are errors; numbers are not made from text; values do not change once made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Target(Section):
    """The user's own code: `path/to/file.py:name` or `package.module:name`, called with `args`."""

    target: str
    args: dict[str, Any] = Field(default_factory=dict)

    @field_validator("target")
    @classmethod
    def _has_two_parts(cls, value: str) -> str:
        return check_target(value)


class Component(Section):
    """Something built in, by `name`, or the user's own, by `target`; a plain word is a name."""

    name: str | None = None
    target: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("target")
    @classmethod
    def _has_two_parts(cls, value: str | None) -> str | None:
        return None if value is None else check_target(value)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.name is None) == (self.target is None):
            raise ValueError("give either a name or a target")
        return self


class Data(Section):
    """Where the samples come from and how they are split."""

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "arrays", "custom"] = "custom"
    root: str | None = None
    download: bool = False
    path: str | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    size: Count | None = None  # image_folder: pixels of the square images are resized to
    target: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    collate: Target | None = None
    limit: Count | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_fraction: Fraction = 0.2
    split: Literal["stratified", "random", "time"] | dict[Literal["group"], str] = "stratified"
    augment: list[str] = Field(default_factory=list)

    @field_validator("target")
    @classmethod
    def _has_two_parts(cls, value: str | None) -> str | None:
        return None if value is None else check_target(value)

    @field_validator("augment")
    @classmethod
    def _known_augmentations(cls, value: list[str]) -> list[str]:
        for word in value:
            if not re.fullmatch(r"flip|(crop|cutout):[1-9]\d{0,3}", word):
                raise ValueError(f"unknown augmentation {word!r}: use flip, crop:PIXELS or cutout:PIXELS")
        return value

    @model_validator(mode="after")
    def _source_is_complete(self) -> Self:
        if (self.name == "custom") != (self.target is not None):
            raise ValueError("name: custom needs a target" if self.name == "custom" else f"a target goes with name: custom, not {self.name}")
        if self.name in ("arrays",) and self.path is None:
            raise ValueError("name: arrays needs a path to an .npz file")
        if self.name in ("image_folder",) and self.root is None:
            raise ValueError("name: image_folder needs a root folder")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction together leave nothing to train on")
        return self


class Model(Component):
    """A built-in or torchvision network by name, or the user's own; optionally pretrained and partly frozen."""

    pretrained: str | None = None  # a local weights file
    freeze: list[str] = Field(default_factory=list)  # name patterns (fnmatch) of parameters that are not trained


class Metric(Component):
    """What is reported beside the loss; larger is better unless `mode: min` (`mse` and `mae` are min by themselves)."""

    mode: Literal["min", "max"] | None = None

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return (self.mode or ("min" if self.name in ("mse", "mae") else "max")) == "max"


class Group(Section):
    """Parameters whose name matches `match` (fnmatch) train at `lr_factor` x LR and `decay_factor` x weight decay."""

    match: str
    lr_factor: NonNegative = 1.0
    decay_factor: NonNegative = 1.0


class Optimizer(Section):
    """SGD with (Nesterov) momentum and coupled L2, or AdamW with decoupled weight decay (momentum = beta1)."""

    name: Literal["sgd", "adamw"] = "sgd"
    nesterov: bool = True
    gradient_clip: Positive | None = None
    decay_bias_and_norm: bool = True
    beta2: Momentum = 0.999
    eps: Positive = 1e-8
    groups: list[Group] = Field(default_factory=list)


class ScheduleSection(Section):
    """The schedule of every trial but the range test; see `hptune.schedules`."""

    name: Literal["one_cycle", "constant", "step"] = "one_cycle"
    shape: Literal["linear", "torch", "three_phase"] = "linear"
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.45
    lr_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    tail_fraction: Fraction = 0.1
    tail_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1000.0
    milestones: list[Fraction] = Field(default_factory=lambda: [0.5, 0.75])
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.shape == "linear" and self.warmup_fraction + self.tail_fraction >= 1:
            raise ValueError("warmup_fraction and tail_fraction together leave no way down")
        if self.shape == "three_phase" and self.warmup_fraction > 0.5:
            raise ValueError("three_phase needs warmup_fraction of at most 0.5: the way down takes as long as the way up")
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
    search_epochs: Positive | None = None
    search: Positive | str | None = None

    @field_validator("search")
    @classmethod
    def _duration(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, str) and not DURATION.match(value):
            raise ValueError(f"{value!r} is no budget: give short runs (16) or wall time (90s, 20m, 1.5h)")
        return value

    @property
    def short_epochs(self) -> float:
        """Epochs of one short run: a fifth of the full training unless given, at least one where the full training has one."""
        return self.search_epochs or max(self.epochs / 5, min(1.0, self.epochs))

    @property
    def search_seconds(self) -> float | None:
        """Wall time for stages 1-5 in seconds, where the budget is one."""
        match = DURATION.match(self.search) if isinstance(self.search, str) else None
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else None

    @property
    def search_runs(self) -> float | None:
        """Short-run equivalents for stages 1-5, where the budget is that."""
        return self.search if isinstance(self.search, int | float) else None


class LrRange(Section):
    """Stage 1."""

    min_lr: Positive | None = None
    max_lr: Positive | None = None
    ramp: Literal["exponential", "linear"] = "exponential"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_lr is not None and self.max_lr is not None and self.min_lr >= self.max_lr:
            raise ValueError("min_lr must be below max_lr")
        return self


class BatchSize(Section):
    """Stage 2; `compare: samples` makes no result depend on timing."""

    values: Annotated[list[Count], Field(min_length=1)] = Field(default_factory=lambda: [32, 64, 128, 256])
    compare: Literal["time", "samples"] = "time"


class MomentumStage(Section):
    """Stage 3: the largest momentum of the cycle; `minimum` is where it falls to."""

    values: Annotated[list[Momentum], Field(min_length=1)] = Field(default_factory=lambda: [0.99, 0.97, 0.95, 0.9])
    minimum: Momentum = 0.85


class WeightDecay(Section):
    """Stage 4."""

    values: Annotated[list[NonNegative], Field(min_length=1)] | None = None
    bisect: bool = True


class Refine(Section):
    """Stage 5: joint trials when no search budget is given; with one, whatever is left of it."""

    trials: Annotated[int, Field(ge=0, le=100_000)] = 4


class Confirm(Section):
    """Stage 6: full-length trainings on fresh seeds of so many finalists besides the baseline."""

    seeds: Count = 5
    finalists: Annotated[int, Field(ge=1, le=20)] = 3


class Stages(Section):
    """What is searched, in order; False switches a stage off."""

    lr_range: LrRange | Literal[False] = Field(default_factory=LrRange)
    batch_size: BatchSize | Literal[False] = Field(default_factory=BatchSize)
    momentum: MomentumStage | Literal[False] = Field(default_factory=MomentumStage)
    weight_decay: WeightDecay | Literal[False] = Field(default_factory=WeightDecay)
    refine: Refine | Literal[False] = Field(default_factory=Refine)
    confirm: Confirm | Literal[False] = Field(default_factory=Confirm)

    @model_validator(mode="before")
    @classmethod
    def _on_means_defaults(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: {} if block is True or block is None else block for key, block in value.items()}
        return value


class ExecutorSection(Section):
    """Where trials run; none of these changes a result."""

    name: Literal["auto", "serial", "process", "ray"] = "auto"
    workers: Count | Literal["auto"] = "auto"
    threads: Count | Literal["auto"] = "auto"


class Experiment(Section):
    """One validated config, every default filled in."""

    version: Literal[1] = 1
    name: Name = "experiment"
    data: Data
    model: Model
    loss: Component = Field(default_factory=lambda: Component(name="cross_entropy"))
    metric: Metric = Field(default_factory=lambda: Metric(name="accuracy"))
    step: Target | None = None
    rank_by: Literal["val_loss", "metric"] = "val_loss"
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: ScheduleSection = Field(default_factory=ScheduleSection)
    baseline: Values = Field(default_factory=Values)
    hyperparameters: Values | None = None
    budget: BudgetSection = Field(default_factory=BudgetSection)
    seeds: Annotated[int, Field(ge=1, le=1000)] = 2
    stages: Stages = Field(default_factory=Stages)
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    executor: ExecutorSection = Field(default_factory=ExecutorSection)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if value in (".", "..") or re.search(r"[/\\\x00-\x1f:*?\"<>|]", value) or value != value.strip() or value.endswith("."):
            raise ValueError(f"{value!r} cannot name a folder: leave out / \\ : * ? \" < > | and spaces or dots at the ends")
        return value

    @model_validator(mode="before")
    @classmethod
    def _optimizer_defaults(cls, value: Any) -> Any:
        """Fill what depends on the optimizer: LR and weight-decay defaults, ranges and grids."""
        return _with_optimizer_defaults(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for key, component, known in (("loss", self.loss, LOSSES), ("metric", self.metric, METRICS)):
            if component.name is not None and component.name not in known:
                raise ValueError(f"{key}: unknown name {component.name!r}: use one of {', '.join(known)}, or a target")
        return self

    def baseline_hyperparameters(self) -> Hyperparameters:
        """The `baseline` block as hyper-parameters."""
        return self._hyperparameters(self.baseline)

    def chosen_hyperparameters(self) -> Hyperparameters:
        """What `train` uses: the `hyperparameters` block, or else the baseline."""
        return self._hyperparameters(self.hyperparameters or self.baseline)

    def _hyperparameters(self, values: Values) -> Hyperparameters:
        base = OPTIMIZER_DEFAULTS[self.optimizer.name]
        minimum = self.stages.momentum.minimum if self.stages.momentum else 0.85
        return Hyperparameters(
            lr=values.lr if values.lr is not None else base["lr"],
            batch_size=values.batch_size,
            momentum=values.momentum,
            momentum_min=min(values.momentum, minimum if values.momentum_min is None else values.momentum_min),
            weight_decay=values.weight_decay if values.weight_decay is not None else base["weight_decay"],
        )


OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 1e-4, "min_lr": 1e-4, "max_lr": 10.0, "grid": [1e-2, 1e-3, 1e-4, 0.0]},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2, "min_lr": 1e-6, "max_lr": 1.0, "grid": [1.0, 1e-1, 1e-2, 0.0]},
}


def check_target(value: str) -> str:
    """Return `value` if it has the form `file.py:name` or `package.module:name`; raise ValueError otherwise."""
    where, _, name = value.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"{value!r} is no target: write path/to/file.py:name or package.module:name")
    return value


def _with_optimizer_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    optimizer = tree.get("optimizer")
    name = optimizer.get("name", "sgd") if isinstance(optimizer, dict) else "sgd"
    base = OPTIMIZER_DEFAULTS.get(name, OPTIMIZER_DEFAULTS["sgd"]) if isinstance(name, str) else OPTIMIZER_DEFAULTS["sgd"]
    tree = dict(tree)
    _fill(tree, "baseline", lr=base["lr"], weight_decay=base["weight_decay"])
    stages = tree.get("stages")
    if stages is None or isinstance(stages, dict):
        stages = dict(stages or {})
        _fill(stages, "lr_range", min_lr=base["min_lr"], max_lr=base["max_lr"])
        _fill(stages, "weight_decay", values=list(base["grid"]))
        tree["stages"] = stages
    return tree


def _fill(tree: dict[str, Any], key: str, **defaults: Any) -> None:
    block = tree.get(key)
    if block is None or block is True:
        block = {}
    if isinstance(block, dict):
        tree[key] = {**defaults, **{k: v for k, v in block.items() if v is not None}}
