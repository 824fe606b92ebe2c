"""hptune from Python: the same as the commands, and a range test on objects in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hptune
from hptune.running import StageConcluded


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def arrays(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(samples))
    return x, (x[:, 0] + x[:, 1] ** 2 > 0.8).long()


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))


def test_lr_range_test_suggests_a_rate_and_leaves_the_model_alone() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = hptune.lr_range_test(model, arrays(640), arrays(160), batch_size=32, epochs=4, seeds=2)
    assert found.lr_max is not None
    assert 1e-3 < found.lr_max < 10
    assert "suggested maximum LR" in found.summary.sentence
    assert set(found.curves.columns) == {"repetition", "step", "lr", "train_loss", "val_loss"}
    assert sorted(found.curves["repetition"].unique()) == [0, 1]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_lr_range_test_takes_a_loss_of_ones_own() -> None:
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.multi_margin_loss(output, target)

    found = hptune.lr_range_test(network(), arrays(320), arrays(80), loss=loss, batch_size=32)
    assert float(found.curves["train_loss"].iloc[0]) == pytest.approx(0.5, abs=0.3)


def test_run_returns_what_load_run_returns(tmp_path: Path) -> None:
    config = {
        "name": "in memory",
        "data": {"name": "digits", "limit": 300},
        "model": {"name": "linear"},
        "budget": {"epochs": 2, "search_epochs": 1},
        "seeds": 1,
        "executor": {"name": "serial"},
    }
    concluded: list[str] = []
    run = hptune.run(
        config,
        run_dir=tmp_path / "run",
        overrides={"stages.lr_range.max_lr": 1.0},
        stages=["lr_range", "momentum"],
        on_event=lambda event: concluded.append(event.conclusion.stage) if isinstance(event, StageConcluded) else None,
    )
    assert concluded == ["lr_range", "momentum"]
    again = hptune.load_run(tmp_path / "run")
    assert again.recommendation == run.recommendation is not None
    assert list(run.table("momentum")["rank"]) == [1, 2, 3, 4]
    assert len(run.trials) == len(again.trials) > 4
    trial = run.trials["trial_id"].iloc[-1]
    assert {"step", "lr", "train_loss", "val_loss"} <= set(run.curve(trial).columns)


def test_a_wrong_override_is_a_config_error(tmp_path: Path) -> None:
    config = {"data": {"name": "digits"}, "model": {"name": "linear"}}
    with pytest.raises(hptune.errors.ConfigError, match="momentm"):
        hptune.run(config, run_dir=tmp_path / "run", overrides={"baseline.momentm": 0.5})
    assert not (tmp_path / "run").exists()
