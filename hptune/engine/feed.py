"""Batches read ahead of a training, in order: the same ones whether this process, threads of it or worker processes read them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hptune.cores import available_cores
from hptune.engine.randomness import seeded, stream_seed
from hptune.errors import HptuneError, UserCodeError

MOST_LOADERS = 8
GATHERING_THREADS, GATHERED_AHEAD = 2, 4  # batches; copying rows is bound by memory, which more threads do not widen
CPU = torch.device("cpu")

T = TypeVar("T")


class IndexBatches(Protocol):
    """Index tensors (int64, in main memory) by number, and how many there are; it may make them up as they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Tensor: ...


def can_fork() -> bool:
    """Whether worker processes can start as copies of this one. macOS forks too, but its libraries do not survive it."""
    return sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()


def loader_workers(wanted: int | Literal["auto"], device: torch.device) -> int:
    """How many worker processes read the items of a Dataset; 0 means the process that trains.

    `auto` is 0 on a CPU, whose cores are busy with trials, else one for each core but one, eight at most. Without `fork` it is
    always 0: a Dataset of the user's need not survive being sent to another process.
    """
    if not can_fork():
        return 0
    if wanted == "auto":
        return 0 if device.type == "cpu" else min(MOST_LOADERS, available_cores() - 1)
    return wanted


class ItemBatches:
    """Batches of a Dataset by number. The numbers that its items draw depend on `seed` and the batch's number alone.

    The global random states are left as they were: those of the training that reads go on undisturbed.
    """

    def __init__(self, read: Callable[[Tensor], Any], batches: IndexBatches, seed: int) -> None:
        self._read, self._batches, self._seed = read, batches, seed

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Any:
        # Items that a Dataset keeps must serve in training too, which tensors made in inference mode cannot.
        with torch.inference_mode(False), seeded(stream_seed(self._seed, "items", number), CPU):
            return self._read(self._batches[number])


def read_batches(batches: ItemBatches, start: int, *, workers: int, pin: bool) -> Generator[Any, None, None]:
    """Yield the batches from number `start` on, in main memory; `pin` puts those of workers where copies to CUDA need not wait.

    Closing the generator ends the workers. Raises what reading raises, and HptuneError where a worker process dies.
    """
    workers = min(workers, len(batches) - start)
    if workers > 0:
        return _from_workers(batches, start, workers, pin)
    return (batches[number] for number in range(start, len(batches)))


def gather_ahead(gather: Callable[[Tensor], Callable[[], T]], batches: IndexBatches, start: int) -> Generator[T, None, None]:
    """Yield what `gather(indices)()` returns for the batches from number `start` on; the second call is made ahead, in a thread."""
    pool = ThreadPoolExecutor(GATHERING_THREADS, thread_name_prefix="hptune gathers")
    ahead: deque[Future[T]] = deque()
    try:
        for number in range(start, len(batches)):
            ahead.append(pool.submit(gather(batches[number])))
            if len(ahead) > GATHERED_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def map_batch(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply `function` to whatever is inside tuples, lists and dicts, the kinds of these kept."""
    if isinstance(value, dict):
        return {key: map_batch(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_batch(function, item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_batch(function, item) for item in value)
    return function(value)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker sends: a batch, or the exception that reading it raised; a DataLoader itself would send its text alone."""

    batch: Any = None
    error: Exception | None = None

    def pin_memory(self) -> _Answer:
        """Called by the DataLoader, whose own way would make lists of tuples."""
        return _Answer(map_batch(lambda leaf: leaf.pin_memory() if hasattr(leaf, "pin_memory") else leaf, self.batch), self.error)


class _Answers(Dataset[_Answer]):
    """`ItemBatches` as workers read them."""

    def __init__(self, batches: ItemBatches) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> _Answer:
        try:
            batch = self._batches[number]
            map_batch(_check_sendable, batch)
        except Exception as error:
            return _Answer(error=error)
        return _Answer(batch)


def _check_sendable(leaf: Any) -> None:
    """Raise UserCodeError for what cannot leave the worker: the DataLoader would wait for it forever."""
    try:
        if isinstance(leaf, Tensor):
            if leaf.requires_grad and not leaf.is_leaf:
                raise TypeError("it is part of a computation with gradients: detach it")
        elif not isinstance(leaf, np.ndarray) or leaf.dtype.kind == "O":
            pickle.dumps(leaf)
    except Exception as error:
        kind = type(leaf).__name__
        raise UserCodeError(
            f"a batch holds a {kind} that a loader worker cannot send ({error}); data.workers: 0 needs no sending"
        ) from error


def _from_workers(batches: ItemBatches, start: int, workers: int, pin: bool) -> Generator[Any, None, None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # of more workers than cores: that is the user's choice
        warnings.filterwarnings("ignore", ".*use of fork\\(\\) may lead to deadlocks", DeprecationWarning)  # it is what loaders do on Linux
        loader: DataLoader[_Answer] = DataLoader(
            _Answers(batches),
            batch_size=None, sampler=range(start, len(batches)), collate_fn=_as_is, num_workers=workers, pin_memory=pin,
            multiprocessing_context="fork", worker_init_fn=_leave_interrupts,
            generator=torch.Generator(),  # or else it would draw from the training's
        )  # fmt: skip
        answers: Any = iter(loader)
    try:
        for answer in _watched(answers):
            if answer.error is not None:
                raise answer.error
            yield answer.batch
    finally:
        answers._shutdown_workers()  # not left to garbage collection: an exception's frames would keep them running


def _watched(answers: Iterator[_Answer]) -> Iterator[_Answer]:
    """Turn the death of a worker into an HptuneError, whether the loader notices it or only what it sent can no longer be read."""
    while True:
        try:
            answer = next(answers)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            reason = " ".join(str(error).split()).rstrip(". ") or type(error).__name__
            remedy = "where memory ran out, fewer data.workers need less; data.workers: 0 reads without them"
            raise HptuneError(f"a process that reads the data ended ({reason}): {remedy}") from error
        yield answer


def _as_is(value: T) -> T:
    return value


def _leave_interrupts(_worker: int) -> None:
    """Ctrl-C is for the process that trains, which ends its workers; its own ways to take the other signals are not theirs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
