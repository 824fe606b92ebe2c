"""What init finds: in code that is read and never run, in folders and archives by their headers; and the configs it makes of that."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hptune.config.loader import load_config
from hptune.config.tree import FILL_IN
from hptune.errors import ConfigError, DataError, InputError
from hptune.starter.code import read_code
from hptune.starter.compose import Wishes, batch_grid, config_text, plan
from hptune.starter.data import look_at
from hptune.starter.own import candidates, is_code
from hptune.starter.uses import settings_in

TRAIN = """
raise SystemExit("this file was run")
import argparse
from torch import nn
from elsewhere import helper as other
if True:
    class Block(nn.Module):
        def __init__(self, width): ...
class Net(nn.Module):
    def __init__(self, hidden: int, depth: int = 2, *, act="relu"):
        self.block = Block(hidden)
class Deep(Net): pass
class FocalLoss(nn.Module): pass
class Config: pass
def make_model(width): return Net(width)
def build() -> nn.Module: return other(3)
def load_data(root, seed=0):
    def inner(): return 1, 2, 3, 4
    return (1, 2), (3, 4)
def data_stats(): return 0
def get_data_loaders(): return 1, 2
def my_loss(output, target): return output
def top5_accuracy(output, target): return 1.0
def accuracy_table(rows): return rows
def main():
    opt = torch.optim.SGD(net.parameters(), 0.05, momentum=0.8)
    nn.MSELoss()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def made(file: str = "c.yaml", **said: object) -> str:
    return config_text(plan(Wishes(**said), Path(file)))  # type: ignore[arg-type]


def test_code_is_read_for_what_a_config_can_name(folder: Path) -> None:
    found = [(role, name.partition(":")[2], needs) for role, name, needs in candidates(read_code(Path("train.py")))]
    assert found == [
        ("model", "Net", "needs hidden"),
        ("model", "Deep", "needs hidden"),
        ("model", "make_model", "needs width"),
        ("model", "build", ""),
        ("data", "load_data", "needs root"),
        ("loss", "FocalLoss", ""),
        ("loss", "my_loss", ""),
        ("metric", "top5_accuracy", ""),
    ]


def test_a_name_that_is_not_there_is_named_with_what_was_meant(folder: Path) -> None:
    code = read_code(Path("train.py"))
    assert [code.named(name).kind for name in ("Net", "build", "other")] == ["class", "function", "import"]  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"no 'make_modle' in train.py: did you mean 'make_model'"):
        code.named("make_modle")
    with pytest.raises(InputError, match="it has Block, Net"):
        code.named("xyzzy")
    Path("star.py").write_text("from somewhere import *\n")
    assert read_code(Path("star.py")).named("xyzzy") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("def f(:\n", "bad.py:1: not Python"), ("x = '\0'\n", "bad.py.*not Python"), ("(" * 5000 + ")" * 5000, "bad.py.*not Python")],
)
def test_what_is_not_python_is_a_mistake(folder: Path, text: str, message: str) -> None:
    Path("bad.py").write_text(text)
    with pytest.raises(InputError, match=message):
        read_code(Path("bad.py"))
    with pytest.raises(InputError, match=r"no file trian.py: did you mean 'train.py'"):
        read_code(Path("trian.py"))


@pytest.mark.parametrize(
    ("line", "runs"),
    [
        ("main()", True),
        ("for batch in loader:\n    loss.backward()", True),
        ("if __name__ == '__main__':\n    main()", False),
        ("for i in range(3):\n    print(i)", False),
        ("setup()", False),
    ],
)
def test_a_training_that_starts_on_import_is_seen(folder: Path, line: str, runs: bool) -> None:
    Path("own.py").write_text(f"def main(): ...\n{line}\n")
    assert (read_code(Path("own.py")).runs is not None) == runs


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("torch.optim.AdamW(p, lr=3e-4, weight_decay=0.05)", {"optimizer": "adamw", "lr": 3e-4, "weight_decay": 0.05}),
        ("optim.SGD(p, 0.1, momentum=0.95)", {"optimizer": "sgd", "lr": 0.1, "momentum": 0.95}),
        ("BATCH = 16\nDataLoader(d, batch_size=BATCH)", {"batch_size": 16}),
        ("p.add_argument('--learning-rate', type=float, default=0.02)\np.add_argument('--epochs', default=7)", {"lr": 0.02, "epochs": 7}),
        ("def train(model, epochs=12, lr=0.5): ...", {"epochs": 12, "lr": 0.5}),
        ("for epoch in range(1, 9): ...", {"epochs": 9}),
        ("lr = 0.1\nlr = 0.2", {}),
        ("optim.SGD(p, lr=rate())\noptim.Adam(q, lr=-1)", {}),
        ("F.mse_loss(a, b)", {"loss": "mse"}),
        ("nn.MSELoss()\nnn.CrossEntropyLoss()", {}),
        ("epochs = True\nbatch_size = 0.5", {}),
    ],
)
def test_what_a_script_trains_with_is_read_from_constants(source: str, settings: dict[str, object]) -> None:
    assert {name: found.value for name, found in settings_in(ast.parse(source)).items()} == settings


