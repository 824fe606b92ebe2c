"""Small problems for the tests of training: files of the user's own code in a folder, and experiments on digits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hptune.config.schema import Experiment
from hptune.engine.problem import open_problem
from hptune.engine.workload import Problem
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, StopRule, TrialOutcome, TrialSpec

USER_CODE = '''
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

G = torch.Generator().manual_seed(5)
X = torch.randn(240, 6, generator=G)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


def arrays():
    return (X[:160], Y[:160]), (X[160:200], Y[160:200]), (X[200:], Y[200:])


def huge():
    return (X[:160].sign() * 3.4e38, Y[:160]), (X[160:].sign() * 3.4e38, Y[160:])


def pairs():
    two = lambda a, b: ((X[a:b, :3], X[a:b, 3:]), Y[a:b])
    return two(0, 160), two(160, 240)


def dicts():
    named = lambda a, b: ({"left": X[a:b, :3], "right": X[a:b, 3:]}, Y[a:b])
    return named(0, 160), named(160, 240)


class Items(Dataset):
    def __init__(self, start, end, poison=None):
        self.start, self.end, self.poison = start, end, poison

    def __len__(self):
        return self.end - self.start

    def __getitem__(self, i):
        x = X[self.start + i]
        return (x * float("nan") if self.poison is not None and i >= self.poison else x), int(Y[self.start + i])


def items():
    return Items(0, 160), Items(160, 240)


class Noisy(Items):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + 0.1 * torch.randn(6) + 0.1 * random.random() + 0.1 * float(np.random.rand()), y


def noisy():
    return Noisy(0, 160), Noisy(160, 240)


def poisoned():
    return Items(0, 160, poison=0), Items(160, 240)


def sentences():
    return Sentences(160), Sentences(60)


class Sentences(Dataset):
    """Items that do not stack: lists of unlike length."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"tokens": list(range(1, 2 + i % 3)), "label": i % 2}


def pad(items):
    width = max(len(item["tokens"]) for item in items)
    tokens = torch.tensor([item["tokens"] + [0] * (width - len(item["tokens"])) for item in items])
    return tokens, torch.tensor([item["label"] for item in items])


def whole(items):
    tokens, labels = pad(items)
    return {"tokens": tokens, "labels": labels}


class Net(nn.Module):
    def __init__(self, outputs=2, dropout=0.0, norm=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(12, outputs)

    def forward(self, x):
        return self.head(self.body(x))


class Two(Net):
    def forward(self, left, right):
        return super().forward(torch.cat([left, right], dim=1))


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(8, 4), nn.Linear(4, 2)

    def forward(self, tokens):
        return self.head(self.embedding(tokens).mean(dim=1))


class Tires(Net):
    """Fails in training after some calls."""

    def __init__(self, calls, error="ValueError"):
        super().__init__()
        self.calls, self.error = calls, error

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            if self.error == "memory":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
            raise ValueError("tired of this")  # here
        return super().forward(x)


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Counts(nn.Module):
    """Keeps its own record of calls in a buffer that no state dict holds."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.layer(x) * (1 + 0.1 * self.calls)


def by_hand(model, batch):
    x, y = batch
    output = model(x)
    return nn.functional.cross_entropy(output, y), output


def by_dict(model, batch):
    output = model(batch["tokens"])
    return nn.functional.cross_entropy(output, batch["labels"]), output


def bare_loss(model, batch):
    return model(batch[0]).mean()


def no_number(output, target):
    return float("nan")
'''


def experiment(**blocks: Any) -> Experiment:
    """An experiment on digits with a small mlp, unless `blocks` say otherwise."""
    tree = {"data": {"name": "digits"}, "model": {"name": "mlp", "args": {"hidden": [16]}}, "device": "cpu", "precision": "fp32", **blocks}
    return Experiment.model_validate(tree)


def own(code: str, *, data: str = "arrays", model: Any = "Net", args: dict[str, Any] | None = None, **blocks: Any) -> Experiment:
    """An experiment on the data and model that the file `code` holds."""
    return experiment(
        data={"target": f"{code}:{data}", **blocks.pop("with_data", {})},
        model={"target": f"{code}:{model}", "args": args or {}, **blocks.pop("with_model", {})},
        **blocks,
    )


def spec_of(problem: Problem, *, steps: int = 40, seed: int = 3, evaluate_at: tuple[int, ...] | None = None, **changes: Any) -> TrialSpec:
    """A short 1cycle trial; hyper-parameters and fields of the spec by name."""
    values: dict[str, Any] = {"lr": 0.1, "batch_size": 32, "momentum": 0.95, "momentum_min": 0.85, "weight_decay": 1e-3}
    values.update({name: changes.pop(name) for name in list(changes) if name in values})
    fields: dict[str, Any] = {
        "task": problem.task.task_id,
        "hyperparameters": Hyperparameters(**values),
        "schedule": Schedule(),
        "steps": steps,
        "seed": seed,
        "repetition": 0,
        "evaluate_at": evaluate_at or (steps // 2, steps),
        "numerics": problem.task.numerics,
        "stop": StopRule(),
    }
    return TrialSpec(**{**fields, **changes})


def reproducible(outcome: TrialOutcome) -> str:
    """All of an outcome but its timings, process and machine, as text in which NaN equals NaN."""
    record = asdict(outcome.record)
    for name in ("seconds", "worker", "host"):
        del record[name]
    return repr((record, dict(outcome.curve.columns)))


def opened(**blocks: Any) -> Problem:
    """The problem of `experiment(**blocks)`."""
    return open_problem(experiment(**blocks))
