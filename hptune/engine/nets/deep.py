"""Deep networks at CIFAR size: residual, wide residual and densely connected nets of Smith's report."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hptune.engine.arguments import Count, Counts, Fraction
from hptune.errors import ConfigError

Shape = tuple[int, ...]


def resnet20(sample_shape: Shape, outputs: int, *, width: Count = 16) -> nn.Module:
    """Return He's CIFAR ResNet-20 (arXiv 1512.03385, section 4.2): three groups of 3 blocks, parameter-free shortcuts (option A)."""
    return ResNet(sample_shape[0], outputs, blocks=3, width=width)


def resnet56(sample_shape: Shape, outputs: int, *, width: Count = 16) -> nn.Module:
    """Return He's CIFAR ResNet-56: three groups of 9 blocks with 16, 32 and 64 channels, parameter-free shortcuts (option A)."""
    return ResNet(sample_shape[0], outputs, blocks=9, width=width)


def wide_resnet32(sample_shape: Shape, outputs: int, *, widths: Counts = (16, 64, 256)) -> nn.Module:
    """Return the report's wide ResNet-32: groups of 5 blocks with 16, 64 and 256 channels.

    As in the author's Caffe file, a block's sum has no ReLU after it, and the two wider groups start with a 2x2 convolution of
    stride 2 and batch norm as their shortcut.
    """
    if len(widths) != 3:
        raise ConfigError(f"wide_resnet32 has three groups: give three widths, not {len(widths)}", key="model.args.widths")
    layers: list[nn.Module] = _convolution(sample_shape[0], widths[0])
    inside = widths[0]
    for group, outside in enumerate(widths):
        for block in range(5):
            layers.append(WideBlock(inside, outside, shrink=group > 0 and block == 0))
            inside = outside
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, outputs))
    return _he_initialized(net)


def densenet40(sample_shape: Shape, outputs: int, *, growth: Count = 12, dropout: Fraction = 0.2) -> nn.Module:
    """Return DenseNet-40 for CIFAR (arXiv 1608.06993): three blocks of 12 layers, transitions that keep all channels."""
    channels = 16
    layers: list[nn.Module] = [nn.Conv2d(sample_shape[0], channels, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(12):
            layers.append(DenseLayer(channels, growth, dropout))
            channels += growth
        if block < 2:
            layers += [*_activation(channels), nn.Conv2d(channels, channels, 1, bias=False), nn.Dropout(dropout), nn.AvgPool2d(2)]
    net = nn.Sequential(*layers, *_activation(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
    return _he_initialized(net)


class ResNet(nn.Sequential):
    """A CIFAR ResNet of 6 `blocks` + 2 layers; the second and third group halve the image and double the channels."""

    def __init__(self, channels: int, outputs: int, *, blocks: int, width: int) -> None:
        layers: list[nn.Module] = _convolution(channels, width)
        inside = width
        for group in range(3):
            for block in range(blocks):
                layers.append(ResidualBlock(inside, width << group, stride=2 if group and not block else 1))
                inside = width << group
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, outputs))
        _he_initialized(self)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that drops every other pixel and pads new channels with zeros (option A)."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, outside - inside
        self.body = nn.Sequential(*_convolution(inside, outside, stride), *_convolution(outside, outside)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output; its image has ceil(side / stride) pixels a side."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(self.body(x) + functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels)))


class WideBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, added without a ReLU after the sum."""

    def __init__(self, inside: int, outside: int, *, shrink: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(inside, outside, 2 if shrink else 1), *_convolution(outside, outside)[:-1])
        projection = nn.Sequential(nn.Conv2d(inside, outside, 2, stride=2, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = projection if shrink else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, half as high and wide where it shrinks."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution whose `growth` channels are appended to the input's."""

    def __init__(self, channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, growth, 3, padding=1, bias=False)
        self.body = nn.Sequential(*_activation(channels), convolution, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, channels + growth, height, width)."""
        return torch.cat([x, self.body(x)], dim=1)


def _convolution(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), *_activation(outside)]


def _activation(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _he_initialized(net: nn.Sequential) -> nn.Sequential:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net