def test_a_config_from_code_names_it_and_says_what_is_missing(folder: Path) -> None:
    text = made("sub/mine.yaml", model="train.py:Net")
    assert "target: ../train.py:Net" in text
    assert "target: ../train.py:load_data" in text
    assert "hidden: FILL_IN          # int; train.py:9 has no default for it" in text
    assert "depth=2, act='relu'" in text
    assert "lr: 0.05, batch_size: 64, momentum: 0.8" in text
    assert "loss: mse" in text
    assert "metric: mae" in text
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine.yaml:\d+: data.args.root: still says FILL_IN: give a value; so do model.args.hidden"):
        load_config(Path("sub/mine.yaml"))
    filled = load_config(Path("sub/mine.yaml"), ["data.args.root=x", "model.args.hidden=8"]).experiment
    assert filled.model.target == f"{folder / 'train.py'}:Net"
    assert filled.name == "mine"


def test_without_a_data_function_one_is_given_that_reads_an_archive(folder: Path) -> None:
    Path("net.py").write_text("from torch import nn\nclass Net(nn.Module): ...\n")
    settled = plan(Wishes(model="net.py:Net"), Path("c.yaml"))
    assert list(settled.companions) == ["net_data.py"]
    text = config_text(settled)
    assert "target: net_data.py:load" in text
    assert f"path: {FILL_IN}" in text
    Path("net_data.py").write_text(settled.companions["net_data.py"])
    arrays = {f"{name}_{part}": np.arange(size) for part, size in (("train", 8), ("val", 4)) for name in "xy"}
    np.savez("mine.npz", **arrays)
    (x, y), (x_val, y_val) = runpy.run_path(str(Path("net_data.py").absolute()))["load"]("mine.npz")
    assert [len(part) for part in (x, y, x_val, y_val)] == [8, 8, 4, 4]


def test_of_several_data_functions_one_must_be_named(folder: Path) -> None:
    Path("two.py").write_text("class Net(nn.Module): ...\ndef small_data(): return 1, 2\ndef large_data(): return 1, 2\n")
    with pytest.raises(InputError, match=r"--data two.py:small_data or --data two.py:large_data"):
        plan(Wishes(model="two.py:Net"), Path("c.yaml"))
    assert "target: two.py:large_data" in made(model="two.py:Net", data="two.py:large_data")


