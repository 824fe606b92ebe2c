"""The config as pydantic models: every key, its type, range and default.

`Experiment` is the validated whole. Paths and targets inside it are absolute (the loader resolves them against the config
file); nothing here touches files. Defaults that depend on the optimizer are filled by `Experiment` itself, so that a dumped
config shows every value in force.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from hptune.config.fields import (
    Count,
    Fraction,
    InnerFraction,
    LoadersOrAuto,
    Momentum,
    NonNegative,
    PathText,
    Positive,
    Section,
    TargetName,
    needs,
    quoted,
    suggestion,
)
from hptune.config.sections import BudgetSection, ExecutorSection, ScheduleSection, Stages, Values
from hptune.errors import CONTROL
from hptune.trial import Hyperparameters

DataName = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "arrays", "custom"]
DATA_NAMES: tuple[str, ...] = get_args(DataName)
DOWNLOADED = ("mnist", "fashion_mnist", "cifar10", "cifar100")
GOES_WITH = {
    "root": (*DOWNLOADED, "image_folder"),
    "download": DOWNLOADED,
    "path": ("arrays",),
    "size": ("image_folder",),
    "args": ("custom",),
}
"""The data sources that read a key; with any other it would be ignored."""
LOSSES = ("cross_entropy", "mse", "l1", "smooth_l1", "bce_with_logits")
METRICS = ("accuracy", "mse", "mae", "none")
DEVICES = r"^(auto|cpu|cuda(:[0-9]{1,2})?|mps)$"
LONGEST_NAME = 100  # characters
LONGEST_NAME_BYTES = 200  # a file system allows 255; runs that are renamed get a suffix
NOT_IN_NAMES = re.compile(f'[/\\\\:*?"<>|]|{CONTROL.pattern}')
RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]) *(\.|\Z)", re.IGNORECASE)
"""Windows's names for devices: with any extension, in any case, and the digits also small and raised."""


class Target(Section):
    """The user's own code: `path/to/file.py:name` or `package.module:name`, called with `args`."""

    target: TargetName
    args: dict[str, Any] = Field(default_factory=dict)


def _allow_word(schema: dict[str, Any]) -> None:
    """Add the short form to a component's JSON schema."""
    block = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, block]


class Component(Section):
    """Something built in, by `name`, or the user's own, by `target`; a plain word is a name."""

    model_config = ConfigDict(json_schema_extra=_allow_word)
    known: ClassVar[tuple[str, ...]] = ()  # the first is the default; where empty, only the engine can tell

    name: str | None = None
    target: TargetName | None = None
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and cls.known and value.get("name") is None and value.get("target") is None:
            return {**value, "name": cls.known[0]}
        return value

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and cls.known and value not in cls.known:
            raise ValueError(
                f"unknown name {quoted(value)}{suggestion(value, cls.known)} (one of {', '.join(cls.known)}; or give a target)"
            )
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.name is None) == (self.target is None):
            raise ValueError("give a name or a target" if self.name is None else "give a name or a target, not both")
        return self


class Data(Section):
    """Where the samples come from and how they are split."""

    name: DataName = "custom"
    root: PathText | None = None
    download: bool = False
    path: PathText | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    size: Count | None = None  # image_folder: pixels of the square images are resized to
    target: TargetName | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    collate: Target | None = None
    limit: Count | None = None
    val_fraction: InnerFraction = 0.2
    test_fraction: Fraction = 0.2
    split: Annotated[
        Literal["stratified", "random", "time"] | Annotated[dict[Literal["group"], str], Field(min_length=1)],
        needs("stratified, random, time or {group: KEY}"),
    ] = "stratified"
    augment: list[str] = Field(default_factory=list)
    workers: LoadersOrAuto = "auto"  # processes that read the items of a Dataset; 0 is the one that trains

    @field_validator("augment")
    @classmethod
    def _known_augmentations(cls, value: list[str]) -> list[str]:
        for word in value:
            if not re.fullmatch(r"flip|(crop|cutout):[1-9][0-9]{0,3}", word):
                raise ValueError(f"unknown augmentation {quoted(word)}: use flip, crop:PIXELS or cutout:PIXELS, such as crop:4")
        return value

    @model_validator(mode="after")
    def _source_is_complete(self) -> Self:
        if self.name == "custom" and self.target is None:
            raise ValueError(f"give a name (one of {', '.join(DATA_NAMES)}) or a target, such as mine.py:load")
        if self.name != "custom" and self.target is not None:
            raise ValueError(f"a target is the user's own data, but name is {self.name}: leave one of them out")
        for key, sources in GOES_WITH.items():
            if self.name not in sources and getattr(self, key):
                raise ValueError(f"{self.name} takes no {key}: it goes with {', '.join(sources)}")
        if self.name == "arrays" and self.path is None:
            raise ValueError("arrays needs a path: the .npz file with x_train and y_train")
        if self.name == "image_folder" and self.root is None:
            raise ValueError("image_folder needs a root: the folder with one folder of images for each class")
        if self.val_fraction + self.test_fraction >= 1:
            share = self.val_fraction + self.test_fraction
            raise ValueError(f"val_fraction and test_fraction together take {share:g} of the samples: nothing is left to train on")
        return self


