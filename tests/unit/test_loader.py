"""Reading configs: what a user writes, and the one message each mistake ends in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hptune.config.loader import LoadedConfig, from_tree, load_config, parse_values, with_value
from hptune.config.presets import preset, preset_files, preset_names
from hptune.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = """\
name: tiny
data: {name: digits, val_fraction: 0.25}
model: {name: small_cnn, args: {width: 4}}
baseline: {lr: 0.05, batch_size: 64, momentum: 0.9, weight_decay: 1e-4}
budget: {epochs: 3, search_epochs: 1}
stages:
  batch_size: {values: [64, 128], compare: samples}
  momentum: {values: [0.95, 0.9]}
  refine: off
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a space in its name."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def load(text: str, *overrides: str) -> LoadedConfig:
    """Write `text` to c.yaml in the current folder and load it."""
    Path("c.yaml").write_text(text, encoding="utf-8")
    return load_config("c.yaml", overrides)


def message(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(text, *overrides)
    words = str(error.value)
    for leak in ("pydantic", "Input should", "literal[", "<on>", "Value error", "Traceback"):
        assert leak not in words
    return words


def test_numbers_and_switches_are_read_as_people_write_them(here: Path) -> None:
    text = """\
    data:
      target: "package.module:load"
      args: {a: 1E5, b: .5e-3, c: 1e-4, d: 010, e: 12:30, f: 2024-01-01, g: -.inf, h: 1_000, i: 0x10}
    model: mlp
    stages: {momentum: off, refine: no, confirm: on, lr_range: }
    """
    experiment = load(text).experiment
    assert experiment.data.args == {
        "a": 1e5, "b": 5e-4, "c": 1e-4, "d": 10, "e": "12:30", "f": "2024-01-01", "g": -float("inf"), "h": 1000, "i": 16
    }  # fmt: skip
    assert [type(experiment.data.args[key]) for key in "acd"] == [float, float, int]
    assert experiment.stages.momentum is False
    assert experiment.stages.refine is False
    assert experiment.stages.confirm
    assert experiment.stages.lr_range


def test_a_config_without_a_name_is_named_after_its_file(here: Path) -> None:
    Path("my run: 1.yaml").write_text("data: {name: digits}\nmodel: mlp\n")
    assert load_config("my run: 1.yaml").experiment.name == "my run- 1"
    assert load_config("my run: 1.yaml", ["name=other"]).experiment.name == "other"
    assert with_value(load_config("my run: 1.yaml"), "seeds", 3).experiment.name == "my run- 1"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("momentum: 0.9,", "momentm: 0.9,", ["c.yaml:4: baseline.momentm: unknown key 'momentm': did you mean 'momentum'?"]),
        ("name: tiny", "lr: 3", ["c.yaml:1: lr: unknown key 'lr': it belongs in baseline or hyperparameters"]),
        ("name: tiny", "qwzx: 3", ["c.yaml:1: qwzx: unknown key 'qwzx': here go version, name, data"]),
        ("args: {width: 4}", "width: 4", ["c.yaml:3: model.width: unknown key", "; the model's own arguments go in args"]),
        ("momentum: 0.9,", "momentum: 1.9,", ["c.yaml:4: baseline.momentum: must be below 1, got 1.9"]),
        ("lr: 0.05", "lr: -0.05", ["c.yaml:4: baseline.lr: must be above 0, got -0.05"]),
        ("lr: 0.05", "lr: .nan", ["c.yaml:4: baseline.lr: must be a finite number, got nan"]),
        ("lr: 0.05", "lr: 1e999", ["c.yaml:4: baseline.lr: must be a finite number, got inf"]),
        ("lr: 0.05", "lr: '0.05'", ["c.yaml:4: baseline.lr: needs a number, got the text '0.05': leave out the quotes"]),
        ("batch_size: 64", "batch_size: many", ["c.yaml:4: baseline.batch_size: needs a whole number, got the text 'many'"]),
        ("batch_size: 64", "batch_size: 64.5", ["c.yaml:4: baseline.batch_size: needs a whole number, got 64.5"]),
        ("batch_size: 64", "batch_size: 0", ["c.yaml:4: baseline.batch_size: must be at least 1, got 0"]),
        ("batch_size: 64", "batch_size: 99999999999", ["must be at most 1,000,000,000"]),
        ("name: digits", "name: digitz", ["c.yaml:2: data.name: unknown name 'digitz': did you mean 'digits'? (one of digits, mnist"]),
        ("name: digits", "name: [digits]", ["c.yaml:2: data.name: needs one of digits, mnist", "got a list"]),
        ("[0.95, 0.9]", "[]", ["c.yaml:8: stages.momentum.values: needs at least one value"]),
        ("[0.95, 0.9]", "0.9", ["c.yaml:8: stages.momentum.values: needs a list, such as [a, b], got 0.9"]),
        ("[0.95, 0.9]", "[0.95, much]", ["c.yaml:8: stages.momentum.values.1: needs a number, got the text 'much'"]),
        ("[0.95, 0.9]", "[0.9, 0.9]", ["stages.momentum.values: the values repeat themselves: 0.9"]),
        ("refine: off", "refine: maybe", ["c.yaml:9: stages.refine: needs a block of keys", "or off, got the text 'maybe'"]),
        ("refine: off", "refin: off", ["c.yaml:9: stages.refin: unknown key 'refin': did you mean 'refine'?"]),
        ("refine: off", "lr_range: {max_lr: 1e-5}", ["c.yaml:9: stages.lr_range: min_lr (0.0001) must be below max_lr (1e-05)"]),
        ("compare: samples", "compare: tiem", ["c.yaml:7: stages.batch_size.compare: unknown value 'tiem': did you mean 'time'?"]),
        ("val_fraction: 0.25", "val_fraction: 0.9", ["c.yaml:2: data: val_fraction and test_fraction together take 1.1"]),
        ("val_fraction: 0.25", "augment: [flop]", ["c.yaml:2: data.augment: unknown augmentation 'flop': use flip, crop:PIXELS"]),
        ("val_fraction: 0.25", "path: x.npz", ["c.yaml:2: data: digits takes no path: it goes with arrays"]),
        ("val_fraction: 0.25", "split: {grp: a}", ["c.yaml:2: data.split: needs stratified, random, time or {group: KEY}"]),
        ("name: digits", "name: arrays", ["c.yaml:2: data: arrays needs a path"]),
        ("name: digits", "name: image_folder", ["c.yaml:2: data: image_folder needs a root"]),
        ("name: digits", "name: custom", ["c.yaml:2: data: give a name (one of digits", "or a target"]),
        ("name: digits", "target: mine.py", ["c.yaml:2: data.target: 'mine.py' is no target: write path/to/file.py:name"]),
        ("name: digits", "name: digits, target: 'm:f'", ["a target is the user's own data, but name is digits"]),
        ("name: tiny", "name: 42", ["c.yaml:1: name: needs text, got 42: put it in quotes"]),
        ("name: tiny", "name: a/b", ["c.yaml:1: name: 'a/b' cannot name a folder"]),
        ("name: tiny", "name: ''", ["c.yaml:1: name: must not be empty"]),
        ("name: tiny", f"name: {'n' * 101}", ["c.yaml:1: name: must have at most 100 characters, got 101"]),
        ("name: tiny", "version: 2", ["c.yaml:1: version: needs 1, the only version of configs there is, got 2"]),
        ("name: tiny", "loss: mes", ["c.yaml:1: loss: unknown name 'mes': did you mean 'mse'? (one of cross_entropy"]),
        ("name: tiny", "metric: {name: acuracy}", ["c.yaml:1: metric.name: unknown name 'acuracy': did you mean 'accuracy'?"]),
        ("name: tiny", "loss: {name: mse, target: 'a:b'}", ["c.yaml:1: loss: give a name or a target, not both"]),
        ("name: tiny", "device: gpu", ["c.yaml:1: device: needs auto, cpu, cuda, cuda:N or mps, got the text 'gpu'"]),
        ("name: tiny", "seeds: true", ["c.yaml:1: seeds: needs a whole number, got true"]),
        ("name: tiny", "executor: {workers: few}", ["c.yaml:1: executor.workers: needs a whole number of at least 1 and at most 1000"]),
        ("name: tiny", "executor: {threads: 1000000000}", ["executor.threads: needs a whole number of at least 1 and at most 1000"]),
        ("name: tiny", "optimizer: {groups: [{match: a, lr_facter: 2}]}", ["optimizer.groups.0.lr_facter", "did you mean 'lr_factor'?"]),
        ("search_epochs: 1", "search: soon", ["c.yaml:5: budget.search: needs short runs (16) or wall time (90s, 20m, 1.5h)"]),
        ("search_epochs: 1", "search: 0m", ["c.yaml:5: budget.search: needs short runs (16)"]),
        ("search_epochs: 1", "search: -4", ["c.yaml:5: budget.search: needs short runs (16)"]),
        ("budget: {epochs: 3", "budget: {epochs: -3", ["c.yaml:5: budget.epochs: must be above 0, got -3"]),
        ("data: {name: digits, val_fraction: 0.25}", "", ["c.yaml: data: required; e.g. data: {name: digits}"]),
        ("data: {name: digits, val_fraction: 0.25}", "data: digits", ["c.yaml:2: data: needs a block of keys, such as {name: digits}"]),
        ("data: {name: digits, val_fraction: 0.25}", "dat: {}", ["dat: unknown key 'dat': did you mean 'data'?", "1 more mistake)"]),
        ("model: {name: small_cnn, args: {width: 4}}", "model: {}", ["c.yaml:3: model: give a name or a target"]),
        ("name: tiny", "seeds: 0\nseed: -1\nrank_by: loss", ["c.yaml:3: rank_by: unknown value 'loss'", "(and 2 more mistakes)"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_file_line_and_key(here: Path, old: str, new: str, words: list[str]) -> None:
    assert old in TINY
    found = message(TINY.replace(old, new))
    assert [word for word in words if word not in found] == [], found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "c.yaml: the config is empty: it needs at least data and model"),
        ("# nothing\n---\n", "c.yaml: the config is empty"),
        ("- a\n- b\n", "c.yaml: a config is a block of keys (data: …, model: …), not a list"),
        ("just words\n", "not the text 'just words'"),
        (
            "a: 1\nb: [1, 2\nc: 3\n",
            "c.yaml:3: broken YAML: while parsing a flow sequence, expected ',' or ']', but got ':' (it began in line 2)",
        ),
        ("a: 1\n\tb: 2\n", "c.yaml:2: broken YAML"),
        ("a: *nothing\n", "c.yaml:1: broken YAML: found undefined alias 'nothing'"),
        ("a: 1\n---\nb: 2\n", "broken YAML: expected a single document"),
        ("a: 1\nb: '\x07'\n", "c.yaml:2: broken YAML: the character '\\x07' is not allowed"),
        ("a: 1\nb: {x: 1, y: 2, x: 3}\n", "c.yaml:2: the key 'x' is given twice (first at c.yaml:2)"),
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: the key 'a' is given twice (first at c.yaml:1)"),
        ("? [a, b]\n: 1\n", "c.yaml:1: a key must be plain text"),
        ("data: !!python/object/apply:os.system ['touch pwned']\n", "c.yaml:1: the tag !!python/object/apply:os.system is not allowed"),
        ("data: !secret x\n", "c.yaml:1: the tag !secret is not allowed"),
        ("data: !!int x\n", "c.yaml:1: 'x' cannot be read as !!int"),
        (f"data: {'9' * 5000}\n", "c.yaml:1: '9999"),
        ("a:\n  <<: 3\n", "c.yaml:2: << takes a mapping"),
        ("a: " + "[" * 500 + "]" * 500, "c.yaml:1: broken YAML: nested deeper than 30 levels"),
        ("a: &a [*a]\n", "c.yaml:1: nested deeper than 30 levels: does an alias (*name) contain itself?"),
    ],
)
def test_broken_yaml_is_one_message_with_its_line(here: Path, text: str, words: str) -> None:
    found = message(text)
    assert words in found
    assert "\n" not in found
    assert not Path("pwned").exists()


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_an_alias_bomb_is_refused(here: Path, level: str) -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} " + level.format(", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 12)]
    assert "more than 5,000 keys and values once every alias (*name) is written out" in message("\n".join(lines))


