"""What a stage is, what it knows, and the runs it may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from hptune.analysis.candidates import NO_NOISE, Noise
from hptune.analysis.recommendation import Conclusion, Longer
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics, StopRule, TrialRecord, TrialSpec, derive_seed, known_fields

STAGES = ("lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm")
EVALUATIONS = 6  # validation points of a 1cycle run: enough for its clue, a few per cent of its cost
LONGER_REPETITIONS = 500  # those of refine's longer runs start here: seeds that have favoured nothing in short runs
FRESH_REPETITIONS = 1000  # confirm's repetitions start here: seeds no earlier stage has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """All that a stage decides from besides its own records; JSON-able, and journalled with the stage's plan.

    `settings`: the stage's block of the config. `start`: hyper-parameters to vary around; `sources`: where each came from.
    `noise`: pooled from earlier short runs. `allowance`: short-run equivalents the stage may spend (None: no budget).
    `speeds`: (batch size, samples per second relative to the baseline's batch size), from the batch-size stage; sizes not
    in it count as 1. A run at a size of speed 1.5 processes 1.5 times the samples: the same compute time.
    `history`: ids of all short trials planned so far (refine learns from them).
    """

    task: str
    numerics: Numerics
    train_samples: int
    val_samples: int
    test_samples: int
    optimizer: str
    schedule: Schedule
    start: Hyperparameters
    baseline: Hyperparameters
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[tuple[str, str], ...] = ()
    short_epochs: float = 1.0
    full_epochs: float = 5.0
    seeds: int = 2
    seed: int = 0
    rank_by: str = "val_loss"
    larger_is_better: bool = True
    noise: Noise = NO_NOISE
    allowance: float | None = None
    speeds: tuple[tuple[int, float], ...] = ()
    history: tuple[str, ...] = ()

    def speed(self, batch_size: int) -> float:
        """Samples per second at `batch_size` relative to the baseline's batch size."""
        return dict(self.speeds).get(batch_size, 1.0)

    def steps(self, epochs: float, batch_size: int) -> int:
        """Optimizer steps of a run worth `epochs` epochs at the baseline's speed; the ragged last batch of an epoch is dropped."""
        return max(1, round(epochs * self.speed(batch_size) * (self.train_samples // batch_size)))

    def cost(self, spec: TrialSpec) -> float:
        """Cost of a trial in short-run equivalents."""
        return spec.samples / self.speed(spec.hyperparameters.batch_size) / (self.short_epochs * self.train_samples)

    def spent(self, record: TrialRecord) -> float:
        """What a trial took, in short-run equivalents: less than its cost where it ended early."""
        return self.cost(record.spec) * record.samples / record.spec.samples

    def longer(self, ratio: float) -> Longer:
        """A training `ratio` times as long as a short run."""
        return Longer(ratio=ratio, samples=self.short_epochs * ratio * self.train_samples, optimizer=self.optimizer, speeds=self.speeds)

    def short_run(self, hyperparameters: Hyperparameters, repetition: int = 0, **changes: Any) -> TrialSpec:
        """A short 1cycle run."""
        return self.run(hyperparameters, epochs=self.short_epochs, repetition=repetition, **changes)

    def full_run(self, hyperparameters: Hyperparameters, repetition: int, share: float = 1.0) -> TrialSpec:
        """A training at `share` of the full length on a fresh seed; its test part is measured where there is one."""
        return self.run(
            hyperparameters, epochs=self.full_epochs * share, repetition=FRESH_REPETITIONS + repetition, test=self.test_samples > 0
        )

    def run(self, hyperparameters: Hyperparameters, *, epochs: float, repetition: int, **changes: Any) -> TrialSpec:
        """A training of `epochs` epochs under the config's schedule, evaluated at `EVALUATIONS` even points."""
        steps = self.steps(epochs, hyperparameters.batch_size)
        points = tuple(sorted({max(1, round(steps * (i + 1) / EVALUATIONS)) for i in range(EVALUATIONS)}))
        spec = {
            "task": self.task,
            "hyperparameters": hyperparameters,
            "schedule": self.schedule,
            "steps": steps,
            "seed": derive_seed(self.seed, repetition),
            "repetition": repetition,
            "evaluate_at": points,
            "numerics": self.numerics,
            "stop": StopRule(),
        }
        fields = {**spec, **changes}
        return TrialSpec(**{**fields, "numerics": fields["numerics"].for_batch(fields["hyperparameters"].batch_size)})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Knowledge:
        """Rebuild from `to_json`'s form; fields of a later minor version are ignored."""
        known = known_fields(cls, data)
        known["schedule"] = Schedule.from_json(known_fields(Schedule, data["schedule"]))
        known["numerics"] = Numerics(**known_fields(Numerics, data["numerics"]))
        known["noise"] = Noise(**known_fields(Noise, data["noise"]))
        for name in ("start", "baseline"):
            known[name] = Hyperparameters(**known_fields(Hyperparameters, data[name]))
        for name in ("sources", "speeds"):
            known[name] = tuple((key, value) for key, value in data[name])
        known["history"] = tuple(data["history"])
        return cls(**known)


class Stage(Protocol):
    """A stage plans in complete rounds and concludes from what they left; it never sees clocks, files or workers."""

    name: str

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """Return the next round given the records of all earlier ones (in plan order); empty when the stage is finished."""
        ...

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Return what the records show; the same from the same records, complete or not."""
        ...
