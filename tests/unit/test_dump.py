"""Writing resolved configs: what is written gives the same experiment from wherever it lies."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hptune.config.dump import inline, to_yaml
from hptune.config.expansion import escape, expand_text
from hptune.config.loader import LoadedConfig, dump_config, from_tree, load_config
from hptune.config.reading import read_yaml
from hptune.trial import Hyperparameters

CHOSEN = Hyperparameters(lr=0.1 + 0.2, batch_size=128, momentum=0.95, momentum_min=0.85, weight_decay=3e-5)
MINIMAL = "data: {name: digits}\nmodel: mlp\n"
EVERYTHING = """\
version: 1
name: größe 1
data:
  target: "own code/mine.py:load"
  args: {n: 3, text: "1e5", yes: "on", none: null, nested: [{a: [1.5, "x: y # z"]}], escaped: "$${HOME}"}
  collate: {target: "own code/mine.py:batch"}
  limit: 100
  split: {group: patient}
  augment: [flip, crop:4]
model: {target: "package.module:Net", pretrained: "../weights ü.pt", freeze: ["stem.*"]}
loss: {name: cross_entropy, args: {label_smoothing: 0.1}}
metric: {target: "own code/mine.py:score", mode: min}
step: {target: "own code/mine.py:step"}
rank_by: metric
optimizer: {name: adamw, gradient_clip: 1.0, groups: [{match: "head.*", lr_factor: 10.0}]}
schedule: {name: step, milestones: [0.3, 0.9]}
baseline: {lr: 3.0e-05, weight_decay: 0}
hyperparameters: {lr: 1e-7, momentum_min: 0.5}
budget: {epochs: 7, search: 20m}
stages: {lr_range: off, momentum: {values: [0.9]}, weight_decay: {values: [1e-5, 0]}, confirm: on}
device: cuda:1
executor: {workers: 3}
"""


def written(loaded: LoadedConfig, folder: Path, **changes: Any) -> LoadedConfig:
    """What comes of writing a config to `folder` and reading it there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(loaded, folder, **changes), encoding="utf-8")
    return load_config(folder / "config.yaml")


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "Über dir" / "conf"
    (folder / "own code").mkdir(parents=True)
    (folder / "own code" / "mine.py").write_text("")
    return folder


@pytest.mark.parametrize("text", [MINIMAL, EVERYTHING], ids=["minimal", "everything"])
@pytest.mark.parametrize("place", [".", "runs/a b", "../elsewhere ü", "own code"])
def test_a_written_config_gives_the_same_experiment_from_any_folder(start: Path, text: str, place: str) -> None:
    (start / "c.yaml").write_text(text, encoding="utf-8")
    loaded = load_config(start / "c.yaml")
    again = written(loaded, start / place)
    assert again.experiment == loaded.experiment
    assert written(again, start / "third").experiment == loaded.experiment


def test_targets_beside_the_written_config_are_relative_to_it(start: Path) -> None:
    (start / "c.yaml").write_text(EVERYTHING, encoding="utf-8")
    tree = yaml.safe_load(dump_config(load_config(start / "c.yaml"), start / "runs" / "x"))
    assert tree["data"]["target"] == "../../own code/mine.py:load"
    assert tree["model"] == {"target": "package.module:Net", "pretrained": "../../../weights ü.pt", "freeze": ["stem.*"]}


def test_absolute_and_home_paths_stay_as_they_are(start: Path) -> None:
    (start / "c.yaml").write_text(f"data: {{name: arrays, path: {start / 'x.npz'}}}\nmodel: {{name: mlp, pretrained: ~/w.pt}}\n")
    tree = yaml.safe_load(dump_config(load_config(start / "c.yaml"), start / "runs"))
    assert tree["data"]["path"] == str(start / "x.npz")
    assert tree["model"]["pretrained"] == "~/w.pt"


