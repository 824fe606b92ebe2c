"""The schema: defaults, what depends on the optimizer, and the JSON schema editors use."""

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hptune.config.loader import from_tree
from hptune.config.presets import preset, preset_names
from hptune.config.reading import read_yaml
from hptune.config.schema import Experiment, folder_name, json_schema
from hptune.errors import ConfigError
from hptune.report.recommended import recommended_name
from hptune.session import default_run_dir
from hptune.store.layout import RunLayout, retire, write_atomic
from hptune.trial import Hyperparameters


def experiment(**keys: Any) -> Experiment:
    return from_tree({"data": {"name": "digits"}, "model": "mlp", **keys}, Path()).experiment


def test_defaults_of_a_minimal_config() -> None:
    minimal = experiment()
    assert minimal.baseline_hyperparameters() == Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
    assert minimal.chosen_hyperparameters() == minimal.baseline_hyperparameters()
    assert minimal.loss.name == "cross_entropy"
    assert minimal.metric.name == "accuracy"
    assert minimal.stages.lr_range
    assert (minimal.stages.lr_range.min_lr, minimal.stages.lr_range.max_lr) == (1e-4, 10.0)


def test_defaults_follow_the_optimizer() -> None:
    adamw = experiment(optimizer={"name": "adamw"}, baseline={"batch_size": 8})
    assert adamw.baseline_hyperparameters() == Hyperparameters(lr=1e-3, batch_size=8, momentum=0.9, momentum_min=0.85, weight_decay=1e-2)
    assert adamw.stages.lr_range
    assert adamw.stages.lr_range.max_lr == 1.0
    assert adamw.stages.weight_decay
    assert adamw.stages.weight_decay.values == [1.0, 0.1, 0.01, 0.0]


def test_an_empty_value_means_the_default() -> None:
    empty = dict.fromkeys(("loss", "optimizer", "baseline", "stages", "executor", "seed", "hyperparameters"))
    assert experiment(**empty) == experiment()
    assert experiment(baseline={"lr": None, "momentum": None}, stages={"momentum": None, "confirm": {"seeds": None}}) == experiment()


def test_hyperparameters_left_out_are_the_baselines() -> None:
    chosen = experiment(baseline={"lr": 0.2, "batch_size": 16}, hyperparameters={"lr": 0.4}).chosen_hyperparameters()
    assert (chosen.lr, chosen.batch_size) == (0.4, 16)


def test_the_smallest_momentum_is_the_stages_unless_given() -> None:
    assert experiment(stages={"momentum": {"minimum": 0.7}}).baseline_hyperparameters().momentum_min == 0.7
    assert experiment(baseline={"momentum_min": 0.6}).baseline_hyperparameters().momentum_min == 0.6
    assert experiment(baseline={"momentum": 0.5}).baseline_hyperparameters().momentum_min == 0.5


@pytest.mark.parametrize(("epochs", "short"), [(30, 6.0), (3, 1.0), (0.5, 0.5), (2.5, 1.0)])
def test_a_short_run_is_a_fifth_but_at_least_an_epoch(epochs: float, short: float) -> None:
    assert experiment(budget={"epochs": epochs}).budget.short_epochs == short
    assert experiment(budget={"epochs": epochs, "search_epochs": 2}).budget.short_epochs == 2


@pytest.mark.parametrize(
    ("search", "seconds", "runs"), [(None, None, None), (16, None, 16), ("90s", 90, None), ("20m", 1200, None), ("1.5h", 5400, None)]
)
def test_a_search_budget_is_time_or_short_runs(search: Any, seconds: float | None, runs: float | None) -> None:
    budget = experiment(budget={"search": search}).budget
    assert (budget.search_seconds, budget.search_runs) == (seconds, runs)