class Loss(Component):
    """What is minimized."""

    known: ClassVar[tuple[str, ...]] = LOSSES


class Model(Component):
    """A built-in or torchvision network by name, or the user's own; optionally pretrained and partly frozen."""

    pretrained: PathText | None = None  # a local weights file
    freeze: list[str] = Field(default_factory=list)  # name patterns (fnmatch) of parameters that are not trained


class Metric(Component):
    """What is reported beside the loss; larger is better unless `mode: min` (`mse` and `mae` are min by themselves)."""

    known: ClassVar[tuple[str, ...]] = METRICS

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


class Experiment(Section):
    """One validated config, every default filled in."""

    version: Annotated[int, Field(ge=1, le=1), needs("1, the only version of configs there is")] = 1
    name: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)] = "experiment"
    data: Data
    model: Model
    loss: Loss = Field(default_factory=Loss)
    metric: Metric = Field(default_factory=Metric)
    step: Target | None = None
    rank_by: Literal["val_loss", "metric"] = "val_loss"
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: ScheduleSection = Field(default_factory=ScheduleSection)
    baseline: Values = Field(default_factory=Values)
    hyperparameters: Values | None = None
    budget: BudgetSection = Field(default_factory=BudgetSection)
    seeds: Annotated[int, Field(ge=1, le=1000)] = 2
    stages: Stages = Field(default_factory=Stages)
    device: Annotated[str, StringConstraints(pattern=DEVICES), needs("auto, cpu, cuda, cuda:N or mps")] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    executor: ExecutorSection = Field(default_factory=ExecutorSection)
    tracking: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default_factory=list)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if RESERVED.match(value):
            raise ValueError(f"{quoted(value)} cannot name a folder: Windows keeps this name for a device")
        if len(value.encode()) > LONGEST_NAME_BYTES:
            raise ValueError(f"must have at most {LONGEST_NAME_BYTES} bytes as UTF-8, got {len(value.encode())}")
        if value != folder_name(value):
            raise ValueError(f'{quoted(value)} cannot name a folder: leave out / \\ : * ? " < > | and spaces or dots at the ends')
        return value

    @field_validator("rank_by")
    @classmethod
    def _has_a_metric(cls, value: str, info: ValidationInfo) -> str:
        metric = info.data.get("metric")
        if value == "metric" and metric is not None and metric.name == "none":
            raise ValueError("there is no metric to rank by: metric is none")
        return value

    @model_validator(mode="before")
    @classmethod
    def _optimizer_defaults(cls, value: Any) -> Any:
        """Fill what depends on the optimizer: LR and weight-decay defaults, ranges and grids."""
        return _with_optimizer_defaults(value) if isinstance(value, dict) else value

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


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a config file, for editors: short forms, `off` for stages and all."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}


OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 1e-4, "min_lr": 1e-4, "max_lr": 10.0, "grid": [1e-2, 1e-3, 1e-4, 0.0]},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2, "min_lr": 1e-6, "max_lr": 1.0, "grid": [1.0, 1e-1, 1e-2, 0.0]},
}


def folder_name(text: str, *, room: int = 0) -> str:
    """Return `text` without what folder names cannot hold on one system or another; `experiment` where nothing is left.

    `room` bytes are left free for a suffix.
    """
    name = _cut(NOT_IN_NAMES.sub("-", text).strip(" .\t"), room) or "experiment"
    return _cut(f"run-{name}", room) if RESERVED.match(name) else name


def _cut(name: str, room: int) -> str:
    """`name` without what is too long, cut between characters."""
    short = name[: LONGEST_NAME - room].encode()[: LONGEST_NAME_BYTES - room]
    return short.decode(errors="ignore").strip(" .")


def _with_optimizer_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    optimizer = tree.get("optimizer")
    name = optimizer.get("name", "sgd") if isinstance(optimizer, dict) else "sgd"
    base = OPTIMIZER_DEFAULTS.get(str(name), OPTIMIZER_DEFAULTS["sgd"])
    tree = dict(tree)
    _fill(tree, "baseline", lr=base["lr"], weight_decay=base["weight_decay"])
    if tree.get("hyperparameters") is not None and isinstance(tree["baseline"], dict):
        _fill(tree, "hyperparameters", **{key: tree["baseline"][key] for key in Values.model_fields if key in tree["baseline"]})
    stages = tree.get("stages")
    if stages is None or isinstance(stages, dict):
        stages = {key: {} if block is True else block for key, block in (stages or {}).items()}
        _fill(stages, "lr_range", min_lr=base["min_lr"], max_lr=base["max_lr"])
        _fill(stages, "weight_decay", values=list(base["grid"]))
        tree["stages"] = stages
    return tree


def _fill(tree: dict[str, Any], key: str, **defaults: Any) -> None:
    """Put `defaults` where the block `key` has nothing."""
    block = tree.get(key)
    if block is None:
        block = {}
    if isinstance(block, dict):
        tree[key] = {**defaults, **{k: v for k, v in block.items() if v is not None or k not in defaults}}
