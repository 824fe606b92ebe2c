"""Small networks: linear, mlp, small_cnn, LeNet, and the 3-layer net of Smith's report."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hptune.engine.arguments import Count, Counts, Fraction

Shape = tuple[int, ...]


def linear(sample_shape: Shape, outputs: int) -> nn.Module:
    """Return one linear layer on flattened samples."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), outputs))


def mlp(sample_shape: Shape, outputs: int, *, hidden: Counts = (128,), dropout: Fraction = 0.0) -> nn.Module:
    """Return fully connected layers with ReLU on flattened samples; dropout follows every hidden layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(sample_shape)
    for following in hidden:
        layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
        width = following
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def small_cnn(sample_shape: Shape, outputs: int, *, width: Count = 16) -> nn.Module:
    """Return three 3x3 convolutions (`width`, 2 `width`, 4 `width` channels) with batch norm, and global average pooling.

    Cheap enough for a CPU and good within a few epochs, on 8x8 digits as on 32x32 photographs.
    """

    def stage(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    layers = [*stage(sample_shape[0], width), nn.MaxPool2d(2), *stage(width, 2 * width), nn.MaxPool2d(2), *stage(2 * width, 4 * width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, outputs))


def lenet(sample_shape: Shape, outputs: int, *, hidden: Count = 500) -> nn.Module:
    """Return LeNet in Caffe's form, the one of the report's MNIST runs: its only ReLU follows the hidden layer.

    5x5 convolutions with 20 and 50 channels, each with 2x2 max pooling, and one hidden layer; weights start as Caffe's "xavier".
    """
    trunk = nn.Sequential(
        nn.Conv2d(sample_shape[0], 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten()
    )  # fmt: skip
    net = nn.Sequential(trunk, nn.Linear(_features(trunk, sample_shape), hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
    return _with_zero_biases(net)


def cifar3(sample_shape: Shape, outputs: int, *, width: Count = 32) -> nn.Module:
    """Return the report's 3-layer net (Caffe's `cifar10_full`): 5x5 convolutions with `width`, `width` and 2 `width` channels.

    Layers, paddings and rounding are Caffe's. The weights start as He's: Caffe's Gaussians (standard deviation 1e-4 and 1e-2)
    were made for inputs of 0 to 255. The author's files decay the last layer 250 times as much and train biases at twice the LR;
    `optimizer.groups` can say so.
    """
    trunk = nn.Sequential(
        nn.Conv2d(sample_shape[0], width, 5, padding=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.ReLU(),
        LocalNorm(),
        nn.Conv2d(width, width, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        LocalNorm(),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, ceil_mode=True),
        nn.Flatten(),
    )
    for module in trunk:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return _with_zero_biases(nn.Sequential(trunk, nn.Linear(_features(trunk, sample_shape), outputs)))


class LocalNorm(nn.Module):
    """Local response normalization within each channel: x / (1 + alpha · mean of x² over 3x3 neighbours) ** beta, as in Caffe."""

    def __init__(self, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized (batch, channels, height, width) tensor."""
        mean = functional.avg_pool2d(x.square(), 3, stride=1, padding=1)
        return x * (1 + self.alpha * mean).pow(-self.beta)


def _with_zero_biases(net: nn.Module) -> nn.Module:
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return net


def _features(trunk: nn.Module, sample_shape: Shape) -> int:
    """Return how many values the trunk makes of one sample."""
    with torch.no_grad():
        return int(trunk(torch.zeros(1, *sample_shape)).shape[1])
