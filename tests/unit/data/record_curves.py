"""Record the curves beside this file: small nets on scikit-learn's digits, `python tests/unit/data/record_curves.py`.

`ranges.csv`: LR range tests from 1e-4 to 10. `runs.csv`: 1cycle runs made to show a word of
`hptune.analysis.diagnosis`, on seeds its thresholds were not set on. `sweeps.csv`: final losses of 1cycle runs that differ in one value.
"""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from hptune.schedules import Schedule, tabulate

RAMP = Schedule(kind="ramp", shape="exponential", min_lr=1e-4)
RANGES: dict[str, dict[str, float]] = {
    "mlp": {},
    "linear": {"depth": 0},
    "deep": {"depth": 6},
    "large_inputs": {"scale": 50.0},
    "tiny_inputs": {"scale": 0.01},
    "few_samples": {"n": 200, "batch": 16, "wrong": 0.3},
}
RUNS: dict[str, dict[str, float]] = {
    "balanced": {"epochs": 6, "lr": 0.2},
    "balanced_wrong_labels": {"epochs": 6, "lr": 0.1, "wrong": 0.3},
    "underfitting_small_lr": {"epochs": 6, "lr": 0.002},
    "underfitting_tiny_lr": {"epochs": 6, "lr": 1e-4},
    "underfitting_weight_decay": {"epochs": 12, "lr": 0.2, "decay": 0.05},
    "underfitting_more_weight_decay": {"epochs": 12, "lr": 0.1, "decay": 0.3},
    "overfitting_wrong_labels": {"epochs": 20, "lr": 0.1, "wrong": 0.3, "width": 256},
    "overfitting_long": {"epochs": 60, "lr": 0.1, "wrong": 0.3, "width": 256, "decay": 0.0},
    "overfitting_few_samples": {"epochs": 60, "lr": 0.1, "n": 200, "wrong": 0.2},
    "unstable_large_lr": {"epochs": 6, "lr": 1.0},
}
SWEEPS: dict[str, tuple[str, list[float], dict[str, float]]] = {
    "lr": ("lr", [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0], {"epochs": 6}),
    "lr_few_samples": ("lr", [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], {"epochs": 20, "n": 200, "batch": 16, "wrong": 0.3}),
    "lr_large_inputs": ("lr", [1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1], {"epochs": 6, "scale": 50.0}),
    "decay": ("decay", [0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1], {"epochs": 6, "lr": 0.2}),
    "decay_few_samples": ("decay", [0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3], {"epochs": 60, "lr": 0.1, "n": 200, "wrong": 0.2}),
    "decay_wrong_labels": ("decay", [0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3], {"epochs": 20, "lr": 0.1, "wrong": 0.3, "width": 256}),
}
SWEPT_SEEDS = (*range(9), *range(20, 26))


def train(seed: int, schedule: Schedule, lr: float, points: int, **case: float) -> list[tuple[float, ...]]:
    """Return (step, lr, mean training loss since the last point, validation loss) at even points, up to the first not finite."""
    n, batch, width = int(case.get("n", 1000)), int(case.get("batch", 64)), int(case.get("width", 64))
    steps = int(case.get("steps", case.get("epochs", 0) * (n // batch)))
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    split = torch.Generator().manual_seed(1234)
    order = torch.randperm(len(x), generator=split)
    x, y = ((x - x.mean()) / x.std()).float()[order] * case.get("scale", 1.0), y[order]
    wrong = torch.rand(len(y), generator=split) < case.get("wrong", 0.0)
    y = torch.where(wrong, torch.randint(0, 10, y.shape, generator=split), y)
    torch.manual_seed(seed)
    sizes = [64] + [width] * int(case.get("depth", 2))
    hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    net = nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))
    table = tabulate(schedule, steps=steps, lr=lr, momentum=0.9, momentum_min=0.85)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=case.get("decay", 1e-4))
    at = {max(1, round(steps * (i + 1) / points)) for i in range(points)}
    rows: list[tuple[float, ...]] = []
    losses: list[float] = []
    left = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        left = left if len(left) >= batch else torch.randperm(n)
        chosen, left = left[:batch], left[batch:]
        optimizer.param_groups[0].update(lr=float(table.lr[step]), momentum=float(table.momentum[step]))
        loss = nn.functional.cross_entropy(net(x[:n][chosen]), y[:n][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step + 1 in at:
            with torch.no_grad():
                val = nn.functional.cross_entropy(net(x[-400:]), y[-400:]).item()
            rows.append((step + 1, float(table.lr[step]), sum(losses) / len(losses), val))
            losses = []
            if not math.isfinite(val):
                break
    return rows


def main() -> None:
    """Write both files."""
    torch.set_num_threads(1)
    here = Path(__file__).parent
    made = {
        "ranges": [(case, s, train(s, RAMP, 10.0, 24, steps=90, **args)) for case, args in RANGES.items() for s in range(3)],
        "runs": [(case, s, train(s, Schedule(), points=6, **args)) for case, args in RUNS.items() for s in (20, 21, 22, 23)],
    }
    with (here / "sweeps.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "knob", "value", "seed", "train_loss", "val_loss"))
        for case, (knob, values, args) in SWEEPS.items():
            for value in values:
                own = {**args, knob: value}
                for seed in SWEPT_SEEDS:
                    *_, train_loss, val_loss = train(seed, Schedule(), points=6, **own)[-1]
                    writer.writerow((case, knob, value, seed, f"{train_loss:.6g}", f"{val_loss:.6g}"))
    for name, runs in made.items():
        with (here / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("case", "seed", "step", "lr", "train_loss", "val_loss"))
            for case, seed, rows in runs:
                writer.writerows((case, seed, step, *(f"{value:.6g}" for value in rest)) for step, *rest in rows)


if __name__ == "__main__":
    main()
