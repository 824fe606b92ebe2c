"""Data, model and metric of custom.yaml."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

Part = tuple[Tensor, Tensor]


def load(test_share: float) -> tuple[Part, Part, Part]:
    """Return train, validation and test part: features (patients, 10) and disease progression (patients, 1), standardized."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    held_out = round(test_share * len(x))
    test, val, train = np.split(order, [held_out, 2 * held_out])

    def part(rows: np.ndarray) -> Part:
        features = (x[rows] - x[train].mean(axis=0)) / x[train].std(axis=0)
        targets = (y[rows] - y[train].mean()) / y[train].std()
        return torch.tensor(features, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)[:, None]

    return part(train), part(val), part(test)


class Net(nn.Module):
    """Two hidden layers with dropout."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the predicted progression, (patients, 1)."""
        prediction: Tensor = self.layers(x)
        return prediction


def explained(output: Tensor, target: Tensor) -> Tensor:
    """Share of the targets' variance that the model explains (R²); 1 is perfect."""
    return 1 - (output - target).square().mean() / target.var(correction=0)
