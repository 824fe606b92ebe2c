"""One training step, written once: augment, forward, loss, backward, update. Eager, compiled and captured runs all take this one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hptune.engine.augment import Rows, Source
from hptune.engine.numerics import autocast
from hptune.engine.order import Piece
from hptune.engine.parallel import in_parallel
from hptune.engine.update import Updater, Value
from hptune.engine.workload import Problem
from hptune.trial import Numerics

FIRST_SCALE, SMALLEST_SCALE = 2.0**16, 2.0**-10
STEPS_TO_GROW = 2000  # as torch.amp.GradScaler
SHAPES_COMPILED = 64  # dynamo's own limit, 8, is fewer than the batch sizes of a search
CODE_CACHE = "TORCHINDUCTOR_CACHE_DIR"

Pieces = Iterable[tuple[Any, Piece]]
"""What one optimizer step trains on, each with what it is of the step's batch: all of it, or several micro-batches, or a rank's rows."""


class Step:
    """Takes batches to updates of one model. It reads nothing back from the device, except under fp16 (`LossScale`).

    Gradients of several pieces add up to the whole batch's: equal to rounding, batch norm aside, which then sees the pieces. So do
    those of several ranks, each with its pieces. `generator` draws the augmentation, on every rank for the whole batch.
    """

    def __init__(self, problem: Problem, model: nn.Module, updater: Updater, numerics: Numerics, generator: torch.Generator) -> None:
        self._problem, self._updater, self._generator = problem, updater, generator
        self._autocast = autocast(numerics)
        self._loss_of = loss_function(problem, model, numerics)
        self._parallel = in_parallel(problem, model, self._loss_of) if numerics.replicas > 1 else None
        self._drawn_from = generator.get_state()
        self.scale = LossScale() if numerics.precision == "fp16" else None

    def __call__(self, pieces: Pieces, lr: Value, momentum: Value, weight_decay: Value) -> Tensor | None:
        """Train on the samples of `pieces`; return their mean loss before the update, a 0-dim tensor on the device.

        Of several ranks each returns a number of which the batch's mean loss is the mean. None where fp16 gradients overflowed: the
        update was skipped, and the schedule must not advance. Ranks agree on that, since their gradients are the same bits.
        """
        self._updater.zero_grad()
        loss = self._gradients(pieces)
        if self.scale is not None and not self.scale.unscale(self._updater.parameters):
            return None if self.scale.value >= SMALLEST_SCALE else torch.full_like(loss, torch.nan)
        self._updater.step(lr, momentum, weight_decay)
        return loss

    def _gradients(self, pieces: Pieces) -> Tensor:
        total: Tensor | None = None
        for batch, piece in pieces:
            augmented = self._problem.augmented(batch, self._source(piece))
            with self._exchange(piece):
                with self._autocast:
                    loss = (self._parallel or self._loss_of)(augmented)
                if piece.weight != 1:
                    loss = loss * piece.weight
                torch.autograd.backward(loss if self.scale is None else loss * self.scale.value)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _source(self, piece: Piece) -> Source:
        """What the augmentation of a piece is drawn from. Among several ranks each pass draws again what is drawn for the whole batch."""
        if self._parallel is None or self._problem.augment is None:
            return self._generator
        if piece.first:
            self._drawn_from = self._generator.get_state()
        else:
            self._generator.set_state(self._drawn_from)
        return Rows(self._generator, piece.start, piece.size)

    def _exchange(self, piece: Piece) -> AbstractContextManager[object]:
        """Gradients travel between ranks with the last piece of each, and include those before."""
        return nullcontext() if self._parallel is None or piece.last else self._parallel.no_sync()

    def settle(self, batch: Any, piece: Piece) -> None:
        """Compute the gradients of a batch and drop them: torch changes the order in which ranks add them up after the first time.

        A training that goes on from a checkpoint does so before it is restored.
        """
        self._gradients([(batch, piece)])
        self._updater.zero_grad()


def loss_function(problem: Problem, model: nn.Module, numerics: Numerics) -> Callable[[Any], Tensor]:
    """Return `batch -> mean loss` of a model, compiled where `numerics` say so: once for each shape of batch."""

    def loss_of(batch: Any) -> Tensor:
        return problem.forward(model, batch, numerics)[0]

    if not numerics.compiled:
        return loss_of
    config = torch._dynamo.config
    for name in ("recompile_limit", "cache_size_limit"):  # the newer and the older name
        if hasattr(config, name):
            setattr(config, name, max(getattr(config, name), SHAPES_COMPILED))
    keep_compiled_code_private()
    compiled: Callable[[Any], Tensor] = torch.compile(loss_of, dynamic=False)
    return compiled


def keep_compiled_code_private() -> None:
    """Have the compiler keep its code in the user's own cache folder, unless told where.

    Its own choice is a folder of predictable name in the shared one for temporary files, from which it loads and runs what it finds:
    whoever makes that folder first would choose what runs here.
    """
    if os.name != "posix" or CODE_CACHE in os.environ:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "hptune" / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        folder = Path(tempfile.mkdtemp(prefix="hptune-"))
    os.environ[CODE_CACHE] = str(folder)


class LossScale:
    """Dynamic loss scaling for fp16, by the rules of `torch.amp.GradScaler`; it looks at each step's gradients on the host."""

    def __init__(self) -> None:
        self.value = FIRST_SCALE
        self._good_steps = 0

    def unscale(self, parameters: tuple[nn.Parameter, ...]) -> bool:
        """Divide the gradients by the scale; return False, and halve it, where one is not finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.value)
        if not all(bool(norm.isfinite()) for norm in torch._foreach_norm(gradients)):
            self.value, self._good_steps = self.value / 2, 0
            return False
        self._good_steps += 1
        if self._good_steps == STEPS_TO_GROW:
            self.value, self._good_steps = self.value * 2, 0
        return True

    def state(self) -> list[float]:
        """What `restore` takes."""
        return [self.value, self._good_steps]

    def restore(self, state: list[Any]) -> None:
        """Continue from `state`."""
        self.value, self._good_steps = float(state[0]), int(state[1])