ARRAYS = {
    "table": ((90, 7), np.float32, (90,), np.int64, "model: {name: mlp", "loss: cross_entropy", "metric: accuracy"),
    "regression": ((90, 7), np.float64, (90, 1), np.float32, "model: {name: mlp", "loss: mse", "metric: mae"),
    "images": ((90, 12, 12, 3), np.uint8, (90,), np.uint8, "model: {name: small_cnn", "loss: cross_entropy", "metric: accuracy"),
    "several labels": ((90, 7), np.float32, (90, 4), np.bool_, "model: {name: mlp", "loss: bce_with_logits", "metric: none"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_archive_is_judged_by_its_headers(folder: Path, kind: str) -> None:
    shape, dtype, targets, target_type, *expected = ARRAYS[kind]
    np.savez("a.npz", x_train=np.zeros(shape, dtype), y_train=np.zeros(targets, target_type))  # type: ignore[call-overload]
    text = made(data="a.npz")
    assert [line for line in expected if line not in text] == []
    Path("c.yaml").write_text(text)
    assert load_config(Path("c.yaml")).experiment.data.path == str(folder / "a.npz")
    assert "values: [8, 16]" in text, "at most a fourth of 90 samples"


def test_an_archive_is_not_read_and_nothing_in_it_is_unpickled(folder: Path) -> None:
    np.savez("a.npz", x_train=np.zeros((4, 2)), y_train=np.array([{}, [], "", 0], dtype=object))
    with pytest.raises(DataError, match=r"y_train of a.npz holds Python objects"):
        look_at("a.npz")
    np.savez("b.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match="no x_train and y_train: it holds x, y"):
        look_at("b.npz")
    np.savez("c.npz", x_train=np.zeros((5, 2)), y_train=np.zeros(4))
    with pytest.raises(DataError, match="one target for each sample"):
        look_at("c.npz")
    np.savez("d.npz", x_train=np.zeros((5, 2), np.int64), y_train=np.zeros(5, np.int64))
    with pytest.raises(InputError, match=r"token ids.*--model"):
        made(data="d.npz")
    assert "target: train.py:Net" in made(data="d.npz", model="train.py:Net")


@pytest.fixture
def pictures(folder: Path) -> Path:
    for name, count in (("cats", 2), ("dogs", 30)):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (80 + number, 70)).save(folder / "pets" / name / f"{number}.png")
    return folder / "pets"


def test_a_folder_of_pictures_is_counted_and_measured(pictures: Path) -> None:
    found = look_at("pets")
    assert found.sentences == (
        "pets: 32 images; 2 classes (cats, dogs)",
        "images of 80x70 to 109x70 pixels (all): resized to 64x64",
        "the classes are uneven: cats has 2 images, dogs 30",
    )
    assert (found.model, found.block["size"], found.samples) == ("resnet18", 64, 32)
    Path("c.yaml").write_text(made(data="pets"))
    assert load_config(Path("c.yaml")).experiment.data.root == str(pictures)
    (pictures / "cats" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as an image"):
        look_at("pets")


@pytest.mark.parametrize("data", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_a_config_of_each_known_set_is_valid(folder: Path, data: str) -> None:
    Path("c.yaml").write_text(made(data=data, epochs=0.5, lr=0.3, budget="20m", weight_decay=0.0))
    experiment = load_config(Path("c.yaml")).experiment
    assert (experiment.baseline.lr, experiment.baseline.weight_decay, experiment.budget.search) == (0.3, 0, "20m")
    assert experiment.budget.search_epochs == 0.5


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"data": "digitz"}, "--data digitz: neither digits.*did you mean 'digits'"),
        ({"data": "digits", "lr": -1.0}, "--lr: .*above 0"),
        ({"data": "digits", "epochs": 0.0}, "--epochs: "),
        ({"data": "digits", "batch_size": 0}, "--batch-size: "),
        ({"data": "digits", "optimizer": "adam"}, "--optimizer: .*adamw"),
        ({"data": "digits", "budget": "soon"}, "--budget: .*20m"),
        ({"model": "mlp"}, "--model alone"),
        ({"model": "train.py:Nett"}, "did you mean 'Net'"),
    ],
)
def test_a_wrong_wish_names_its_option(folder: Path, said: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**said)


def test_names_that_yaml_or_a_comment_would_misread_are_kept_apart(folder: Path) -> None:
    odd = folder / "a: #b\nx ${Z}"
    (odd / "null").mkdir(parents=True)
    Image.new("L", (40, 40)).save(odd / "null" / "1.png")
    Path("null.yaml").write_text(made("null.yaml", data=odd.name))
    loaded = load_config(Path("null.yaml")).experiment
    assert (loaded.data.root, loaded.name) == (str(odd), "null")
    (folder / "odd\nname.py").write_text("class Net(nn.Module):\n    def __init__(self, width): ...\n")
    Path("c.yaml").write_text(made("c.yaml", data="digits", model="odd\nname.py:Net").replace("FILL_IN", "4"))
    assert load_config(Path("c.yaml")).experiment.model.args == {"width": 4}


def test_batch_sizes_lie_around_the_baselines() -> None:
    assert batch_grid(64, None) == [32, 64, 128, 256]
    assert batch_grid(64, 600) == [32, 64, 128]
    assert batch_grid(1, 3) == [1]
    assert batch_grid(64, 60) == [64]


def test_what_is_code_is_told_from_paths_and_words(folder: Path) -> None:
    (folder / "kept:apart").mkdir()
    assert not is_code("kept:apart"), "it is a folder"
    assert [is_code(text) for text in ("a.py:f", "pkg.mod:f", "x/y.py:f", "digits", "C:/data", "a.npz", "a.py", "a.py:")] == [
        True, True, True, False, False, False, False, False,
    ]  # fmt: skip
