"""The update: equal to torch.optim while LR, momentum and weight decay change every step."""

import itertools
import math

import pytest
import torch
from torch import nn

from hptune.config.schema import Group, Optimizer
from hptune.engine.update import Updater
from hptune.errors import ConfigError

torch.set_num_threads(1)

STEPS = 100


def make_net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def hyperparameters(step):
    """LR, momentum and weight decay of a step: all change, in ranges that searches use."""
    phase = math.sin(step / 9)
    return 0.02 + 0.015 * phase, 0.9 - 0.06 * phase, 0.03 + 0.02 * math.cos(step / 7)


def backward(net, step):
    generator = torch.Generator().manual_seed(step)
    dtype = next(net.parameters()).dtype
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64).to(dtype)
    (net(x) - x[:, :3] * 3).square().mean().backward()


def torch_groups(net, section):
    """The groups that `section` means, written out by hand for `make_net`."""
    groups = []
    for name, parameter in net.named_parameters():
        lr_factor, decay_factor = 1.0, 1.0
        if section.groups and name.startswith("0."):
            lr_factor, decay_factor = 0.1, 3.0
        if section.groups and name == "0.bias":
            lr_factor, decay_factor = 2.0, 0.0
        if not section.decay_bias_and_norm and name in ("0.bias", "1.weight", "1.bias", "3.bias"):
            decay_factor = 0.0
        groups.append({"params": [parameter], "lr_factor": lr_factor, "decay_factor": decay_factor})
    return groups


def train_with_torch(net, section, steps=STEPS):
    groups = torch_groups(net, section)
    if section.name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.5, nesterov=section.nesterov)
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.5, section.beta2), eps=section.eps)
    for step in range(steps):
        lr, momentum, decay = hyperparameters(step)
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr * group["lr_factor"], decay * group["decay_factor"]
            group.update({"momentum": momentum} if section.name == "sgd" else {"betas": (momentum, section.beta2)})
        optimizer.zero_grad()
        backward(net, step)
        if section.gradient_clip:
            nn.utils.clip_grad_norm_(net.parameters(), section.gradient_clip)
        optimizer.step()


def train_with_ours(net, section, as_tensors=False, steps=range(STEPS), updater=None):
    updater = updater or Updater(net, section)
    for step in steps:
        values = hyperparameters(step)
        if as_tensors:
            values = tuple(torch.tensor(value, dtype=torch.float64) for value in values)
        updater.zero_grad()
        backward(net, step)
        updater.step(*values)
    return updater


GROUPS = [Group(match="0.*", lr_factor=0.1, decay_factor=3.0), Group(match="0.bias", lr_factor=2.0, decay_factor=0.0)]
SECTIONS = [
    Optimizer(name="sgd", nesterov=True),
    Optimizer(name="sgd", nesterov=False),
    Optimizer(name="adamw"),
    Optimizer(name="adamw", beta2=0.95, eps=1e-3),
    Optimizer(name="sgd", gradient_clip=0.5),
    Optimizer(name="adamw", gradient_clip=0.5),
    *(Optimizer(name=name, groups=GROUPS, decay_bias_and_norm=decay) for name, decay in itertools.product(["sgd", "adamw"], [True, False])),
]


@pytest.mark.parametrize(
    ("dtype", "as_tensors", "tolerance"),
    [(torch.float64, False, 1e-12), (torch.float64, True, 1e-12), (torch.float32, True, 2e-5)],
    ids=["float64 numbers", "float64 tensors", "float32 tensors"],
)
@pytest.mark.parametrize("section", SECTIONS, ids=repr)
def test_equal_to_torch_optim_over_100_changing_steps(section, dtype, as_tensors, tolerance):
    ours, theirs = make_net(dtype), make_net(dtype)
    train_with_ours(ours, section, as_tensors)
    train_with_torch(theirs, section)
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=tolerance, atol=tolerance)


def test_a_first_step_by_hand():
    """One weight 2, gradient 3, L2 0.5: g = 4; nesterov momentum 0.9 gives 4 + 0.9·4 = 7.6; LR 0.1 takes off 0.76."""
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, 2.0)
    net.weight.grad = torch.tensor([[3.0]], dtype=torch.float64)
    Updater(net, Optimizer()).step(0.1, 0.9, 0.5)
    assert net.weight.item() == pytest.approx(1.24, abs=1e-15)


