"""What check warns of: each warning where it is due, none on our own configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hptune.config.loader import from_tree, load_config
from hptune.engine.problem import open_objects, open_problem
from hptune.engine.soundness import data_notes
from hptune.estimate import foreseen

CONFIGS = Path(__file__).parents[2] / "configs"
TREE = {"data": {"name": "digits", "test_fraction": 0.0}, "model": "linear", "device": "cpu", "baseline": {"batch_size": 16}}


def normal(samples: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def notes(x: Tensor, y: Tensor, val: tuple[Tensor, Tensor] | None = None, *, loss: str = "cross_entropy", outputs: int = 3) -> list[str]:
    torch.set_num_threads(1)
    experiment = from_tree(TREE, Path.cwd()).experiment
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), outputs))
    own = val if val is not None else (x.roll(1, dims=-1) + 1e-3, y)
    return data_notes(open_objects(model, (x, y), own, loss=loss, experiment=experiment))


LABELS = torch.arange(90) % 3


def test_plain_data_are_not_warned_of() -> None:
    assert notes(normal(90, 5), LABELS) == []
    assert notes(normal(90, 5), normal(90, 1), loss="mse", outputs=1) == []
    assert notes(normal(90, 1, 8, 8), LABELS) == []


def test_columns_far_from_unit_scale_are_named() -> None:
    x = normal(90, 5)
    x[:, 3] *= 500
    (note,) = notes(x, LABELS)
    assert note.startswith("1 of 5 input columns are large, column 3 about ")
    assert "unit variance" in note


@pytest.mark.parametrize(("factor", "warned"), [(255.0, True), (1e-3, True), (1.0, False), (5.0, False)])
def test_images_as_unscaled_floats_are_warned_of(factor: float, warned: bool) -> None:
    assert any("where networks expect about 1" in note for note in notes(factor * normal(90, 1, 6, 6), LABELS)) == warned


@pytest.mark.parametrize(
    ("y", "warned"),
    [
        (LABELS.float(), True),
        (LABELS.float()[:, None], True),
        (normal(90, 1), False),
        (torch.arange(90.0), False),
        (LABELS.float() / 2, False),
    ],
)
def test_classes_under_a_loss_for_amounts_are_warned_of(y: Tensor, warned: bool) -> None:
    found = notes(normal(90, 5), y, loss="mse", outputs=1)
    assert any("3 different whole numbers, 0 to 2" in note and "cross_entropy" in note for note in found) == warned


@pytest.mark.parametrize(("shared", "warned"), [(90, True), (9, True), (2, False), (0, False)])
def test_samples_that_both_parts_have_are_counted(shared: int, warned: bool) -> None:
    x = normal(90, 5)
    held_out = torch.cat([x[:shared], normal(90 - shared, 5, seed=1)])
    found = notes(x, LABELS, (held_out, LABELS))
    assert any(f"{shared} of 90 validation samples" in note for note in found) == warned


CASES: dict[str, tuple[dict[str, Any], Callable[[Any], Any], str]] = {
    "few held out": ({}, lambda task: replace(task, val_samples=40, classes=0), "the validation part has 40 samples:"),
    "few of a class": ({}, lambda task: replace(task, val_samples=80, classes=10), "the validation part has 80 samples, 8 a class:"),
    "few steps": ({"budget": {"epochs": 2, "search_epochs": 0.1}}, lambda task: task, "a short run of 0.1 epochs has 8 optimizer steps"),
    "lr outside": (
        {"baseline": {"lr": 20.0}, "stages": {"lr_range": {"max_lr": 10.0}}}, lambda task: task, "the baseline's lr 20 lies outside",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_suffice_is_foreseen(case: str) -> None:
    more, change, expected = CASES[case]
    loaded = from_tree({**TREE, **more}, Path.cwd())
    task = open_problem(loaded.experiment).task
    assert [note.startswith(expected) for note in foreseen(loaded.experiment, change(task))] == [True]


@pytest.mark.parametrize("name", ["smoke", "digits", "custom"])
def test_our_own_configs_are_not_warned_of(name: str) -> None:
    experiment = load_config(CONFIGS / f"{name}.yaml").experiment
    problem = open_problem(experiment)
    assert [*data_notes(problem), *foreseen(experiment, problem.task)] == []