def test_aliases_and_merges_work_and_later_keys_win(here: Path) -> None:
    text = """\
    data: {name: digits}
    model: {name: mlp, args: &sizes {hidden: [8], dropout: 0.1}}
    baseline: &base {lr: 0.5, momentum: 0.8}
    hyperparameters: {<<: *base, lr: 0.25}
    """
    experiment = load(text).experiment
    assert (experiment.chosen_hyperparameters().lr, experiment.chosen_hyperparameters().momentum) == (0.25, 0.8)


def test_files_that_cannot_be_read(here: Path) -> None:
    Path("config.yaml").write_text("x: 1")
    Path("binary.yaml").write_bytes(b"a: \xff\xfe")
    Path("folder.yaml").mkdir()
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbf" + TINY.encode())
    for name, words in [
        ("confg.yaml", "confg.yaml: there is no such file: did you mean 'config.yaml'?"),
        ("no/where.yaml", "no/where.yaml: there is no such file"),
        ("folder.yaml", "folder.yaml: is a folder"),
        ("binary.yaml", "binary.yaml: is not UTF-8 text (byte 3)"),
    ]:
        with pytest.raises(ConfigError, match="^" + words.replace("?", r"\?").replace("(", r"\(").replace(")", r"\)")):
            load_config(name)
    assert load_config("bom.yaml").experiment.name == "tiny"


