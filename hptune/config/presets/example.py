"""The Python file that goes with the `custom` preset, as text: it imports torch, which nothing here may."""

FILE = "my_training.py"
CODE = '''\
"""What my_training.yaml tunes: own data, own model, own metric. Replace each with yours; the YAML names them as file.py:name."""

import torch
from torch import nn


def load(samples: int = 2000):
    """Return (train, val) or (train, val, test), each a pair of arrays or tensors (x, y), or a map-style torch Dataset."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 8, generator=generator)
    noise = 0.1 * torch.randn(samples, 1, generator=generator)
    y = x.sin().sum(dim=1, keepdim=True) + noise
    a, b = samples * 6 // 10, samples * 8 // 10
    return (x[:a], y[:a]), (x[a:b], y[a:b]), (x[b:], y[b:])


class Net(nn.Module):
    """Any nn.Module; what stands under `args` in the YAML arrives as keyword arguments."""

    def __init__(self, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.layers(x)


def mean_error(output, target):
    """A metric takes the model's outputs and the targets; it is shown beside the loss."""
    return (output - target).abs().mean()
'''
