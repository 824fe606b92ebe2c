"""The exported PyTorch snippet against the schedule and the updater it stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hptune.config.schema import Loss, Model, Optimizer
from hptune.engine.losses import build_loss
from hptune.engine.update import Updater
from hptune.report.export_settings import Settings
from hptune.report.export_torch import pytorch
from hptune.schedules import Schedule, tabulate
from hptune.trial import Hyperparameters, Numerics

torch.set_num_threads(1)
H = Hyperparameters(lr=0.25, batch_size=32, momentum=0.95, momentum_min=0.85, weight_decay=1e-2)
SETTINGS = Settings(
    hyperparameters=H,
    epochs=4.0,
    train_samples=200,
    optimizer=Optimizer(),
    schedule=Schedule(),
    model=Model(name="mlp"),
    numerics=Numerics(),
    seed=0,
    header=(),
    loss=Loss(),
)
STEPS = 24  # 4 epochs of 6 full batches
SCHEDULES = [
    Schedule(),
    Schedule(warmup_fraction=0.3, tail_fraction=0.0, lr_ratio=20.0),
    Schedule(warmup_fraction=0.01),
    Schedule(warmup_fraction=0.6, tail_fraction=0.39),
    Schedule(shape="torch", warmup_fraction=0.3, lr_ratio=25.0, tail_ratio=1e4),
    Schedule(shape="three_phase", warmup_fraction=0.4),
    Schedule(kind="constant"),
    Schedule(kind="step", milestones=(0.5, 0.75), gamma=0.2),
]


def snippet(settings: Settings) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(pytorch(settings), "snippet", "exec"), names)
    return names


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("steps", [STEPS, 13, 301])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_rate_and_momentum_are_ours_at_every_step(name: Any, schedule: Schedule, steps: int) -> None:
    exported = snippet(replace(SETTINGS, optimizer=Optimizer(name=name), schedule=schedule))
    assert exported["steps_for"](range(200)) == STEPS
    optimizer = exported["make_optimizer"](net())
    scheduler = exported["make_scheduler"](optimizer, steps)
    rates, momenta = [], []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.append(group["momentum"] if name == "sgd" else group["betas"][0])
        optimizer.step()
        scheduler.step()
    table = tabulate(schedule, steps=steps, lr=H.lr, momentum=H.momentum, momentum_min=H.momentum_min)
    np.testing.assert_allclose(rates, table.lr, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(momenta, table.momentum, rtol=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer(),
        Optimizer(nesterov=False, decay_bias_and_norm=False),
        Optimizer.model_validate({"groups": [{"match": "3.*", "lr_factor": 0.5, "decay_factor": 2.0}], "decay_bias_and_norm": False}),
        Optimizer.model_validate({"name": "adamw", "groups": [{"match": "0.*", "lr_factor": 0.0}]}),
    ],
)
@pytest.mark.parametrize("schedule", [Schedule(), Schedule(shape="torch", warmup_fraction=0.3)])
def test_training_with_it_gives_the_parameters_of_the_search(optimizer: Optimizer, schedule: Schedule) -> None:
    exported = snippet(replace(SETTINGS, optimizer=optimizer, schedule=schedule))
    theirs, ours = net(), net()
    torch_optimizer = exported["make_optimizer"](theirs)
    scheduler = exported["make_scheduler"](torch_optimizer, STEPS)
    updater = Updater(ours, optimizer)
    table = tabulate(schedule, steps=STEPS, lr=H.lr, momentum=H.momentum, momentum_min=H.momentum_min)
    for step in range(STEPS):
        x, y = torch.randn(16, 5), torch.randint(0, 3, (16,))
        for model in (theirs, ours):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
        torch_optimizer.step()
        scheduler.step()
        updater.step(float(table.lr[step]), float(table.momentum[step]), H.weight_decay)
    for (name, a), b in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("optimizer", [Optimizer(gradient_clip=0.5), Optimizer(name="adamw")])
@pytest.mark.parametrize("numerics", [Numerics(), Numerics(precision="bf16"), Numerics(precision="fp16"), Numerics(micro_batch=8)])
def test_its_training_loop_runs_its_steps_and_learns(optimizer: Optimizer, numerics: Numerics, capsys: pytest.CaptureFixture[str]) -> None:
    lr = 0.1 if optimizer.name == "adamw" else 0.25
    exported = snippet(replace(SETTINGS, hyperparameters=H.but(lr=lr), optimizer=optimizer, numerics=numerics))
    torch.manual_seed(1)
    x = torch.randn(200, 5)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    steps = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: steps.append(optimizer.param_groups[0]["lr"]))
    exported["train"](net(), data)
    handle.remove()
    assert len(steps) == STEPS
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert 0.5 < losses[0] < 2
    assert losses[-1] < 0.5 * losses[0]


def test_an_update_that_fp16_skips_holds_the_schedule_back_and_is_made_up_for() -> None:
    exported = snippet(replace(SETTINGS, numerics=Numerics(precision="fp16")))
    calls, rates = [], []

    def loss_function(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(len(rates))
        loss = nn.functional.cross_entropy(output, target)
        return loss * torch.inf if len(calls) in (3, 4, 9) else loss

    exported["loss_function"] = loss_function
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    exported["train"](net(), torch.utils.data.TensorDataset(torch.randn(200, 5), torch.zeros(200, dtype=torch.long)))
    handle.remove()
    table = tabulate(Schedule(), steps=STEPS, lr=H.lr, momentum=H.momentum, momentum_min=H.momentum_min)
    np.testing.assert_allclose(rates, table.lr, rtol=1e-9)
    assert len(calls) == STEPS + 3


@pytest.mark.parametrize("name", ["mse", "l1", "smooth_l1", "bce_with_logits", "cross_entropy"])
def test_the_stand_ins_fit_the_loss_of_the_search(name: str) -> None:
    args = {"cross_entropy": {"label_smoothing": 0.1}, "smooth_l1": {"beta": 0.5}}.get(name, {})
    exported = snippet(replace(SETTINGS, loss=Loss(name=name, args=args), epochs=1.0))
    exported["train"](exported["make_model"](), exported["make_dataset"]())
    output, target = torch.tensor([[0.3], [2.0]]), torch.tensor([1.0, 0.0])
    if name == "cross_entropy":
        output, target = torch.tensor([[0.3, 0.1], [2.0, 1.0]]), torch.tensor([1, 0])
    torch.testing.assert_close(exported["loss_function"](output, target), build_loss(Loss(name=name, args=args))(output, target))


def test_data_smaller_than_a_batch_is_refused_instead_of_waited_for() -> None:
    exported = snippet(SETTINGS)
    with pytest.raises(ValueError, match="the 31 training samples are fewer than a batch of 32"):
        exported["train"](net(), torch.utils.data.TensorDataset(torch.randn(31, 5), torch.zeros(31, dtype=torch.long)))


def test_frozen_parameters_stay_out_of_the_optimizer() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    for optimizer in (Optimizer(), Optimizer(decay_bias_and_norm=False)):
        made = snippet(replace(SETTINGS, optimizer=optimizer))["make_optimizer"](model)
        assert all(p is not model[0].weight for group in made.param_groups for p in group["params"])
