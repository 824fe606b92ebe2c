"""LR range tests of other tools, each as its own documentation shows it."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from speed.data import Images, Pictures, make_model, pictures
from speed.processes import settle, silence

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A range test: `steps` of `batch_size` samples, the LR rising exponentially from `low` to `high`; one for each of `seeds`."""

    net: str
    batch_size: int
    steps: int
    low: float
    high: float
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a peer uses the cores: processes that load data, and threads that compute."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} loader processes, {self.threads} threads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Wall seconds of all seeds together, and the optimizer steps they took together."""

    seconds: float
    steps: int


def time_peer(name: str, images: Images, ramp: Ramp, setting: Setting) -> Outcome:
    """Run all seeds of a peer's range test in this process; imports, data set and model are made before the clock starts."""
    test = PEERS[name]
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(setting.threads)
    dataset = pictures(images, augment=True)
    prepare, taken, seconds = test(), 0, 0.0
    with silence(), tempfile.TemporaryDirectory() as folder:
        for seed in ramp.seeds:
            torch.manual_seed(seed)
            go = prepare(make_model(images, ramp.net), _loader(dataset, ramp, setting), images, ramp, folder)
            settle()
            began = time.perf_counter()
            steps = go()
            seconds += time.perf_counter() - began
            taken += steps
    return Outcome(seconds=seconds, steps=taken)


def _loader(dataset: Pictures, ramp: Ramp, setting: Setting) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=ramp.batch_size, shuffle=True, num_workers=setting.workers, drop_last=True)


Go = Callable[[], int]
"""Runs one range test and returns the steps it took."""
Prepare = Callable[[nn.Module, DataLoader[Any], Images, Ramp, str], Go]


def _torch_lr_finder() -> Prepare:
    from torch_lr_finder import LRFinder

    def prepare(model: nn.Module, loader: DataLoader[Any], _images: Images, ramp: Ramp, _folder: str) -> Go:
        optimizer = torch.optim.SGD(model.parameters(), lr=ramp.low, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)

        def go() -> int:
            finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
            finder.range_test(loader, end_lr=ramp.high, num_iter=ramp.steps, diverge_th=math.inf)
            finder.reset()
            return len(finder.history["loss"])

        return go

    return prepare


def _fastai() -> Prepare:
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    def prepare(model: nn.Module, loader: DataLoader[Any], images: Images, ramp: Ramp, folder: str) -> Go:
        import fastai.callback.schedule  # noqa: F401  adds lr_find to Learner

        held_out = DataLoader(pictures(images, augment=False, validation=True), batch_size=ramp.batch_size)
        optimizer = partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOMENTUM, nesterov=True)
        learner = Learner(
            DataLoaders(loader, held_out), model, loss_func=nn.CrossEntropyLoss(), opt_func=optimizer,
            lr=ramp.low, moms=(MOMENTUM,) * 3, wd=WEIGHT_DECAY, path=folder,
        )  # fmt: skip

        def go() -> int:
            with learner.no_bar():
                learner.lr_find(start_lr=ramp.low, end_lr=ramp.high, num_it=ramp.steps, stop_div=False, show_plot=False)
            return len(learner.recorder.losses)

        return go

    return prepare


def _lightning() -> Prepare:
    import logging
    import warnings

    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.tuner import Tuner

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(LightningModule):
        def __init__(self, model: nn.Module, lr: float) -> None:
            super().__init__()
            self.model, self.lr = model, lr
            self.taken = 0

        def training_step(self, batch: Any, _index: int) -> torch.Tensor:
            x, y = batch
            self.taken += 1
            return functional.cross_entropy(self.model(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)

    def prepare(model: nn.Module, loader: DataLoader[Any], _images: Images, ramp: Ramp, folder: str) -> Go:
        module = Module(model, ramp.low)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip

        def go() -> int:
            Tuner(trainer).lr_find(
                module, loader, min_lr=ramp.low, max_lr=ramp.high, num_training=ramp.steps, early_stop_threshold=None
            )  # fmt: skip
            return module.taken

        return go

    return prepare


PEERS: dict[str, Callable[[], Prepare]] = {"torch-lr-finder": _torch_lr_finder, "fastai": _fastai, "lightning": _lightning}
