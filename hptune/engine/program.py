"""A training step as a program of the device: captured once for a shape, then replayed for every step of every trial of that shape.

The program reads its batch's indices, learning rate and momentum from tables on the device, at a step counter that it raises itself.
So a stretch of training is replays and nothing else: no Python between the kernels and nothing for the device to wait for. It is the
very step that runs eagerly elsewhere (`Step`), and draws the same random numbers. A model that Python steers while it trains cannot be
captured: what would differ is looked for before a program is used, and the reason is kept.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hptune.engine.memory import free_memory, is_out_of_memory
from hptune.engine.order import pieces_of
from hptune.engine.parts import TensorPart
from hptune.engine.randomness import seed_all, seeded
from hptune.engine.rig import Rig, tensors
from hptune.engine.workload import Problem
from hptune.trial import Numerics

CHUNK = 256  # steps whose batches and rates are on the device at a time
WARM_UP_STEPS = 3  # before a capture, on a side stream: libraries set themselves up, compilers compile
COMPARED_STEPS = 3
TOLERANCE = 1e-2  # of a loss: far above rounding, far below another random draw
KEPT = 4  # programs of a problem: each holds its network's memory

Body = Callable[[], None]
Recorder = Callable[[Body, torch.Generator], Body]
"""Runs a body a few times, records it and returns what replays it; the generator is drawn from inside."""


class CannotCaptureError(Exception):
    """Why a model's step cannot be a program."""


def rig_for(problem: Problem, batch_size: int, numerics: Numerics) -> tuple[Rig, Program | None]:
    """Return a rig that begins with weights drawn from torch's global random state, and its program where its steps can be one.

    Captured and compiled rigs are kept with the problem; an eager one costs nothing and is made anew. One training of a shape at a
    time in a process.
    """
    fresh = problem.fresh_model(numerics)
    program = _program_for(problem, batch_size, numerics) if capturable(problem, numerics) else None
    if program is not None:
        rig = program.rig
    elif numerics.compiled:
        if numerics not in problem.kept.compiled:
            problem.kept.compiled[numerics] = Rig(problem, copy.deepcopy(fresh), numerics)
        rig = problem.kept.compiled[numerics]
    else:
        return Rig(problem, fresh, numerics), None
    rig.begin(fresh)
    return rig, program


def capturable(problem: Problem, numerics: Numerics) -> bool:
    """Whether steps may become a program at all: on one CUDA device, with data there, and no look at the gradients from the host."""
    resident = isinstance(problem.parts.train, TensorPart) and problem.parts.train.resident
    one = problem.device.type == "cuda" and numerics.replicas == 1
    return one and resident and problem.step is None and numerics.precision != "fp16"


def _program_for(problem: Problem, batch_size: int, numerics: Numerics) -> Program | None:
    """The program of a shape; None where it is refused, or where memory does not suffice for it: the plain step may do with less."""
    kept, key = problem.kept, (batch_size, numerics)
    if key not in kept.programs and kept.refusal is None:
        while len(kept.programs) >= KEPT:
            kept.programs.pop(next(iter(kept.programs)))
        short = False
        with seeded(0, problem.device):
            try:
                kept.programs[key] = Program(problem, batch_size, numerics, cuda_graph)
            except CannotCaptureError as error:
                kept.refusal = str(error)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                short = True
        if short:
            kept.drop()
            free_memory(problem.device)
    program: Program | None = kept.programs.get(key)
    return program


class Program:
    """The training step of one network at one batch size. Raises CannotCaptureError where replays would not be that step."""

    def __init__(self, problem: Problem, batch_size: int, numerics: Numerics, record: Recorder) -> None:
        self._problem, self._batch_size = problem, batch_size
        self._pieces = pieces_of(batch_size, numerics.micro_batch)
        self.rig = Rig(problem, problem.fresh_model(numerics), numerics)
        device = problem.device
        spread = torch.arange(CHUNK * batch_size, device=device) % len(problem.parts.train)
        self._indices = spread.reshape(CHUNK, batch_size)
        self._rates = torch.zeros(3, CHUNK, device=device)  # LR, momentum and weight decay
        self._losses = torch.zeros(CHUNK, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._check_purity()
        self._replay = self._recorded(record)
        self._check_replays()

    def run(self, indices: Tensor, lr: Tensor, momentum: Tensor, weight_decay: Tensor) -> Tensor:
        """Take a step for each row of `indices` (steps, batch size); return the losses (steps,). All tensors are on the device."""
        losses = torch.empty(len(indices), device=self._losses.device)
        for start in range(0, len(indices), CHUNK):
            end = min(start + CHUNK, len(indices))
            steps = end - start
            self._indices[:steps].copy_(indices[start:end])
            for row, values in zip(self._rates, (lr, momentum, weight_decay), strict=True):
                row[:steps].copy_(values[start:end])
            self._at.zero_()
            for _ in range(steps):
                self._replay()
            losses[start:end].copy_(self._losses[:steps])
        return losses

    def _body(self) -> None:
        """One step at the counter: everything it reads and writes stands at fixed places of the device."""
        indices = self._indices.index_select(0, self._at).squeeze(0)
        lr, momentum, weight_decay = self._rates.index_select(1, self._at).squeeze(1).unbind()
        train = self._problem.parts.train
        pieces = ((train.take(indices[piece.start : piece.stop]), piece) for piece in self._pieces)
        loss = self.rig.step(pieces, lr, momentum, weight_decay)
        assert loss is not None
        self._losses.index_copy_(0, self._at, loss.float().reshape(1))
        self._at += 1

    def _recorded(self, record: Recorder) -> Body:
        try:
            return record(self._body, self.rig.generator)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise CannotCaptureError(f"its step cannot be captured ({type(error).__name__}: {reason})") from error

    def _check_purity(self) -> None:
        """A step that draws Python's or numpy's random numbers, or counts in Python, would be frozen by a capture."""
        before = _host_state(self.rig.model)
        self._at.zero_()
        self._body()
        after = _host_state(self.rig.model)
        if before[0] != after[0]:
            raise CannotCaptureError("its step draws random numbers from Python or numpy")
        if before[1] != after[1]:
            raise CannotCaptureError("its modules keep values in Python that a step changes")

    def _check_replays(self) -> None:
        """The same steps, body by body and as replays, from the same state."""
        rig = self.rig
        state = [tensor.clone() for tensor in tensors(rig.model)]
        self._rates[0] = 1e-3
        losses = []
        for take in (self._body, self._replay):
            rig.load(state)
            rig.updater.reset()
            rig.generator.manual_seed(0)
            self._losses.fill_(torch.inf)
            self._at.zero_()
            seed_all(0, self._problem.device)
            for _ in range(COMPARED_STEPS):
                take()
            losses.append(self._losses[:COMPARED_STEPS].clone())
        if not torch.allclose(losses[0], losses[1], rtol=TOLERANCE, equal_nan=True):
            shown = " and ".join(", ".join(f"{loss:.4g}" for loss in each.tolist()) for each in losses)
            raise CannotCaptureError(f"its captured step gives other losses than its own ({shown})")


def cuda_graph(body: Body, generator: torch.Generator) -> Body:
    """Record `body` as a CUDA graph."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            body()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on pinning memory
        body()
    replay: Body = graph.replay
    return replay


def _host_state(model: nn.Module) -> tuple[bytes, list[Any]]:
    """The random states of Python and numpy, and the plain values that modules keep as attributes."""
    plain = [
        (path, name, value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | bool)
    ]
    return pickle.dumps((random.getstate(), np.random.get_state())), plain
