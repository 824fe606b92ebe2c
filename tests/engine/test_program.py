"""Programs of the device: the same step as the eager one, replayed for trial after trial. Recording itself is CUDA's; here it is played."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from training_problems import USER_CODE, experiment, opened, own, reproducible, spec_of

from hptune.engine import program as program_module
from hptune.engine.problem import open_problem
from hptune.engine.program import CannotCaptureError, Program
from hptune.engine.trainer import run_trial
from hptune.schedules import Point, Schedule

torch.set_num_threads(1)

AUGMENTED = {"data": {"name": "digits", "augment": ["flip", "crop:1", "cutout:2"]}, "model": {"name": "small_cnn", "args": {"width": 4}}}


def played(body, generator):
    """A recorder for devices without graphs: what it replays is the body itself."""
    for _ in range(program_module.WARM_UP_STEPS):
        body()
    return body


@pytest.fixture
def programs(monkeypatch):
    """All trainings run as programs; the list of those made."""
    made = []

    def make(problem, batch_size, numerics, record):
        made.append((batch_size, numerics))
        return Program(problem, batch_size, numerics, played)

    monkeypatch.setattr(program_module, "Program", make)
    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: True)
    return made


def alike(a, b):
    """Records of two ways to take the same steps: the same to float rounding of the rates."""
    assert (a.status, a.error) == (b.status, b.error) == ("completed", None)
    assert a.steps == b.steps
    assert a.val_loss == pytest.approx(b.val_loss, rel=1e-4)
    assert a.curve.train_loss == pytest.approx(b.curve.train_loss, rel=1e-4)
    assert a.metric == pytest.approx(b.metric, abs=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "schedule", [Schedule(), Schedule(kind="points", points=(Point(0.0, weight_decay=300.0), Point(1.0, momentum=0.0)))]
)
@pytest.mark.parametrize("micro_batch", [None, 12])
def test_a_program_takes_the_steps_of_the_plain_loop(monkeypatch, programs, optimizer, schedule, micro_batch):
    blocks = {**AUGMENTED, "optimizer": {"name": optimizer}}
    problem = opened(**blocks, executor={"micro_batch": micro_batch or "auto"})
    spec = spec_of(problem, lr=0.01, schedule=schedule, steps=70, evaluate_at=(10, 45, 70))  # epochs of 36 steps end between
    replayed = run_trial(problem, spec).record
    assert programs == [(32, spec.numerics)]
    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: False)
    alike(replayed, run_trial(problem, spec).record)


def test_chunks_do_not_show(monkeypatch, programs):
    problem = opened(**AUGMENTED)
    spec = spec_of(problem, steps=30)
    whole = reproducible(run_trial(problem, spec))
    monkeypatch.setattr(program_module, "CHUNK", 7)
    problem.kept.drop()
    assert reproducible(run_trial(problem, spec)) == whole


def test_trials_of_a_shape_share_a_program_and_leave_nothing_in_it(programs):
    problem = open_problem(experiment(**AUGMENTED))
    a, b = spec_of(problem, steps=12), spec_of(problem, steps=9, lr=0.3, weight_decay=0.0, seed=8)
    first = reproducible(run_trial(problem, a))
    assert reproducible(run_trial(problem, b)) != first
    assert reproducible(run_trial(problem, a)) == first
    run_trial(problem, spec_of(problem, batch_size=64, steps=4))
    assert [size for size, _ in programs] == [32, 64]


def test_only_so_many_programs_hold_memory(monkeypatch, programs):
    monkeypatch.setattr(program_module, "KEPT", 2)
    problem = opened()
    for size in (16, 32, 48):
        run_trial(problem, spec_of(problem, batch_size=size, steps=2))
    assert sorted(size for size, _ in problem.kept.programs) == [32, 48]


def test_dropout_draws_the_trials_own_numbers(monkeypatch, programs, tmp_path):
    (tmp_path / "own.py").write_text(USER_CODE)
    problem = open_problem(own(str(tmp_path / "own.py"), args={"dropout": 0.5, "norm": True}))
    spec = spec_of(problem, steps=20, batch_size=40)
    replayed = run_trial(problem, spec).record
    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: False)
    alike(replayed, run_trial(problem, spec).record)


# ---- what cannot be captured is refused, and trains step by step


class Restless(nn.Module):
    """Something outside parameters and buffers decides what it does."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        out = self.layer(x.flatten(1))
        if self.training and self.how == "counts":
            self.calls += 1
        if self.training and self.how == "draws":
            out = out * program_module.random.random()
        return out


@pytest.mark.parametrize(("how", "reason"), [("counts", "keep values in Python"), ("draws", "random numbers from Python")])
def test_python_in_the_step_is_refused(how, reason):
    problem = opened()
    problem = replace(problem, make_model=lambda: Restless(how))
    with pytest.raises(CannotCaptureError, match=reason):
        Program(problem, 32, problem.task.numerics, played)


def test_replays_that_differ_are_refused():
    def forgetful(body, generator):
        return lambda: None

    problem = opened()
    with pytest.raises(CannotCaptureError, match="other losses"):
        Program(problem, 32, problem.task.numerics, forgetful)


def test_a_failed_capture_is_refused_with_its_reason_and_the_trial_runs(monkeypatch):
    def failing(body, generator):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: True)
    monkeypatch.setattr(program_module, "cuda_graph", failing)
    problem = opened()
    spec = spec_of(problem, steps=8)
    replayed = reproducible(run_trial(problem, spec))
    assert "operation not permitted" in problem.kept.refusal
    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: False)
    assert reproducible(run_trial(problem, spec)) == replayed


def test_where_a_program_does_not_fit_into_memory_the_plain_step_is_taken(monkeypatch):
    def too_large(body, generator):
        raise torch.OutOfMemoryError("CUDA out of memory")

    problem = opened()
    spec = spec_of(problem, steps=8)
    plain = reproducible(run_trial(problem, spec))
    monkeypatch.setattr(program_module, "capturable", lambda problem, numerics: True)
    monkeypatch.setattr(program_module, "cuda_graph", too_large)
    assert reproducible(run_trial(problem, spec)) == plain
    assert problem.kept.refusal is None, "another shape may fit"
