"""Full trainings: stopped anywhere, continued to the same bits."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from training_problems import USER_CODE, opened, own, reproducible, spec_of

from hptune.engine.full import train_full
from hptune.engine.problem import open_problem
from hptune.engine.trainer import run_trial
from hptune.errors import RunDirectoryError

torch.set_num_threads(1)


class Stopped(BaseException):
    """Stands for a kill: nothing below catches it."""


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "my code" / "own.py"
    file.parent.mkdir()
    file.write_text(USER_CODE)
    return str(file)


def train(problem, spec, folder, *, stop_after=None, every=None):
    seen = []

    def progress(state):
        seen.append(state)
        if stop_after is not None and state.done > stop_after:
            raise Stopped

    checkpoints = folder / "checkpoints"
    try:
        outcome = train_full(problem, spec, checkpoints=checkpoints, weights=checkpoints / "weights.pt", every=every, progress=progress)
    except Stopped:
        outcome = None
    return outcome, seen


def weights(folder):
    return torch.load(folder / "checkpoints" / "weights.pt", weights_only=True)


PROBLEMS = {
    "dropout and batch norm": {"args": {"dropout": 0.5, "norm": True}, "data": "items"},
    "adamw": {"args": {"dropout": 0.2}, "optimizer": {"name": "adamw"}},
    "buffer of its own": {"model": "Counts"},
}


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("stop_after", [7, 23], ids=str)
def test_a_continued_training_gives_the_same_bits(code, tmp_path, kind, stop_after):
    problem = open_problem(own(code, **PROBLEMS[kind]))
    spec = spec_of(problem, steps=30, lr=0.01, evaluate_at=(10, 20, 30), test=True)
    whole, _ = train(problem, spec, tmp_path / "whole")
    train(problem, spec, tmp_path / "stopped", stop_after=stop_after, every=3)
    assert not (tmp_path / "stopped" / "checkpoints" / "weights.pt").exists()
    torch.manual_seed(12345)  # the state of the process that continues is another one
    continued, seen = train(problem, spec, tmp_path / "stopped", every=3)
    assert seen[0].done > 0
    assert seen[0].notes == (f"continuing after step {seen[0].done} of 30",)
    assert reproducible(continued) == reproducible(whole)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_augmentation_continues_too(tmp_path):
    problem = opened(data={"name": "digits", "limit": 400, "augment": ["crop:1", "flip"]})
    spec = spec_of(problem, steps=20)
    whole, _ = train(problem, spec, tmp_path / "whole")
    train(problem, spec, tmp_path / "stopped", stop_after=11, every=4)
    continued, _ = train(problem, spec, tmp_path / "stopped", every=4)
    assert reproducible(continued) == reproducible(whole)


def test_it_equals_a_trial_of_the_same_spec(tmp_path):
    problem = opened()
    spec = spec_of(problem)
    outcome, _ = train(problem, spec, tmp_path, every=7)
    assert reproducible(outcome) == reproducible(run_trial(problem, spec))


def test_weights_belong_to_the_recorded_loss(tmp_path):
    problem = opened()
    outcome, _ = train(problem, spec_of(problem), tmp_path)
    model = problem.make_model()
    model.load_state_dict(weights(tmp_path))
    x, y = problem.parts.val.take(torch.arange(len(problem.parts.val)))
    assert torch.nn.functional.cross_entropy(model(x), y).item() == pytest.approx(outcome.record.val_loss, abs=1e-6)


def test_another_spec_starts_from_the_beginning(tmp_path):
    problem = opened()
    train(problem, spec_of(problem), tmp_path)
    _, seen = train(problem, spec_of(problem, lr=0.05), tmp_path)
    assert seen[0].done == 0
    assert seen[0].notes == ()


def test_a_finished_training_is_not_trained_again(tmp_path):
    problem = opened()
    first, _ = train(problem, spec_of(problem), tmp_path)
    again, seen = train(problem, spec_of(problem), tmp_path)
    assert [state.done for state in seen] == [40]
    assert reproducible(again) == reproducible(first)


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path):
    problem = opened()
    spec = spec_of(problem)
    whole, _ = train(problem, spec, tmp_path / "whole")
    train(problem, spec, tmp_path, stop_after=31, every=10)
    newest = max((tmp_path / "checkpoints").glob("*-*.pt"))
    newest.write_bytes(newest.read_bytes()[:500])
    continued, seen = train(problem, spec, tmp_path, every=10)
    assert seen[0].done == 20
    assert f"{newest} is damaged" in seen[0].notes[0]
    assert reproducible(continued) == reproducible(whole)


def test_progress_tells_where_a_training_is(tmp_path):
    problem = opened()
    _, seen = train(problem, spec_of(problem), tmp_path)
    assert [state.done for state in seen] == sorted(state.done for state in seen)
    assert seen[0].val_loss is None
    last = seen[-1]
    assert (last.done, last.steps) == (40, 40)
    assert last.epoch == pytest.approx(40 / (1079 // 32))
    assert last.val_loss is not None
    assert last.train_loss < seen[1].train_loss


def test_a_diverged_training_saves_no_weights(tmp_path):
    problem = opened()
    outcome, _ = train(problem, spec_of(problem, lr=1e20), tmp_path)
    assert outcome.record.status == "diverged"
    assert not (tmp_path / "checkpoints" / "weights.pt").exists()


class Blind(nn.Module):
    """A parameter that the output does not depend on, and whose gradient is infinite."""

    def __init__(self):
        super().__init__()
        self.layer, self.unseen = nn.Linear(6, 2), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.layer(x) + _Endless.apply(self.unseen)


class _Endless(torch.autograd.Function):
    @staticmethod
    def forward(_, parameter):
        return torch.zeros_like(parameter)

    @staticmethod
    def backward(_, gradient):
        return torch.full_like(gradient, torch.inf)


def test_weights_that_are_no_numbers_beside_a_finite_loss_are_pointed_out(tmp_path):
    code = tmp_path / "own.py"
    code.write_text(USER_CODE)
    problem = open_problem(own(str(code)))
    outcome, seen = train(replace(problem, make_model=Blind), spec_of(problem), tmp_path)
    assert outcome.record.status == "completed"
    notes = [note for progress in seen for note in progress.notes]
    assert notes == ["the weights hold NaN or infinite values, though the loss is finite: unseen"]


def test_a_disk_that_takes_no_checkpoint_is_not_a_failed_training(tmp_path):
    problem = opened()
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(RunDirectoryError):
        train(problem, spec_of(problem), tmp_path)


def train_until(problem, spec, folder, stop):
    checkpoints = folder / "checkpoints"
    return train_full(problem, spec, checkpoints=checkpoints, weights=checkpoints / "weights.pt", stop=stop)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_an_interrupt_between_any_two_steps_costs_no_step(code, tmp_path, kind):
    problem = open_problem(own(code, **PROBLEMS[kind]))
    spec = spec_of(problem, steps=12, lr=0.01, evaluate_at=(6, 12))
    whole, _ = train(problem, spec, tmp_path / "whole")
    outcome, steps = None, [0]
    while outcome is None:  # each goes on from the one before, and is stopped after a step or two
        looks = iter([False, False, *[True] * 10_000])
        try:
            outcome = train_until(problem, spec, tmp_path / "stopped", lambda looks=looks: next(looks))
        except KeyboardInterrupt:
            newest = max((tmp_path / "stopped" / "checkpoints").glob("*.pt"))
            steps.append(int(newest.stem.rpartition("-")[2]))
    assert all(0 < b - a <= 2 for a, b in itertools.pairwise(steps))
    assert steps[-1] >= 10
    assert reproducible(outcome) == reproducible(whole)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_breaks_because_of_an_interrupt_is_an_interrupt(tmp_path):
    problem = opened(data={"name": "digits", "limit": 400})
    asked = []

    def fail(*_, **__):
        asked.append(True)
        raise RuntimeError("a process that reads the data ended")

    problem.parts.train.feed = fail
    with pytest.raises(KeyboardInterrupt):
        train_until(problem, spec_of(problem, steps=20), tmp_path, lambda: bool(asked))
