"""Exports inside the libraries they are for: what each optimizer step was done with, against the search's schedule.

They need `pip install -e .[exports]`; a test whose library is missing is skipped and says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from fabricated import fabricate, sweep_key
from surfaces import Surface
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hptune import report
from hptune.config.schema import Loss, Model, Optimizer
from hptune.engine.update import Updater
from hptune.report import export_trainers as trainers
from hptune.report.export import export
from hptune.report.export_settings import Settings
from hptune.report.export_timm import timm
from hptune.report.export_torch import pytorch
from hptune.schedules import Schedule, Table, tabulate
from hptune.trial import Hyperparameters, Numerics

# Warnings are the libraries' own: they are no concern of ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LIBRARIES = {"pytorch": (), "lightning": ("lightning",), "fastai": ("fastai",), "huggingface": ("transformers", "accelerate")}
H = Hyperparameters(lr=0.05, batch_size=16, momentum=0.95, momentum_min=0.85, weight_decay=1e-2)
SAMPLES = 77  # 4 full batches and a ragged one
SETTINGS = Settings(
    hyperparameters=H,
    epochs=5.0,
    train_samples=SAMPLES,
    optimizer=Optimizer(),
    schedule=Schedule(),
    model=Model(name="mlp"),
    numerics=Numerics(),
    seed=0,
    header=("Recommended by hptune.",),
    loss=Loss(),
    classes=3,
)
GROUPS = Optimizer.model_validate({"groups": [{"match": "3.*", "lr_factor": 0.5, "decay_factor": 2.0}], "decay_bias_and_norm": False})
CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear without tail": {"schedule": Schedule(tail_fraction=0.0, warmup_fraction=0.3, lr_ratio=20.0)},
    "torch": {"schedule": Schedule(shape="torch", warmup_fraction=0.3, lr_ratio=25.0, tail_ratio=1e4)},
    "three_phase": {"schedule": Schedule(shape="three_phase", warmup_fraction=0.4)},
    "constant": {"schedule": Schedule(kind="constant")},
    "step": {"schedule": Schedule(kind="step", milestones=(0.5, 0.75), gamma=0.2)},
    "adamw": {"optimizer": Optimizer(name="adamw", beta2=0.99), "hyperparameters": H.but(lr=0.01)},
    "adamw, torch": {"optimizer": Optimizer(name="adamw"), "schedule": Schedule(shape="torch"), "hyperparameters": H.but(lr=0.01)},
    "no Nesterov": {"optimizer": Optimizer(nesterov=False)},
    "no momentum": {"hyperparameters": H.but(momentum=0.0)},
    "clipped": {"optimizer": Optimizer(gradient_clip=0.1)},
    "no decay of biases": {"optimizer": Optimizer(decay_bias_and_norm=False)},
    "groups": {"optimizer": GROUPS},
    "groups, torch": {"optimizer": GROUPS, "schedule": Schedule(shape="torch")},
    "part of an epoch": {"epochs": 2.6},
    "less than an epoch": {"epochs": 0.6},
    "micro-batch": {"numerics": Numerics(micro_batch=4)},
    "micro-batch, clipped": {"numerics": Numerics(micro_batch=8), "optimizer": Optimizer(gradient_clip=0.1), "epochs": 2.6},
    "bf16": {"numerics": Numerics(precision="bf16")},
}


@dataclass
class Trace:
    """What the optimizer was set to at each of its steps: `lr`, `momentum` (AdamW: beta1) of every parameter group.

    `samples`: those that went through the watched model, in training mode, since the step before.
    """

    lr: list[list[float]] = field(default_factory=list)
    momentum: list[list[float]] = field(default_factory=list)
    samples: list[int] = field(default_factory=lambda: [0])

    def watch(self, model: nn.Module) -> nn.Module:
        def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self.samples[-1] += len(inputs[0]) if module.training else 0

        model.register_forward_pre_hook(count)
        return model

    def __call__(self, optimizer: Any, *_: Any) -> None:
        groups = optimizer.param_groups
        self.lr.append([float(group["lr"]) for group in groups])
        self.momentum.append([float(group["momentum"] if "momentum" in group else group["betas"][0]) for group in groups])

    def after(self, *_: Any) -> None:
        """The step's samples are in: Lightning takes them within it."""
        self.samples.append(0)


