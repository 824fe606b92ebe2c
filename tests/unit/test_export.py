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
from hptune.config.schema import Model, Optimizer
from hptune.errors import InputError
from hptune.report.export import TARGETS, export
from hptune.report.export_settings import Settings, settings_of
from hptune.report.export_tools import fastai, timm
from hptune.report.export_torch import huggingface, lightning, pytorch
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics

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
    assert text.startswith("# Recommended by hptune for made up.\n# Better than the baseline at full length")


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
    own = [r for r in run.records if r.spec.task == "t1" and r.spec.schedule.kind != "ramp"]
    done = [t for t in study.trials if t.state.is_finished()]
    assert len(done) == len(own)
    assert sorted(t.value for t in done if t.value is not None) == sorted(r.val_loss for r in own if r.usable)
    pruned = {t.user_attrs["trial_id"] for t in done if t.state is optuna.trial.TrialState.PRUNED}
    assert pruned == {r.trial_id for r in own if r.status == "diverged"}
    assert pruned
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
    assert words[:4] == ["python", "train.py", "DATA_DIR", "--model"]
    assert (options["--lr"], options["--momentum"], options["--weight-decay"]) == ("0.25", "0.95", "0.0003")
    assert (options["--opt"], options["--epochs"], options["--batch-size"]) == ("sgd", "30", "64")
    assert float(options["--warmup-lr"]) == 0.025
    assert "timm has no 1cycle" in timm(SETTINGS)
    plain = timm(replace(SETTINGS, optimizer=Optimizer(nesterov=False), schedule=Schedule(kind="step")))
    assert "--opt momentum" in plain
    assert "--decay-milestones 15 22" in plain


def test_a_hostile_run_exports_no_commands(tmp_path: Path) -> None:
    attack = "x\n$(touch run) ; import os"
    folder = fabricate(tmp_path / "run", only=["lr_range"], model={"name": attack, "freeze": [attack]})
    words = shlex.split(export(report.load(folder), "timm").replace("\\\n", " "), comments=True)
    assert words[words.index("--model") + 1] == attack
    for line in export(report.load(folder), "pytorch").splitlines():
        assert "touch" not in line or line.startswith("#")


def test_fastai_gets_fit_one_cycle_where_it_is_the_same_and_pieces_elsewhere() -> None:
    same = fastai(replace(SETTINGS, schedule=Schedule(shape="torch", lr_ratio=25.0, tail_ratio=1e4)))
    assert "learn.fit_one_cycle(" in same
    assert "div=25.0" in same
    assert "div_final=250000.0" in same
    pieces = fastai(SETTINGS)
    assert "fit_one_cycle" not in pieces
    lines = [line.strip() for line in pieces.splitlines()]
    assert lines[lines.index("SchedLin(LR / 10.0, LR),") :][:3] == [
        "SchedLin(LR / 10.0, LR),", "SchedLin(LR, 0.0),", "SchedNo(LR / 10000.0, LR / 10000.0),",
    ]  # fmt: skip


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s.shape != "torch" and s.kind != "constant"])
def test_the_shares_of_fastai_schedules_add_up_to_exactly_one(schedule: Schedule) -> None:
    text = fastai(replace(SETTINGS, schedule=schedule))
    combined: list[tuple[list[float], int]] = []

    def combine_scheds(shares: list[float], parts: list[object]) -> None:
        combined.append((shares, len(parts)))

    class Learner:
        def fit(self, epochs: int, **_: object) -> None:
            assert epochs == 30

    names: dict[str, Any] = {"combine_scheds": combine_scheds, "ParamScheduler": lambda schedules: schedules}
    for form in ("SchedLin", "SchedCos", "SchedNo", "OptimWrapper"):
        names[form] = lambda *_, **__: None
    exec("\n".join(line for line in text.splitlines() if "fastai" not in line), names)
    names["fit"](Learner())
    assert combined
    for shares, parts in combined:
        assert sum(shares) == 1.0
        assert len(shares) == parts
        assert all(share > 0 for share in shares)
