"""One training as an object that can be advanced, saved and continued; search trials and full trainings share it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hptune.engine.measure import measure, set_training
from hptune.engine.numerics import in_force
from hptune.engine.randomness import generator, random_state, seed_all, seeded, set_random_state, stream_seed
from hptune.engine.series import Evaluation, Series
from hptune.engine.step import Step
from hptune.engine.update import Updater
from hptune.engine.workload import Problem
from hptune.errors import InputError
from hptune.schedules import tabulate
from hptune.trial import TrialSpec


@contextmanager
def conditions(problem: Problem, spec: TrialSpec) -> Iterator[None]:
    """Set numerics and random states as `spec` says; afterwards everything global is as before. A `Training` lives within."""
    with in_force(spec.numerics), seeded(spec.seed, problem.device):
        yield


class Training:
    """A training of `spec`, from fresh weights drawn by its seed.

    `done`: optimizer steps so far. `taken`: batches so far, which is more where fp16 skipped updates. `seconds`: spent training,
    evaluations aside. Each epoch goes through a permutation drawn from seed and epoch alone, so that candidates of different batch
    size see the samples in the same order; its ragged last batch is dropped. Raises InputError where a batch is larger than the part.
    """

    def __init__(self, problem: Problem, spec: TrialSpec) -> None:
        self.problem, self.spec = problem, spec
        own = spec.hyperparameters
        samples = len(problem.parts.train)
        if own.batch_size > samples:
            raise InputError(f"batch size {own.batch_size} is more than the {samples} training samples")
        self.table = tabulate(
            spec.schedule, steps=spec.steps, lr=own.lr, momentum=own.momentum, momentum_min=own.momentum_min
        )  # fmt: skip
        self.model = problem.fresh_model(spec.numerics)
        seed_all(stream_seed(spec.seed, "dropout"), problem.device)
        self.updater = Updater(self.model, problem.experiment.optimizer)
        self._augmentation = generator(spec.seed, "augment", device=problem.device)
        self._step = Step(problem, self.model, self.updater, spec.numerics, self._augmentation)
        self.series = Series(spec.steps, problem.device)
        self.done = self.taken = 0
        self.seconds = 0.0
        self.diverged = False
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._values = _on_device(self.table.lr, problem.device), _on_device(self.table.momentum, problem.device)
        set_training(self.model)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training part."""
        return len(self.problem.parts.train) // self.spec.hyperparameters.batch_size

    def run(self, marks: Collection[int] = ()) -> Iterator[int]:
        """Train to the last step or to divergence, evaluating on the way; yield `done` at each check and at each of `marks`.

        Checks come every window of the stop rule and at evaluations: the spec alone says where, `marks` change no result.
        """
        spec = self.spec
        checks = {*range(spec.stop.window, spec.steps + 1, spec.stop.window), *spec.evaluate_at, spec.steps}
        for pause in sorted({*checks, *marks}):
            if self.done < pause <= spec.steps and not self.diverged:
                self.advance(pause - self.done)
                if pause in spec.evaluate_at:
                    self._evaluate()
                if pause in checks:
                    self.diverged = self.series.diverged(pause, spec.stop, spec.hyperparameters.batch_size)
                yield pause

    def advance(self, steps: int) -> None:
        """Take `steps` optimizer steps."""
        weight_decay = self.spec.hyperparameters.weight_decay
        lr, momentum = self._values
        began = time.perf_counter()
        end = self.done + steps
        while self.done < end:
            at = self.done
            loss = self._step(self._next_indices(), lr[at], momentum[at], weight_decay)
            self.taken += 1
            if loss is not None:
                self.series.on_device[at] = loss
                self.done += 1
        self.series.losses(self.done)  # waits for the device
        self.seconds += time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs to continue to the bit, in types that load as weights only."""
        held = self.model.state_dict()
        return {
            "model": held,
            "buffers": {name: b for name, b in self.model.named_buffers() if name not in held},
            "updater": self.updater.state_dict(),
            "done": self.done,
            "taken": self.taken,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "losses": self.series.on_device[: self.done].cpu(),
            "evaluations": [[e.step, e.loss, e.metric] for e in self.series.evaluations],
            "random": random_state(self.problem.device),
            "augmentation": self._augmentation.get_state(),
            "scale": self._step.scale.state() if self._step.scale is not None else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned for the same spec."""
        self.model.load_state_dict(state["model"])
        buffers = dict(self.model.named_buffers())
        with torch.no_grad():
            for name, value in state["buffers"].items():
                buffers[name].copy_(value)
        self.updater.load_state_dict(state["updater"])
        self.done, self.taken = int(state["done"]), int(state["taken"])
        self.seconds, self.diverged = float(state["seconds"]), bool(state["diverged"])
        self.series.restore(state["losses"], [Evaluation(*entry) for entry in state["evaluations"]])
        set_random_state(state["random"], self.problem.device)
        self._augmentation.set_state(state["augmentation"])
        if self._step.scale is not None:
            self._step.scale.restore(state["scale"])

    def _evaluate(self) -> None:
        found = measure(self.problem, self.model, self.problem.parts.val, self.spec.numerics, limit=self.spec.validation_limit)
        self.series.evaluations.append(Evaluation(self.done, found.loss, found.metric))

    def _next_indices(self) -> Tensor:
        epoch, position = divmod(self.taken, self.steps_per_epoch)
        if epoch != self._order[0]:
            order = torch.randperm(len(self.problem.parts.train), generator=generator(self.spec.seed, "order", epoch))
            self._order = epoch, order
        size = self.spec.hyperparameters.batch_size
        return self._order[1][position * size : (position + 1) * size]


def _on_device(values: Any, device: torch.device) -> Any:
    """A column of the schedule table as the update reads it: numbers on the CPU, tensors on a device that must not wait for the host."""
    return values.tolist() if device.type == "cpu" else torch.from_numpy(values).float().to(device)
