"""One training as an object that can be advanced, saved and continued; search trials and full trainings share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn

from hptune.engine.measure import VAL_BLOCKS, measure
from hptune.engine.numerics import in_force
from hptune.engine.order import Order, Piece, pieces_of
from hptune.engine.program import Program, rig_for
from hptune.engine.randomness import random_state, seed_all, seeded, set_random_state, stream_seed
from hptune.engine.ranks import Ranks, ranks_of
from hptune.engine.series import Evaluation, Series
from hptune.engine.workload import Problem
from hptune.errors import InputError
from hptune.pulse import PULSE
from hptune.schedules import tabulate
from hptune.trial import TrialSpec


def _never() -> bool:
    return False


@contextmanager
def conditions(problem: Problem, spec: TrialSpec) -> Iterator[None]:
    """Set numerics and random states as `spec` says; afterwards everything global is as before. A `Training` lives within."""
    with in_force(spec.numerics), seeded(spec.seed, problem.device):
        yield


class Training:
    """A training of `spec`, from fresh weights drawn by its seed.

    `done`: optimizer steps so far. `taken`: batches so far, which is more where fp16 skipped updates. `seconds`: spent training,
    evaluations aside. The samples come as `Order` has them. `close` ends what reads them ahead. Raises InputError where a batch is
    larger than the part, or too small for the ranks.

    Of several ranks (`ranks`) each has its own such object, and all do the same with theirs: what it says of losses, divergence and
    evaluations is the same on each.
    """

    def __init__(self, problem: Problem, spec: TrialSpec) -> None:
        self.problem, self.spec = problem, spec
        own = spec.hyperparameters
        samples = len(problem.parts.train)
        if own.batch_size > samples:
            raise InputError(f"batch size {own.batch_size} is more than the {samples} training samples")
        self.ranks = ranks_of(spec.numerics)
        _check_shares(spec)
        self.table = tabulate(
            spec.schedule, steps=spec.steps, lr=own.lr, momentum=own.momentum, momentum_min=own.momentum_min
        )  # fmt: skip
        self._rig, self._program = rig_for(problem, own.batch_size, spec.numerics)
        self._rig.generator.manual_seed(stream_seed(spec.seed, "augment"))
        seed_all(stream_seed(spec.seed, "dropout", self.ranks.rank), problem.device)
        self.series = Series(spec.steps, problem.device, self.ranks)
        self.done = self.taken = 0
        self.seconds = 0.0
        self.diverged = False
        self._order = Order(
            samples, own.batch_size, batches=spec.steps, seed=spec.seed, micro_batch=spec.numerics.micro_batch, ranks=self.ranks
        )  # fmt: skip
        self._epoch: tuple[int, Tensor] = (-1, torch.empty(0))  # its number and batches, where a program reads them
        self._feed: Generator[Any, None, None] | None = None
        self._fed = 0  # batches up to which the feed goes
        by_number = problem.device.type == "cpu" and self._program is None
        self._values = [
            values.tolist() if by_number else torch.from_numpy(values).float().to(problem.device)
            for values in (self.table.lr, self.table.momentum, own.weight_decay * self.table.weight_decay)
        ]  # tensors where the device must not wait for the host

    @property
    def model(self) -> nn.Module:
        """The network as it is now."""
        return self._rig.model

    @property
    def divergence(self) -> str | None:
        """Why the training must end here, in a sentence; None while it may go on."""
        return self.series.divergence(self.done, self.spec.stop, self.spec.hyperparameters.batch_size)

    @property
    def told(self) -> int:
        """Steps up to which everything can be told, also after an exception: other ranks may then no longer be asked."""
        return self.done if self.ranks.size == 1 else self.series.read

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training part."""
        return len(self.problem.parts.train) // self.spec.hyperparameters.batch_size

    def run(self, marks: Collection[int] = (), stop: Callable[[], bool] = _never) -> Iterator[int]:
        """Train to the last step or to divergence, evaluating on the way; yield `done` at each check and at each of `marks`.

        Checks come every window of the stop rule and at evaluations: the spec alone says where, `marks` change no result. Once `stop`
        says so, it ends after the step at hand, having yielded that too: another `run` goes on from there. Among several ranks it
        never looks at `stop`: they can end at a check only, by the first one's word.
        """
        spec = self.spec
        stop = stop if self.ranks.size == 1 else _never
        checks = {*range(spec.stop.window, spec.steps + 1, spec.stop.window), *spec.evaluate_at, spec.steps}
        for pause in sorted({*checks, *marks}):
            if self.done < pause <= spec.steps and not self.diverged:
                self.advance(pause - self.done, stop)
                if self.done < pause:
                    yield self.done
                    return
                if pause in spec.evaluate_at:
                    self._evaluate()
                if pause in checks:
                    self.diverged = self.series.diverged(pause, spec.stop, spec.hyperparameters.batch_size)
                yield pause

    def advance(self, steps: int, stop: Callable[[], bool] = _never) -> None:
        """Take `steps` optimizer steps, or fewer once `stop` says so."""
        began = time.perf_counter()
        end = self.done + steps
        while self.done < end and not stop():
            if self._program is not None:
                self._replay(self._program, end)
            else:
                self._take_step()
        self.series.losses(self.done)  # waits for the device
        self.seconds += time.perf_counter() - began

    def _take_step(self) -> None:
        PULSE.beat()
        at = self.done
        loss = self._rig.step(self._next_batch(), *(values[at] for values in self._values))
        self.taken += 1
        if loss is not None:
            self.series.on_device[at] = loss
            self.done += 1

    def _replay(self, program: Program, end: int) -> None:
        """Take steps up to `end`, or to the end of the epoch, as replays."""
        PULSE.beat()
        epoch, position = divmod(self.taken, self.steps_per_epoch)
        until = min(end, self.done + self.steps_per_epoch - position)
        steps = slice(self.done, until)
        if epoch != self._epoch[0]:
            self._epoch = epoch, self._order.epoch(epoch).to(self.problem.device)
        batches = self._epoch[1][position : position + until - self.done]
        self.series.on_device[steps] = program.run(batches, *(values[steps] for values in self._values))
        self.taken += until - self.done
        self.done = until

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs to continue to the bit, on all ranks, in types that load as weights only."""
        held = self.model.state_dict()
        return {
            "model": held,
            "buffers": {name: b for name, b in self.model.named_buffers() if name not in held},
            "updater": self._rig.updater.state_dict(),
            "done": self.done,
            "taken": self.taken,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "losses": torch.from_numpy(self.series.losses(self.done)),
            "evaluations": [astuple(e) for e in self.series.evaluations],
            "random": self.ranks.everyone(random_state(self.problem.device)),
            "augmentation": self._rig.generator.get_state(),
            "scale": self._rig.step.scale.state() if self._rig.step.scale is not None else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned for the same spec."""
        self.close()
        if self.ranks.size > 1 and state["done"]:
            self._rig.step.settle(self.problem.parts.train.take(self._order[0]), self._order.pieces[0])
        self.model.load_state_dict(state["model"])
        buffers = dict(self.model.named_buffers())
        with torch.no_grad():
            for name, value in state["buffers"].items():
                buffers[name].copy_(value)
        self._rig.updater.load_state_dict(state["updater"])
        self.done, self.taken = int(state["done"]), int(state["taken"])
        self.seconds, self.diverged = float(state["seconds"]), bool(state["diverged"])
        self.series.restore(state["losses"], [Evaluation(*entry) for entry in state["evaluations"]])
        random = state["random"]  # earlier versions knew one rank only
        set_random_state(random[self.ranks.rank] if isinstance(random, list) else random, self.problem.device)
        self._rig.generator.set_state(state["augmentation"])
        if self._rig.step.scale is not None:
            self._rig.step.scale.restore(state["scale"])

    def close(self) -> None:
        """End the threads and processes that read ahead for this training; it may still go on, and starts them again."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _evaluate(self) -> None:
        part, spec, last = self.problem.parts.val, self.spec, self.done == self.spec.steps
        found = measure(self.problem, self.model, part, spec.numerics, limit=spec.validation_limit, blocks=VAL_BLOCKS if last else 1)
        self.series.evaluations.append(Evaluation(self.done, found.loss, found.metric, found.block_losses if last else ()))

    def _next_batch(self) -> Iterator[tuple[Any, Piece]]:
        """The next batch, or this rank's rows of it, whole or in the pieces of a micro-batch."""
        if self._feed is None or self.taken == self._fed:
            self._refill()
        assert self._feed is not None
        for piece in self._order.pieces:
            yield next(self._feed), piece

    def _refill(self) -> None:
        """Start to read the batches of the steps that remain; those of updates that fp16 skips come on top and are read afterwards."""
        self.close()
        self._fed = self.taken + self.spec.steps - self.done
        self._order.batches = self._fed
        start = self.taken * len(self._order.pieces)
        self._feed = self.problem.parts.train.feed(self._order, stream_seed(self.spec.seed, "feed", self.ranks.rank), start=start)


def _check_shares(spec: TrialSpec) -> None:
    """Raise InputError where ranks would have nothing to do, or where batch norm would wait for passes that others do not take."""
    size, numerics = spec.hyperparameters.batch_size, spec.numerics
    if size < numerics.replicas:
        raise InputError(f"a batch of {size} leaves some of {numerics.replicas} devices without a sample (executor.devices_per_trial)")
    if numerics.sync_batch_norm:
        passes = {len(pieces_of(size, numerics.micro_batch, Ranks(rank, numerics.replicas))) for rank in range(numerics.replicas)}
        if len(passes) > 1:
            raise InputError(
                f"with executor.sync_batch_norm all {numerics.replicas} devices take as many passes, and a batch of {size} gives them "
                f"{min(passes)} to {max(passes)} of {numerics.micro_batch} samples: use a multiple of {numerics.replicas} as the batch size"
            )
