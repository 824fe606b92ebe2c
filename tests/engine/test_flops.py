"""Counted operations are those one counts by hand."""

import torch
from torch import nn
from training_problems import opened

from hptune.engine.flops import count_flops


def test_forward_and_backward_of_a_linear_layer():
    layer = nn.Linear(6, 4)
    x = torch.randn(10, 6)
    assert count_flops(lambda: layer(x)) == 2 * 10 * 6 * 4
    loss = layer(x).sum()
    assert count_flops(loss.backward) == 2 * 10 * 6 * 4  # the weight's gradient; the input needs none


def test_a_task_knows_the_cost_of_a_sample():
    task = opened(model={"name": "mlp", "args": {"hidden": [16]}}).task
    assert task.flops == 2 * (64 * 16 + 16 * 10) + 2 * (64 * 16 + 2 * 16 * 10)
    convolutional = opened(model={"name": "small_cnn", "args": {"width": 4}}).task
    outputs = 64 * 9 * 1 * 4 + 16 * 9 * 4 * 8 + 4 * 9 * 8 * 16
    forward = 2 * (outputs + 16 * 10)
    assert convolutional.flops == 3 * forward - 2 * 64 * 9 * 1 * 4
