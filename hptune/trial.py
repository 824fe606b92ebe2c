"""What a trial is: its hyper-parameters, its complete specification, and the record it leaves.

A `TrialSpec` holds everything that decides a trial's numbers; `trial_id` is a hash of that content, so the same training is
recognized whichever command asks for it. None of these types knows torch, files or clocks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from typing import Any, Literal

from hptune.schedules import ADDED_LATER, Schedule

Status = Literal["completed", "diverged", "out_of_memory", "failed"]

LARGEST = 1e100  # losses and metrics beyond are no results: their squares overflow, and no loss in float32 comes near


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The values the search moves.

    `lr`: maximum learning rate of the schedule. `batch_size`: samples per optimizer step. `momentum`: largest momentum (AdamW: beta1);
    `momentum_min`: the value it falls to under 1cycle. `weight_decay`: coupled L2 for sgd, decoupled for adamw, per unit of LR.
    """

    lr: float
    batch_size: int
    momentum: float
    momentum_min: float
    weight_decay: float

    def but(self, **changes: Any) -> Hyperparameters:
        """Return a copy with `changes`; `momentum_min` never exceeds `momentum`."""
        new = replace(self, **changes)
        return replace(new, momentum_min=new.momentum) if new.momentum_min > new.momentum else new


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What changes floating-point results besides the mathematics: settled before a sweep by a fixed rule, then part of every spec.

    `device` is the type (`cpu`, `cuda`, `mps`), `device_model` its name; `threads` CPU threads of one trial; `micro_batch` samples
    per forward pass where a batch is accumulated in pieces (None: whole batches); `compiled`: forward and backward by `torch.compile`.
    `replicas`: devices that train one network together, each on its rows of every batch (data parallel); `threads` and `micro_batch` are
    then of each. `sync_batch_norm`: batch norm sees the rows of all of them, not its own alone.
    """

    device: str = "cpu"
    device_model: str = ""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: int = 1
    channels_last: bool = False
    micro_batch: int | None = None
    compiled: bool = False
    replicas: int = field(default=1, metadata=ADDED_LATER)
    sync_batch_norm: bool = field(default=False, metadata=ADDED_LATER)

    def share(self, batch_size: int) -> int:
        """Samples of a batch that a replica takes, the largest share where they are uneven."""
        return -(-batch_size // self.replicas)

    def on_one_device(self) -> Numerics:
        """The same without other replicas."""
        return replace(self, replicas=1, sync_batch_norm=False)

    def for_batch(self, batch_size: int) -> Numerics:
        """The same for trials of one batch size: without micro-batches where these hold a replica's whole share."""
        whole = self.micro_batch is not None and self.micro_batch >= self.share(batch_size)
        return replace(self, micro_batch=None) if whole else self

    def within(self, micro_batch: int | None) -> Numerics:
        """The same with passes of at most `micro_batch` samples; None is no limit."""
        limits = [limit for limit in (self.micro_batch, micro_batch) if limit is not None]
        return replace(self, micro_batch=min(limits, default=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a trial ends early. Loss not finite always stops it.

    The training loss is averaged over `window` steps; a mean above `factor` times that of the first steps, the reference of an
    untrained model (ramps: times the lowest so far, which is what `relative_to_best` says), counts as divergence.
    """

    factor: float = 4.0
    window: int = 10
    relative_to_best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """Everything that decides a trial's numbers.

    `task`: hash of data, model, loss, metric, optimizer, the user's code and library versions. `steps`: optimizer steps.
    `evaluate_at`: numbers of steps done after which the validation loss is measured (the last is always `steps`).
    `validation_limit`: measure on a fixed subset of so many validation samples, or on all. `test`: measure the test part at the end.
    `repetition` *k* has the same `seed` for every candidate: initialization, order and augmentation are shared in pairs.
    """

    task: str
    hyperparameters: Hyperparameters
    schedule: Schedule
    steps: int
    seed: int
    repetition: int
    evaluate_at: tuple[int, ...]
    numerics: Numerics = Numerics()
    validation_limit: int | None = None
    stop: StopRule = StopRule()
    test: bool = False

    @property
    def trial_id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON of `hashed_content`."""
        return _identify(self)

    @property
    def samples(self) -> int:
        """Training samples the whole trial processes: the unit of cost."""
        return self.steps * self.hyperparameters.batch_size

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is the inverse."""
        return _plain(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialSpec:
        """Rebuild a spec from `to_json`'s form; fields of a later minor version are ignored."""
        known = known_fields(cls, data)
        known["hyperparameters"] = Hyperparameters(**known_fields(Hyperparameters, data["hyperparameters"]))
        known["schedule"] = Schedule.from_json(known_fields(Schedule, data["schedule"]))
        known["numerics"] = Numerics(**known_fields(Numerics, data["numerics"]))
        known["stop"] = StopRule(**known_fields(StopRule, data["stop"]))
        known["evaluate_at"] = tuple(data["evaluate_at"])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSummary:
    """A trial's curve at its evaluation points; all tuples have one entry a point.

    `train_loss` is the mean over the steps since the point before, `lr` the rate used at that step.
    """

    step: tuple[int, ...] = ()
    lr: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    val_loss: tuple[float, ...] = ()
    metric: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """What a trial left. Losses are NaN where there is none; `seconds`, `samples_per_second`, `worker` and `host` are not reproducible.

    `worker`: its process. `host`: the machine, where that is not the one that wrote the record.

    `train_loss`: mean over the steps after the last-but-one evaluation. `val_block_losses`, `test_block_losses`: mean final loss on up to
    16 or 32 equal blocks of the part, in fixed order, from which the sampling error of a difference follows.
    """

    spec: TrialSpec
    status: Status
    val_loss: float = math.nan
    metric: float = math.nan
    best_val_loss: float = math.nan
    best_metric: float = math.nan
    train_loss: float = math.nan
    test_loss: float = math.nan
    test_metric: float = math.nan
    val_block_losses: tuple[float, ...] = ()
    test_block_losses: tuple[float, ...] = ()
    curve: CurveSummary = field(default_factory=CurveSummary)
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    device: str = "cpu"
    worker: int = 0
    host: str = ""
    error: str | None = None

    @property
    def trial_id(self) -> str:
        """The id of the trial that left this record."""
        return self.spec.trial_id

    @property
    def usable(self) -> bool:
        """Whether the trial completed with a validation loss that `is_result`, so that it can be ranked."""
        return self.status == "completed" and is_result(self.val_loss)

    @property
    def samples_per_second(self) -> float:
        """Training samples per second of the whole trial, evaluation included; 0 where no time was measured."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values with the `trial_id`; NaN and infinities stay floats."""
        return {"trial_id": self.trial_id, **_plain(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRecord:
        """Rebuild a record from `to_json`'s form; fields of a later minor version are ignored."""
        known = known_fields(cls, data)
        known["spec"] = TrialSpec.from_json(data["spec"])
        curve = {name: tuple(values) for name, values in known_fields(CurveSummary, data["curve"]).items()}
        known["curve"] = CurveSummary(**curve)
        for name in ("val_block_losses", "test_block_losses"):
            known[name] = tuple(data.get(name, ()))
        return cls(**known)


def is_result(value: float) -> bool:
    """Whether a loss or metric can be compared with others: neither NaN nor infinite, nor larger than `LARGEST` in size."""
    return abs(value) <= LARGEST


@lru_cache(maxsize=2**16)
def _identify(spec: TrialSpec) -> str:
    return content_hash(hashed_content(spec))


def _plain(value: Any) -> dict[str, Any]:
    """`asdict` for types whose tuples hold numbers alone: it copies nothing, which is what asdict takes its time for."""
    names = value.__dataclass_fields__
    return {name: _plain(own) if hasattr(own := getattr(value, name), "__dataclass_fields__") else own for name in names}


def hashed_content(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name, dataclasses in them likewise, without those `ADDED_LATER` that have their default."""
    return {
        name: hashed_content(own) if hasattr(own, "__dataclass_fields__") else own
        for name, left_out in _left_out(value.__class__)
        if (own := getattr(value, name)) != left_out
    }


@cache
def _left_out(cls: type) -> tuple[tuple[str, object], ...]:
    """Each field's name, with the value of which it is left out; any other has an object that equals nothing."""
    return tuple((f.name, f.default if f.metadata == ADDED_LATER else object()) for f in fields(cls))


def content_hash(content: object) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of `content` as JSON with sorted keys and no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def derive_seed(seed: int, repetition: int) -> int:
    """A 31-bit seed for repetition `repetition` of the experiment seed `seed`, the same for every candidate."""
    digest = hashlib.sha256(f"{seed}/{repetition}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def known_fields(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `data` that are fields of the dataclass `cls`: unknown ones come from a later minor version."""
    names = _field_names(cls)
    return {name: value for name, value in data.items() if name in names}


@cache
def _field_names(cls: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(cls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all trials of a sweep share, as the engine found it when data and model were built once.

    `task_id` is the hash of `identity` (fingerprints of data and user code, resolved model, loss, metric, optimizer, versions).
    `test_samples` is 0 without a test part; `classes` 0 for regression; `notes` are sentences worth showing. `flops`: floating-point
    operations of forward and backward pass for one training sample, as far as torch counts them.
    """

    task_id: str
    identity: Mapping[str, Any]
    train_samples: int
    val_samples: int
    test_samples: int
    classes: int
    parameters: int
    numerics: Numerics
    notes: tuple[str, ...] = ()
    flops: int = 0


STEPS_TIMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """Measure the seconds of one optimizer step at this batch size."""

    hyperparameters: Hyperparameters
    numerics: Numerics
    steps: int = STEPS_TIMED


@dataclass(frozen=True, slots=True)
class Opening:
    """Open data and model where trials will run, and tell what the task is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Median seconds of one optimizer step and of evaluating one sample; infinite where not even one sample fits in memory.

    `micro_batch`: how many samples fit in memory at once, where the batch is more; its gradients were then accumulated.
    `memory_share`: the part of the device's memory that all processes together held meanwhile; 0 on a CPU.
    """

    batch_size: int
    seconds_per_step: float
    seconds_per_evaluated_sample: float
    micro_batch: int | None = None
    memory_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Curve:
    """A trial's series by step, one list a column, None where nothing was measured; `step` counts steps done."""

    columns: Mapping[str, list[float | int | None]]


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What performing a trial returns: the record for the journal and the curve for its file."""

    record: TrialRecord
    curve: Curve