@contextmanager
def traced() -> Iterator[Trace]:
    """Records every step of any torch optimizer."""
    trace = Trace()
    hooks = [register_optimizer_step_pre_hook(trace), register_optimizer_step_post_hook(trace.after)]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """One sample many times: every order and every split into batches then gives the same updates."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 5, generator=generator).expand(SAMPLES, 5).clone()
    return x, torch.zeros(SAMPLES, dtype=torch.long)


def dataset() -> Any:
    return torch.utils.data.TensorDataset(*samples())


def names_in(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "exported", "exec"), names)
    return names


def run_pytorch(settings: Settings, model: nn.Module) -> None:
    names_in(pytorch(settings))["train"](model, dataset())


def run_lightning(settings: Settings, model: nn.Module) -> None:
    names = names_in(trainers.lightning(settings))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = names["make_trainer"](dataset(), accelerator="cpu", **quiet)
    trainer.fit(names["Recommended"](model), names["make_loader"](dataset()))


def run_fastai(settings: Settings, model: nn.Module, fit: str = "fit") -> None:
    importlib.import_module("fastai.callback.progress")  # which gives the Learner its no_bar
    names = names_in(trainers.fastai(settings))
    size = names.get("MICRO_BATCH", names["BATCH_SIZE"])
    dls = names["DataLoaders"].from_dsets(dataset(), dataset(), bs=size, device="cpu", num_workers=0)
    learn = names["Learner"](dls, model, loss_func=names["loss_function"])
    with learn.no_bar(), learn.no_logging():
        names[fit](learn)


def run_huggingface(settings: Settings, model: nn.Module) -> None:
    names = names_in(trainers.huggingface(settings))
    rows = [{"x": x, "labels": y} for x, y in zip(*samples(), strict=True)]
    arguments = names["make_arguments"](rows, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True)
    names["make_trainer"](names["ReturnsLoss"](model), rows, arguments).train()


TOOLS: dict[str, Callable[[Settings, nn.Module], None]] = {
    "pytorch": run_pytorch,
    "lightning": run_lightning,
    "fastai": run_fastai,
    "huggingface": run_huggingface,
}


def need(*libraries: str) -> None:
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}: pip install -e .[exports]")


def ours(settings: Settings) -> Table:
    h = settings.hyperparameters
    return tabulate(settings.schedule, steps=settings.steps, lr=h.lr, momentum=h.momentum, momentum_min=h.momentum_min)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tool", TOOLS)
def test_rate_momentum_and_update_are_ours_at_every_step(tool: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*LIBRARIES[tool])
    monkeypatch.chdir(tmp_path)
    settings = replace(SETTINGS, **CASES[case])
    with traced() as trace:
        model = trace.watch(net())
        TOOLS[tool](settings, model)
    table = ours(settings)
    assert len(trace.lr) == settings.steps
    assert trace.samples[:-1] == [settings.hyperparameters.batch_size] * settings.steps
    factors = lr_factors(settings, len(trace.lr[0]))
    np.testing.assert_allclose(trace.lr, np.outer(table.lr, factors), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(trace.momentum, np.outer(table.momentum, np.ones(len(factors))), rtol=1e-9)
    expected = trained_by_the_search(settings)
    tolerance = 3e-2 if settings.numerics.precision == "bf16" else 2e-5
    for (name, a), b in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def lr_factors(settings: Settings, groups: int) -> list[float]:
    """The ratios of the optimizer's groups to the common LR, in the order in which the model's parameters first have them."""
    if not settings.optimizer.groups:
        return [1.0] * groups
    return [1.0, 1.0, 0.5, 0.5][:groups] if groups == 4 else [1.0, 0.5][:groups]


def trained_by_the_search(settings: Settings) -> nn.Module:
    """The same training by hptune's own updater."""
    model, table = net(), ours(settings)
    updater = Updater(model, settings.optimizer)
    x, y = (part[: settings.hyperparameters.batch_size] for part in samples())
    for lr, momentum in zip(table.lr, table.momentum, strict=True):
        updater.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.numerics.precision == "bf16"):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        updater.step(float(lr), float(momentum), settings.hyperparameters.weight_decay)
    return model