def test_overrides_are_typed_and_the_last_one_wins(here: Path) -> None:
    overrides = ["baseline.lr=1e-2", "baseline.lr=2e-2", "stages.momentum=off", "stages.refine.trials=2", "data.limit=", "name=a: b"[:6]]
    experiment = load(TINY, *overrides, "optimizer.groups=[{match: 'fc*'}]", "optimizer.groups.0.lr_factor=0.1").experiment
    assert experiment.baseline.lr == 0.02
    assert experiment.stages.momentum is False
    assert experiment.stages.refine
    assert experiment.stages.refine.trials == 2
    assert experiment.data.limit is None
    assert experiment.optimizer.groups[0].lr_factor == 0.1


@pytest.mark.parametrize("loss", ["", "loss: mse\n", "loss: {name: mse}\n"])
def test_an_override_reaches_into_short_forms_and_defaults(here: Path, loss: str) -> None:
    experiment = load(TINY + loss, "loss.args.reduction=sum").experiment
    assert experiment.loss.name == ("mse" if loss else "cross_entropy")
    assert experiment.loss.args == {"reduction": "sum"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("budget.epochs=zero", "--set: budget.epochs: needs a number, got the text 'zero'"),
        ("baselin.lr=1", "--set: baselin: unknown key 'baselin': did you mean 'baseline'?"),
        ("baseline.lrr=1", "--set: baseline.lrr: unknown key 'lrr': did you mean 'lr'?"),
        ("baseline.lr", "--set: needs key.path=value, such as baseline.lr=0.05, got 'baseline.lr'"),
        ("=3", "--set: needs key.path=value"),
        ("a..b=3", "--set: 'a..b' is no key"),
        ("baseline.lr=[1", "--set: baseline.lr: broken YAML"),
        ("name.x=1", "--set: name: is the text 'tiny': there is no key below it"),
        ("stages.momentum.values.7=0.9", "--set: stages.momentum.values.7: there is no item 7: the list has 2 items, counted from 0"),
        ("stages.momentum.values.x=0.9", "--set: stages.momentum.values.x: there is no item x"),
        ("baseline={lrr: 1}", "--set: baseline.lrr: unknown key"),
    ],
)
def test_a_wrong_override_says_so(here: Path, override: str, words: str) -> None:
    assert words in message(TINY, override)


