"""Exports: complete texts with the recommended values, for every tool; the Optuna study is really rebuilt."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from fabricated import TASK, fabricate, sweep_key
from surfaces import Surface

from hptune import report
from hptune.config.schema import Loss, Model, Optimizer
from hptune.errors import InputError
from hptune.report.export import TARGETS, export
from hptune.report.export_settings import Settings, settings_of
from hptune.report.export_timm import timm
from hptune.report.export_torch import pytorch
from hptune.report.export_trainers import fastai, huggingface, lightning
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics
from hptune.version import __version__

H = Hyperparameters(lr=0.25, batch_size=64, momentum=0.95, momentum_min=0.85, weight_decay=3e-4)
SETTINGS = Settings(
    hyperparameters=H,
    epochs=30.0,
    train_samples=1280,
    optimizer=Optimizer(),
    schedule=Schedule(),
    model=Model(name="resnet18"),
    numerics=Numerics(),
    seed=3,
    header=("Recommended by hptune.",),
    loss=Loss(),
    classes=10,
)
SCHEDULES = [
    Schedule(),
    Schedule(tail_fraction=0.0),
    Schedule(shape="torch", warmup_fraction=0.3),
    Schedule(shape="three_phase", warmup_fraction=0.4),
    Schedule(shape="three_phase", warmup_fraction=0.5),
    Schedule(kind="constant"),
    Schedule(kind="step", milestones=(0.3, 0.6)),
]
OPTIMIZERS = [
    Optimizer(),
    Optimizer(name="adamw", gradient_clip=1.0, decay_bias_and_norm=False),
    Optimizer.model_validate({"groups": [{"match": "head.*", "lr_factor": 10.0, "decay_factor": 0.0}]}),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    folder = fabricate(tmp_path_factory.mktemp("export") / "run", surface=Surface(diverges_above=0.3))
    sweep_key(folder, "model.args.width", [4, 8])
    return report.load(folder)


@pytest.mark.parametrize("to", [name for name in TARGETS if name != "timm"])
def test_every_export_of_a_run_is_python_with_its_values(run: report.Run, to: str) -> None:
    text = export(run, to)
    compile(text, to, "exec")
    assert run.recommendation is not None
    assert repr(run.recommendation.hyperparameters.weight_decay) in text
    assert text.startswith(f"# Recommended by hptune {__version__} for made up.\n# Better than the baseline at full length")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_exports_compile_for_every_config(schedule: Schedule, optimizer: Optimizer, precision: Any) -> None:
    settings = replace(SETTINGS, schedule=schedule, optimizer=optimizer, numerics=Numerics(precision=precision), epochs=7.5)
    for write in (pytorch, lightning, huggingface, fastai):
        compile(write(settings), write.__name__, "exec")
    shlex.split(timm(settings), comments=True)


def test_an_unknown_tool_is_answered_with_the_known_ones(run: report.Run) -> None:
    with pytest.raises(InputError, match=r"cannot export to 'pytorhc': use one of pytorch, .*, optuna; did you mean pytorch\?"):
        export(run, "pytorhc")


def test_without_a_recommendation_the_message_says_what_makes_one(tmp_path: Path) -> None:
    run = report.load(fabricate(tmp_path / "run", stop_after=3))
    with pytest.raises(InputError, match=r"no recommendation yet.*hptune run"):
        export(run, "pytorch")


def test_precision_and_frozen_parameters_are_told(tmp_path: Path) -> None:
    task = replace(TASK, numerics=Numerics(precision="bf16"))
    folder = fabricate(tmp_path / "run", only=["lr_range"], task=task, model={"name": "resnet18", "freeze": ["layer1.*"]})
    settings = settings_of(report.load(folder))
    assert any("bf16" in line for line in settings.header)
    assert any("layer1.*" in line for line in settings.header)
    assert "torch.autocast(device, torch.bfloat16)" in pytorch(settings)


def study_of(text: str) -> optuna.Study:
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "study", "exec"), names)
    study: optuna.Study = names["make_study"]()
    return study


def test_the_study_holds_all_trials_and_goes_on_with_the_recommendation(run: report.Run) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = study_of(export(run, "optuna"))
    own = [r for r in run.records if r.spec.schedule.kind != "ramp"]
    done = [t for t in study.trials if t.state.is_finished()]
    assert len(done) == len(own)
    assert sorted(t.value for t in done if t.value is not None) == sorted(r.val_loss for r in own if r.usable)
    pruned = {t.user_attrs["trial_id"] for t in done if t.state is optuna.trial.TrialState.PRUNED}
    assert pruned == {r.trial_id for r in own if r.status == "diverged"}
    assert pruned
    swept = [t for t in done if "model.args.width" in t.params]
    assert sorted({t.params["model.args.width"] for t in swept}) == [4, 8]
    assert {t.user_attrs["stage"] for t in swept} == {"model.args.width"}
    asked = study.ask({name: d for t in done[:1] for name, d in t.distributions.items()})
    assert run.recommendation is not None
    assert asked.params == {name: getattr(run.recommendation.hyperparameters, name) for name in asked.params}
    assert len(asked.params) == 5


def test_a_study_of_few_equal_trials_can_be_rebuilt(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = study_of(export(report.load(fabricate(tmp_path / "run", only=["lr_range"])), "optuna"))
    assert study.best_params["batch_size"] == 64


def test_timm_gets_its_own_words() -> None:
    words = shlex.split(timm(SETTINGS).replace("\\\n", " "), comments=True)
    options = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}
    assert words[:4] == ["python", "train.py", "--data-dir", "DATA_DIR"]
    assert (options["--lr"], options["--momentum"], options["--weight-decay"]) == ("0.25", "0.85", "0.0003")
    assert (options["--opt"], options["--batch-size"], options["--num-classes"]) == ("sgd", "64", "10")
    assert (options["--warmup-epochs"], options["--epochs"], options["--cooldown-epochs"]) == ("14", "13", "3")
    assert float(options["--warmup-lr"]) == 0.025
    assert "timm holds the momentum" in timm(SETTINGS)
    plain = timm(replace(SETTINGS, optimizer=Optimizer(nesterov=False), schedule=Schedule(kind="step")))
    assert "--opt momentum" in plain
    assert "--momentum 0.95" in plain
    assert "--decay-milestones 16 23" in plain


def test_timm_is_told_no_nesterov_without_momentum_which_torch_refuses() -> None:
    assert "--opt momentum" in timm(replace(SETTINGS, hyperparameters=H.but(momentum=0.0)))


def test_the_length_of_a_timm_run_is_that_of_the_search() -> None:
    for schedule in SCHEDULES:
        for epochs in (1.0, 2.0, 7.4, 30.0):
            words = shlex.split(timm(replace(SETTINGS, schedule=schedule, epochs=epochs)).replace("\\\n", " "), comments=True)
            options = {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}
            parts = ("--epochs", "--cooldown-epochs", *(["--warmup-epochs"] if "--warmup-prefix" in words else []))
            assert sum(int(options.get(name, 0)) for name in parts) == round(epochs)


def test_a_hostile_run_exports_no_commands(tmp_path: Path) -> None:
    attack = "x\n$(touch run) ; import os"
    folder = fabricate(tmp_path / "run", only=["lr_range"], model={"name": attack, "freeze": [attack]})
    words = shlex.split(export(report.load(folder), "timm").replace("\\\n", " "), comments=True)
    assert words[words.index("--model") + 1] == attack
    for line in export(report.load(folder), "pytorch").splitlines():
        assert "touch" not in line or line.startswith("#")


@pytest.mark.parametrize(("rank_by", "direction"), [("val_loss", "minimize"), ("metric", "maximize")])
def test_a_study_is_ranked_as_the_run(tmp_path: Path, rank_by: str, direction: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = report.load(fabricate(tmp_path / "run", only=["lr_range", "momentum"], rank_by=rank_by))
    study = study_of(export(run, "optuna"))
    assert study.direction.name.lower() == direction
    best = max if direction == "maximize" else min
    values = [getattr(r, rank_by) for r in run.records if r.usable and r.spec.schedule.kind != "ramp"]
    assert study.best_value == best(values)


def test_trials_from_before_a_change_of_the_schedule_are_left_out_and_counted(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stages = ["lr_range", "momentum"]
    fabricate(tmp_path / "run", only=stages)
    old = len(report.load(tmp_path / "run").records)
    run = report.load(fabricate(tmp_path / "run", only=stages, schedule={"shape": "torch"}))
    text = export(run, "optuna")
    kept = [t for t in study_of(text).trials if t.state.is_finished()]
    ramps = sum(r.spec.schedule.kind == "ramp" for r in run.records)
    assert 0 < len(kept) == len(run.records) - old - (ramps - ramps_of(run, old))
    assert f"{len(run.records) - len(kept)} trials are left out" in text


def ramps_of(run: report.Run, first: int) -> int:
    return sum(r.spec.schedule.kind == "ramp" for r in run.records[:first])


def test_a_run_that_is_not_confirmed_says_so_in_every_export(tmp_path: Path) -> None:
    run = report.load(fabricate(tmp_path / "run", only=["lr_range", "momentum"]))
    for to in TARGETS:
        assert "# Not confirmed: the stage confirm would compare it with the baseline at full length." in export(run, to)


def test_the_users_own_parts_are_named_without_their_folders(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    model = {"target": str(tmp_path / "mine.py:Net"), "args": {"width": 3}}
    folder = fabricate(tmp_path / "run", only=["lr_range"], model=model, loss={"target": str(tmp_path / "mine.py:loss")})
    for to in TARGETS:
        text = export(report.load(folder), to)
        assert "Tuned with model mine.py:Net(width=3); loss mine.py:loss; augmentation none; 1280 training samples" in text
        assert str(tmp_path) not in text
    assert "this one only stands in for it" in export(report.load(folder), "pytorch")
    assert "--model MODEL" in export(report.load(folder), "timm")


@pytest.mark.parametrize(("size", "micro", "pieces"), [(64, None, 1), (64, 16, 4), (64, 64, 1), (96, 40, 3), (7, 2, 7)])
def test_a_batch_is_accumulated_in_equal_pieces_no_larger_than_the_searchs(size: int, micro: int | None, pieces: int) -> None:
    settings = replace(SETTINGS, hyperparameters=H.but(batch_size=size), numerics=Numerics(micro_batch=micro))
    assert settings.accumulation == pieces


def test_the_study_of_a_search_without_a_completed_trial_runs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = report.load(fabricate(tmp_path / "run", only=["lr_range"]))
    ramps = tuple(r for r in run.records if r.spec.schedule.kind == "ramp")
    exec(compile(export(replace(run, records=ramps), "optuna"), "study", "exec"), {"__name__": "__main__"})
    assert "0 trials of the search\nThe next trial is the recommendation" in capsys.readouterr().out