@pytest.mark.parametrize(
    ("metric", "larger"),
    [("accuracy", True), ("mse", False), ("mae", False), ({"target": "m:f"}, True), ({"target": "m:f", "mode": "min"}, False)],
)
def test_which_way_a_metric_goes(metric: Any, larger: bool) -> None:
    assert experiment(metric=metric).metric.larger_is_better is larger


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b", "a-b"), (" x. ", "x"), ("...", "experiment"), ("größe", "größe"), ("n" * 200, "n" * 100), ("../../x", "-..-x"),
        ("/etc", "-etc"), ("a\0\n\x85\u2028\udcffb", "a-----b"),
        ("CON", "run-CON"), ("nul.tar.gz", "run-nul.tar.gz"), ("Com1 .x", "run-Com1 .x"), ("lpt²", "run-lpt²"),
        ("aux" + " " * 100 + "x", "run-aux"), ("con." + "n" * 100, "run-con." + "n" * 92),
        ("console", "console"), ("com10", "com10"), ("👩‍👩‍👧", "👩‍👩‍👧"), ("שלום", "שלום"),
        ("é" * 120, "é" * 100), ("e\u0301" * 60, "e\u0301" * 50),
        ("𝒳" * 100, "𝒳" * 50), ("n" + "𝒳" * 60, "n" + "𝒳" * 49),
    ],
)  # fmt: skip
def test_folder_names(text: str, name: str) -> None:
    assert folder_name(text) == name
    assert folder_name(name) == name
    assert experiment(name=name).name == name


@given(st.text(max_size=250) | st.text(alphabet="conaux1. /\\𝒳", max_size=250))
def test_no_name_leaves_the_folder_of_runs(text: str) -> None:
    name = folder_name(text)
    assert folder_name(name) == name
    run = default_run_dir(experiment(name=name))
    assert run.parent == Path("runs")
    assert Path(os.path.normpath(run)).parts == ("runs", name)
    assert PureWindowsPath(name).parts == (name,)
    assert not PureWindowsPath(name).is_reserved()
    recommended = recommended_name(name)
    assert experiment(name=recommended).name == recommended == recommended_name(recommended)


@pytest.mark.parametrize("name", ["𝒳" * 50, "e\u0301" * 50, "👩‍👩‍👧 שלום", "größe 1", "-rf", "~root", "$HOME"])
def test_runs_of_any_name_can_be_made_and_retired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    layout = RunLayout(default_run_dir(experiment(name=name)))
    write_atomic(layout.journal, "")
    assert retire(layout) == tmp_path / "runs" / f"{name}.old-1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../x", "'../../x' cannot name a folder: leave out /"),
        ("/tmp/x", "'/tmp/x' cannot name a folder"),
        ("..", "'..' cannot name a folder"),
        ("a\0b", "'a\\x00b' cannot name a folder"),
        ("a\u2028b", "cannot name a folder"),
        ("NUL", "'NUL' cannot name a folder: Windows keeps this name for a device"),
        ("con.txt", "'con.txt' cannot name a folder: Windows keeps this name for a device"),
        ("𝒳" * 51, "must have at most 200 bytes as UTF-8, got 204"),
        ("n" * 101, "must have at most 100 characters, got 101"),
    ],
)
def test_names_that_are_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^name: .*{re.escape(words)}"):
        experiment(name=name)


@pytest.mark.parametrize("name", preset_names())
def test_editors_accept_the_presets(name: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(read_yaml(preset(name), str).value)


@pytest.mark.parametrize(
    "tree",
    [
        {"model": "mlp"},
        {"data": {"name": "digits"}, "model": "mlp", "baselin": {}},
        {"data": {"name": "digitz"}, "model": "mlp"},
        {"data": {"name": "digits"}, "model": "mlp", "stages": {"momentum": True}},
        {"data": {"name": "digits"}, "model": "mlp", "baseline": {"momentum": 1.5}},
    ],
)
def test_editors_see_mistakes(tree: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(tree)


@pytest.mark.parametrize("off", [False, "off"])
def test_editors_accept_short_forms(off: Any) -> None:
    tree = {"data": {"name": "digits"}, "model": "mlp", "loss": {"name": "mse"}, "stages": {"momentum": off}}
    jsonschema.Draft202012Validator(json_schema()).validate(tree)


@pytest.mark.parametrize("metric", ["none", {"name": "none"}])
def test_no_metric_cannot_be_ranked_by(metric: Any) -> None:
    with pytest.raises(ConfigError, match="rank_by: there is no metric to rank by: metric is none"):
        experiment(metric=metric, rank_by="metric")
    assert experiment(metric=metric).rank_by == "val_loss"