def test_places_follow_file_and_overrides(here: Path) -> None:
    loaded = load(TINY, "baseline.lr=1", "stages.momentum={minimum: 0.8}")
    expected = {
        "baseline.momentum": "c.yaml:4",
        "baseline.lr": "--set",
        "baseline.nothing.below": "c.yaml:4",
        "stages.batch_size.values.1": "c.yaml:7",
        "stages.momentum.values": "--set",
        "model.args.width": "c.yaml:3",
        "elsewhere": "c.yaml",
    }
    assert {key: loaded.locate(key) for key in expected} == expected
    assert load_config(here / "c.yaml").locate("name") == f"{here / 'c.yaml'}:1"
    assert from_tree(loaded.tree, here).locate("name") is None


def test_variables_are_expanded_and_typed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H_LR", "2e-2")
    monkeypatch.setenv("H_DIR", "123")
    monkeypatch.setenv("H_WORD", "{a: 1}")
    text = """\
    data: {target: "package.module:load", args: {a: "${H_LR}", b: "x${H_LR}", c: "$${H_LR}", d: "${H_WORD}"}}
    model: {name: mlp, pretrained: "${H_DIR}"}
    baseline: {lr: "${H_LR}"}
    """
    loaded = load(text)
    assert loaded.experiment.baseline.lr == 0.02
    assert loaded.experiment.data.args == {"a": 0.02, "b": "x2e-2", "c": "${H_LR}", "d": "{a: 1}"}
    assert loaded.experiment.model.pretrained == str(here / "123")
    assert loaded.tree["baseline"]["lr"] == "${H_LR}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${H_NOT_SET}/x", "c.yaml:2: data.root: the environment variable H_NOT_SET is not set"),
        ("${H-1}", "c.yaml:2: data.root: '${H-1}' names no environment variable: write ${NAME}"),
        ("a${B", "c.yaml:2: data.root: '${B' names no environment variable"),
    ],
)
def test_a_missing_variable_is_named_with_key_and_line(here: Path, value: str, words: str) -> None:
    assert words in message(f'model: mlp\ndata: {{name: mnist, root: "{value}"}}\n')