@pytest.mark.parametrize("warmup", [0.25, 0.3, 0.45, 0.6])
@pytest.mark.parametrize("optimizer", [Optimizer(), Optimizer(name="adamw"), GROUPS])
def test_fastais_own_fit_one_cycle_is_as_near_as_it_says(optimizer: Optimizer, warmup: float) -> None:
    need("fastai")
    settings = replace(SETTINGS, schedule=Schedule(shape="torch", warmup_fraction=warmup), epochs=20.0, optimizer=optimizer)
    stated = float(re.findall(r"an LR within ([\d.]+)% of the maximum", trainers.fastai(settings))[0]) / 100
    with traced() as trace:
        run_fastai(settings, net(), "fit_one_cycle")
    table = ours(settings)
    assert len(trace.lr) == settings.steps
    off = np.abs(np.array(trace.lr)[:, 0] - table.lr).max() / H.lr
    assert 0.2 * stated < off <= stated < 0.1
    assert np.abs(np.array(trace.momentum)[:, 0] - table.momentum).max() <= stated
    assert np.array(trace.lr)[-1] == pytest.approx(np.array(trace.lr)[-1, 0] * np.array(lr_factors(settings, len(trace.lr[0]))))


def timm_arguments(command: str) -> argparse.Namespace:
    """The command as timm's train.py reads it: its options for optimizer and schedule, with their types and defaults (1.0)."""
    parse_kwargs = pytest.importorskip("timm.utils").ParseKwargs
    parser = argparse.ArgumentParser()
    for name in ("--data-dir", "--model", "--amp-dtype"):
        parser.add_argument(name)
    for name in ("--amp", "--no-aug", "--sched-on-updates", "--warmup-prefix"):
        parser.add_argument(name, action="store_true")
    numbers: list[tuple[str, type, Any]] = [
        ("--num-classes", int, None), ("--batch-size", int, 128), ("--grad-accum-steps", int, 1), ("--seed", int, 42),
        ("--opt-eps", float, None), ("--momentum", float, 0.9), ("--weight-decay", float, 2e-5), ("--clip-grad", float, None),
        ("--lr", float, None), ("--lr-cycle-mul", float, 1.0), ("--lr-cycle-decay", float, 0.5), ("--lr-cycle-limit", int, 1),
        ("--lr-k-decay", float, 1.0), ("--warmup-lr", float, 1e-5), ("--min-lr", float, 0.0), ("--epochs", int, 300),
        ("--decay-epochs", float, 90.0), ("--warmup-epochs", int, 5), ("--cooldown-epochs", int, 0), ("--patience-epochs", int, 10),
        ("--decay-rate", float, 0.1), ("--smoothing", float, 0.1),
    ]  # fmt: skip
    for name, kind, default in numbers:
        parser.add_argument(name, type=kind, default=default)
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--sched", default="cosine")
    parser.add_argument("--opt-betas", type=float, nargs="+")
    parser.add_argument("--decay-milestones", type=int, nargs="+", default=[90, 180, 270])
    parser.add_argument("--opt-kwargs", nargs="*", default={}, action=parse_kwargs)
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    assert words[:2] == ["python", "train.py"]
    return parser.parse_args(words[2:])


def train_with_timm(settings: Settings, model: nn.Module) -> Trace:
    """The loop of timm's train.py, as far as it touches optimizer and schedule."""
    from timm.optim import create_optimizer_v2, optimizer_kwargs
    from timm.scheduler import create_scheduler_v2, scheduler_kwargs

    arguments = timm_arguments(timm(settings))
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=arguments), **arguments.opt_kwargs)
    batches = settings.train_samples // arguments.batch_size  # the loader drops the ragged last batch
    per_epoch = (batches + arguments.grad_accum_steps - 1) // arguments.grad_accum_steps
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(arguments), updates_per_epoch=per_epoch)
    x, y = (part[: settings.hyperparameters.batch_size] for part in samples())
    updates = 0
    with traced() as trace:
        for epoch in range(epochs):
            for _ in range(per_epoch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                if arguments.clip_grad is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), arguments.clip_grad)
                optimizer.step()
                updates += 1
                scheduler.step_update(num_updates=updates)
            scheduler.step(epoch + 1)
    return trace


TIMM_LONG = {"epochs": 20.0}  # the phases of the default schedule are whole epochs: 9, 9, 2
TIMM: dict[str, tuple[dict[str, Any], float]] = {
    "linear": (TIMM_LONG, 0.001),
    "linear, phases that are no whole epochs": ({"epochs": 10.0}, 0.11),
    "linear, short": ({"epochs": 3.0}, 0.35),
    "torch": ({**TIMM_LONG, "schedule": Schedule(shape="torch", warmup_fraction=0.3)}, 0.13),
    "three_phase": ({**TIMM_LONG, "schedule": Schedule(shape="three_phase", warmup_fraction=0.4)}, 0.14),
    "constant": ({**TIMM_LONG, "schedule": Schedule(kind="constant")}, 0.0),
    "step": ({**TIMM_LONG, "schedule": Schedule(kind="step", milestones=(0.75, 0.5), gamma=0.2)}, 0.0),
    "adamw": ({**TIMM_LONG, "optimizer": Optimizer(name="adamw", beta2=0.99), "hyperparameters": H.but(lr=0.01)}, 0.001),
    "no Nesterov": ({**TIMM_LONG, "optimizer": Optimizer(nesterov=False, gradient_clip=0.1)}, 0.001),
    "no momentum": ({**TIMM_LONG, "hyperparameters": H.but(momentum=0.0)}, 0.001),
    "micro-batch": ({**TIMM_LONG, "numerics": Numerics(micro_batch=8)}, 0.001),
    "part of an epoch": ({"epochs": 19.6}, 0.001),
}