def test_variables_are_never_written_out(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H_SECRET", "s3cret")
    monkeypatch.setenv("H_CODE", "own code/mine.py:load")
    monkeypatch.setenv("H_ROOT", str(start.parent))
    monkeypatch.setenv("H_STAGE", "off")
    (start / "c.yaml").write_text("""\
data: {target: "${H_CODE}", args: {token: "${H_SECRET}", list: ["a", "${H_SECRET}-${H_SECRET}"]}}
model: {name: "${H_SECRET}", pretrained: "sub/${H_SECRET}/w.pt"}
loss: {target: "${H_ROOT}/conf/own code/mine.py:loss"}
stages: {momentum: "${H_STAGE}"}
""")
    loaded = load_config(start / "c.yaml")
    text = dump_config(loaded, start / "runs" / "x")
    assert "s3cret" not in text
    assert str(start.parent) not in text
    tree = yaml.safe_load(text)
    assert tree["model"]["pretrained"] == "../../sub/${H_SECRET}/w.pt"
    assert tree["data"]["args"] == {"token": "${H_SECRET}", "list": ["a", "${H_SECRET}-${H_SECRET}"]}
    assert tree["loss"] == {"target": "${H_ROOT}/conf/own code/mine.py:loss"}
    again = written(loaded, start / "runs" / "x")
    assert again.experiment == loaded.experiment
    assert again.experiment.stages.momentum is False


def test_every_default_is_written_in_the_schemas_order(start: Path) -> None:
    loaded = from_tree({"seed": 3, "model": "mlp", "data": {"name": "digits"}}, start)
    tree = yaml.safe_load(dump_config(loaded, start))
    fields = [key for key in type(loaded.experiment).model_fields if key != "hyperparameters"]
    assert list(tree) == fields
    assert (tree["loss"], tree["metric"], tree["seed"]) == ("cross_entropy", "accuracy", 3)
    assert tree["stages"]["weight_decay"]["values"] == [1e-2, 1e-3, 1e-4, 0.0]
    assert tree["budget"] == {"epochs": 30.0, "search_epochs": 6.0, "search": None}
    assert tree["schedule"]["tail_ratio"] == 1000.0


def test_the_recommendation_replaces_hyperparameters_and_epochs_and_nothing_else(start: Path) -> None:
    (start / "c.yaml").write_text(MINIMAL + "baseline: {lr: 0.02}\n")
    loaded = load_config(start / "c.yaml")
    text = dump_config(loaded, start, hyperparameters=CHOSEN, epochs=12.5, comments=["why:\n  because", "", "# not twice"])
    assert text.startswith("# why:\n#   because\n#\n# # not twice\nversion: 1\n")
    (start / "r.yaml").write_text(text)
    again = load_config(start / "r.yaml").experiment
    assert again.chosen_hyperparameters() == CHOSEN
    assert again.baseline == loaded.experiment.baseline
    assert (again.budget.epochs, again.budget.short_epochs) == (12.5, 6.0)
    assert again.model_copy(update={"hyperparameters": None, "budget": loaded.experiment.budget, "name": "c"}) == loaded.experiment


def test_an_existing_block_of_hyperparameters_is_kept(start: Path) -> None:
    loaded = from_tree({"data": {"name": "digits"}, "model": "mlp", "hyperparameters": {"lr": 0.7}}, start)
    assert written(loaded, start / "x").experiment.chosen_hyperparameters().lr == 0.7


def test_stages_that_are_off_stay_off(start: Path) -> None:
    loaded = from_tree({"data": {"name": "digits"}, "model": "mlp", "stages": {"refine": False}}, start)
    assert "refine: false" in dump_config(loaded, start)


@given(st.floats(allow_nan=False))
@settings(deadline=None, derandomize=True)
def test_floats_come_back_exactly_in_any_reader(value: float) -> None:
    text = to_yaml({"x": value})
    for x in (yaml.safe_load(text)["x"], read_yaml(text, str).value["x"]):
        assert (x, math.copysign(1, x)) == (value, math.copysign(1, value))
        assert isinstance(x, float)


TEXTS = st.text() | st.sampled_from(["1e5", "off", "~", "09", "1:30", "<<", "a: b", "#", "\x85", "\u2028 x", "a\nb"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, PLAIN, max_size=3))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_whatever_args_hold_comes_back(args: dict[str, Any]) -> None:
    tree = {"data": {"name": "digits"}, "model": {"name": "mlp", "args": _escaped(args)}}
    with tempfile.TemporaryDirectory() as folder:
        loaded = from_tree(tree, Path(folder))
        assert loaded.experiment.model.args == args
        assert written(loaded, Path(folder) / "x").experiment.model.args == args


@given(st.text(alphabet="${}aA_1-"))
@settings(deadline=None, derandomize=True)
def test_escaping_and_expanding_are_inverse(text: str) -> None:
    assert expand_text(escape(text), os.environ) == text


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    "value",
    [
        1e-4,
        0.1,
        3e-3,
        1 / 3,
        0.0,
        1e22,
        64,
        True,
        None,
        "null",
        "1e5",
        "1:30",
        "a b: #c",
        "train.py:Net",
        "~",
        "x, y",
        "it's",
        "${A}",
        "a\nb",
    ],
)
def test_a_value_on_one_line_reads_back(value: object) -> None:
    for held in (value, [value], {"k": value}):
        text = inline(held)
        assert "\n" not in text
        assert read_yaml(f"here: {text}", str).value == {"here": held}
    assert [inline(1e-4), inline(64.0), inline("my/train.py:Net")] == ["1e-4", "64", "my/train.py:Net"]