def test_paths_and_file_targets_refer_to_the_config_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "sub dir").mkdir()
    (here / "mine.py").write_text("")
    config = here / "sub dir" / "c.yaml"
    config.write_text("""\
data: {target: "../mine.py:load", collate: {target: "../mine.py:batch"}}
model: {target: "package.module:Net", pretrained: ~/w.pt}
loss: {target: "../mine.py:loss"}
metric: {target: "../mine.py:metric"}
step: {target: "../mine.py:step"}
""")
    experiment = load_config("sub dir/c.yaml").experiment
    mine = str(here / "mine.py")
    assert experiment.data.target == f"{mine}:load"
    assert experiment.data.collate
    assert experiment.data.collate.target == f"{mine}:batch"
    assert experiment.model.target == "package.module:Net"
    assert experiment.model.pretrained == str(here / "home" / "w.pt")
    assert (experiment.loss.target, experiment.metric.target) == (f"{mine}:loss", f"{mine}:metric")
    assert experiment.step
    assert experiment.step.target == f"{mine}:step"
    assert from_tree({"data": {"name": "arrays", "path": Path("a b.npz")}, "model": "mlp"}, here).experiment.data.path == str(
        here / "a b.npz"
    )


def test_a_missing_target_file_is_named_with_key_and_line(here: Path) -> None:
    Path("mine.py").write_text("")
    found = message("model: mlp\ndata: {target: 'mne.py:load'}\n")
    assert found == f"c.yaml:2: data.target: there is no file mne.py in {here}: did you mean 'mine.py'?"
    assert "--set: model.target: there is no file /no/where.py" in message("data: {name: digits}\n", "model.target=/no/where.py:Net")


def test_with_value_changes_one_key_and_leaves_the_original(here: Path) -> None:
    loaded = load(TINY)
    changed = with_value(loaded, "model.args.dropout", 0.5)
    assert changed.experiment.model.args == {"width": 4, "dropout": 0.5}
    assert loaded.experiment.model.args == loaded.tree["model"]["args"] == {"width": 4}
    assert with_value(loaded, "stages.refine", {}).experiment.stages.refine
    with pytest.raises(ConfigError, match=r"--values: optimizer\.nestrov: unknown key 'nestrov': did you mean 'nesterov'\?"):
        with_value(loaded, "optimizer.nestrov", True)
    with pytest.raises(ConfigError, match=r"--values: data\.val_fraction: must be below 1, got 2"):
        with_value(loaded, "data.val_fraction", 2)


def test_values_on_the_command_line_are_typed() -> None:
    assert parse_values("1e-4,2, off,flip,[64,32],{name: mlp}") == [1e-4, 2, False, "flip", [64, 32], {"name": "mlp"}]
    for text in ("", "1,,2", "[1"):
        with pytest.raises(ConfigError, match=r"^--values: "):
            parse_values(text)


def test_a_config_made_in_python_is_taken_as_a_file_would_be(here: Path) -> None:
    import numpy as np

    tree = {"data": {"name": "digits"}, "model": {"name": "mlp", "args": {"hidden": (8, np.int64(4))}}, "baseline": {"lr": np.float64(0.5)}}
    loaded = from_tree(tree, here)
    assert loaded.experiment.model.args == {"hidden": [8, 4]}
    assert loaded.experiment.baseline.lr == 0.5
    assert loaded.experiment.name == "experiment"
    with pytest.raises(ConfigError, match=r"^model\.args\.act: a config holds text, numbers, lists and mappings, not a function"):
        from_tree({"data": {"name": "digits"}, "model": {"name": "mlp", "args": {"act": message}}}, here)
    with pytest.raises(ConfigError, match=r"^baseline\.lr: must be above 0"):
        from_tree({**tree, "baseline": {"lr": 0}}, here)


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_commented_and_valid(here: Path, name: str) -> None:
    for file, text in preset_files(name).items():
        (here / file).write_text(text, encoding="utf-8")
    assert load_config(here / f"{name}.yaml").experiment.stages.confirm
    assert preset(name).count("#") > 8


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--preset: unknown preset 'digitz': did you mean 'digits'"):
        preset("digitz")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_are_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPTUNE_DATA", "/data")
    assert load_config(file).experiment.name


def test_reading_a_config_imports_nothing_heavy(here: Path) -> None:
    load(TINY)
    code = "import sys; from hptune.config.loader import load_config; load_config('c.yaml'); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert not {"torch", "pandas", "scipy", "sklearn", "optuna", "typer", "rich", "altair"} & set(out)