@pytest.mark.parametrize("case", TIMM)
def test_timms_learning_rate_is_as_near_as_the_export_says(case: str) -> None:
    need("timm")
    changes, bound = TIMM[case]
    settings = replace(SETTINGS, **changes)
    text = timm(settings)
    stated = float(re.findall(r"within ([\d.]+) % of the maximum", re.sub(r"\n# ", " ", text))[0]) / 100
    trace = train_with_timm(settings, net())
    h = settings.hyperparameters
    per_epoch = 5 if case == "micro-batch" else 4  # 9 micro-batches are 5 updates there, 4 batches in the search
    assert len(trace.lr) == round(settings.epochs) * per_epoch
    table = tabulate(settings.schedule, steps=len(trace.lr), lr=h.lr, momentum=h.momentum, momentum_min=h.momentum_min)
    off = np.abs(np.array(trace.lr)[:, 0] - table.lr).max() / h.lr
    assert off <= stated + 1e-6
    assert stated - off < 0.0011
    assert stated <= bound
    held = h.momentum_min if settings.schedule.kind == "one_cycle" else h.momentum
    assert {m for step in trace.momentum for m in step} == {held}


@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_timm_updates_as_the_search_where_it_has_the_schedule(name: Any, decay_bias_and_norm: bool) -> None:
    need("timm")
    optimizer = Optimizer(name=name, gradient_clip=0.1, decay_bias_and_norm=decay_bias_and_norm)
    settings = replace(SETTINGS, schedule=Schedule(kind="constant"), optimizer=optimizer, hyperparameters=H.but(lr=0.01, weight_decay=0.1))
    model = net()
    train_with_timm(settings, model)
    for a, b in zip(model.parameters(), trained_by_the_search(settings).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fabricate(tmp_path_factory.mktemp("exports") / "run", surface=Surface(diverges_above=0.3))
    sweep_key(folder, "model.args.width", [4, 8])
    return folder


@pytest.mark.parametrize("to", [*TOOLS, "optuna"])
def test_a_saved_export_runs_as_it_is(folder: Path, to: str, tmp_path: Path) -> None:
    need(*LIBRARIES.get(to, ()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(report.__file__).parents[2]), *sys.path])}
    text = subprocess.run(
        [sys.executable, "-m", "hptune", "export", str(folder), "--to", to], capture_output=True, text=True, check=True, env=environment
    ).stdout
    (tmp_path / "mine.py").write_text(text)
    done = subprocess.run([sys.executable, "mine.py"], capture_output=True, text=True, cwd=tmp_path, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    words = {
        "pytorch": "step 80/80",
        "lightning": "`Trainer.fit` stopped: `max_steps=80` reached.",
        "fastai": r"\[9, [\d.]+, [\d.]+, ",  # the last epoch, with both losses
        "huggingface": "'epoch': '?10",
        "optuna": "The next trial is the recommendation",
    }
    assert re.search(words[to], done.stdout + done.stderr), (done.stdout, done.stderr)


def test_optuna_goes_on_from_the_trials_with_the_recommendation_first(folder: Path, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = names_in(export(report.load(folder), "optuna"))
    study = names["make_study"](storage=f"sqlite:///{tmp_path / 'study.db'}", sampler=optuna.samplers.TPESampler(seed=0))
    known = len(study.trials)
    space = {name: names["DISTRIBUTIONS"][name] for name in names["NAMES"]}

    def objective(trial: optuna.Trial) -> float:
        tried = {name: trial._suggest(name, distribution) for name, distribution in space.items()}
        return float(tried["lr"])

    study.optimize(objective, n_trials=3)
    assert len(study.trials) == known + 2  # the queued one was already there
    queued = study.trials[known - 1]
    assert queued.params == names["RECOMMENDED"]