def test_a_first_adamw_step_by_hand():
    """Decay first (2 - 0.1·0.5·2 = 1.9), then the corrected step is LR times the gradient's sign."""
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, 2.0)
    net.weight.grad = torch.tensor([[-3.0]], dtype=torch.float64)
    Updater(net, Optimizer(name="adamw")).step(0.1, 0.9, 0.5)
    assert net.weight.item() == pytest.approx(2.0, abs=1e-8)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_zero_momentum_and_zero_lr(name):
    net = make_net()
    before = [p.clone() for p in net.parameters()]
    updater = Updater(net, Optimizer(name=name))
    backward(net, 0)
    updater.step(0.0, 0.0, 0.1)
    assert all(torch.equal(now, then) for now, then in zip(net.parameters(), before, strict=True))
    updater.step(0.1, 0.0, 0.1)
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_state_goes_through_a_checkpoint(name):
    straight, resumed = make_net(), make_net()
    train_with_ours(straight, Optimizer(name=name))
    first = train_with_ours(resumed, Optimizer(name=name), steps=range(40))
    second = Updater(resumed, Optimizer(name=name))
    second.load_state_dict(first.state_dict())
    train_with_ours(resumed, Optimizer(name=name), steps=range(40, STEPS), updater=second)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_saved_state_is_a_copy():
    net = make_net()
    updater = train_with_ours(net, Optimizer(), steps=range(3))
    saved = updater.state_dict()
    before = saved["first.0.weight"].clone()
    train_with_ours(net, Optimizer(), steps=range(3, 6), updater=updater)
    assert torch.equal(saved["first.0.weight"], before)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_after_reset_it_is_as_new(name):
    net, fresh = make_net(), make_net()
    updater = train_with_ours(net, Optimizer(name=name), steps=range(7))
    velocity = updater.state_dict().keys()
    updater.reset()
    assert all(not tensor.any() for tensor in updater.state_dict().values())
    assert updater.state_dict().keys() == velocity
    with torch.no_grad():
        for used, new in zip(net.parameters(), fresh.parameters(), strict=True):
            used.copy_(new)
    train_with_ours(net, Optimizer(name=name), updater=updater)
    train_with_ours(fresh, Optimizer(name=name))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("other", [Optimizer(name="adamw"), Optimizer(name="sgd")], ids=["other optimizer", "other model"])
def test_a_state_of_something_else_is_refused(other):
    state = Updater(make_net(), Optimizer(name="sgd")).state_dict()
    net = make_net() if other.name == "adamw" else nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="another model or optimizer"):
        Updater(net, other).load_state_dict(state)


def test_frozen_and_unused_parameters_stay():
    net = make_net()
    net[0].weight.requires_grad_(False)
    updater = Updater(net, Optimizer())
    before = {name: p.clone() for name, p in net.named_parameters()}
    net[3](torch.ones(2, 8, dtype=torch.float64)).sum().backward()
    updater.step(0.1, 0.9, 0.1)
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"3.weight", "3.bias"}
    assert len(updater.parameters) == 5


def test_clipping_bounds_the_step():
    net = make_net()
    backward(net, 0)
    Updater(net, Optimizer(gradient_clip=1e-3)).step(0.1, 0.9, 0.0)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in net.parameters()]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-2)


class OwnNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.table = nn.Parameter(torch.ones(4, 4))


def test_what_counts_as_bias_or_normalization():
    net = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "bn": nn.BatchNorm2d(2),
            "group": nn.GroupNorm(1, 2),
            "layer": nn.LayerNorm([2, 2]),
            "attention": nn.MultiheadAttention(4, 1),
            "own": OwnNorm(),
        }
    )
    for parameter in net.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    Updater(net, Optimizer(decay_bias_and_norm=False)).step(1.0, 0.0, 0.5)
    decayed = {name for name, p in net.named_parameters() if not torch.equal(p, torch.ones_like(p))}
    assert decayed == {"conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "own.table"}


def test_a_group_that_matches_nothing_names_the_nearest_parameters():
    with pytest.raises(ConfigError, match=r"optimizer\.groups: no parameter is named like '3\.wieght'.*3\.weight"):
        Updater(make_net(), Optimizer(groups=[Group(match="3.wieght")]))
