"""Trials from spec to record: right numbers, complete reset, every way to end."""

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import USER_CODE, opened, own, reproducible, spec_of

from hptune.engine import step as step_module
from hptune.engine.measure import chosen_samples
from hptune.engine.memory import is_lost
from hptune.engine.problem import open_problem
from hptune.engine.randomness import generator
from hptune.engine.series import CURVE_ROWS, Evaluation, Series
from hptune.engine.trainer import calibrate, run_trial
from hptune.engine.training import Training, conditions
from hptune.errors import DeviceLostError
from hptune.schedules import Point, Schedule, tabulate
from hptune.trial import CalibrationRequest, CurveSummary, StopRule

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return opened()


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "my code" / "own.py"
    file.parent.mkdir()
    file.write_text(USER_CODE)
    return str(file)


def weights_after(problem, spec):
    with conditions(problem, spec):
        training = Training(problem, spec)
        training.advance(spec.steps)
        return {name: value.clone() for name, value in training.model.state_dict().items()}


# ---- the numbers are those of plain PyTorch


JUMPS = (Point(0.0, weight_decay=30.0), Point(0.5, lr=0.3, momentum=0.0, weight_decay=30.0), Point(0.5, lr=0.3), Point(1.0, lr=0.3))


@pytest.mark.parametrize("schedule", [Schedule(), Schedule(kind="points", points=JUMPS)])
def test_a_training_equals_a_plain_pytorch_loop(digits, schedule):
    spec = spec_of(digits, schedule=schedule, steps=60, evaluate_at=(60,))
    own_values = spec.hyperparameters
    table = tabulate(spec.schedule, steps=60, lr=own_values.lr, momentum=own_values.momentum, momentum_min=own_values.momentum_min)
    torch.manual_seed(spec.seed)
    model = digits.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True)
    losses = []
    for epoch in range(3):
        order = torch.randperm(len(digits.parts.train), generator=generator(spec.seed, "order", epoch))
        for indices in order.split(own_values.batch_size)[: len(order) // own_values.batch_size]:
            if len(losses) == 60:
                break
            decay = own_values.weight_decay * table.weight_decay[len(losses)]
            optimizer.param_groups[0].update(lr=table.lr[len(losses)], momentum=table.momentum[len(losses)], weight_decay=decay)
            x, y = digits.parts.train.take(indices)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    x, y = digits.parts.val.take(torch.arange(len(digits.parts.val)))
    outcome = run_trial(digits, spec)
    assert outcome.curve.columns["train_loss"] == pytest.approx(losses, abs=1e-5)
    assert outcome.record.val_loss == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), abs=1e-5)
    assert outcome.record.metric == pytest.approx((model(x).argmax(1) == y).float().mean().item())


def test_adamw_trains(digits):
    problem = opened(optimizer={"name": "adamw"})
    record = run_trial(problem, spec_of(problem, lr=0.01, weight_decay=0.01, steps=60)).record
    assert record.status == "completed"
    assert record.val_loss < 1.0


def test_micro_batches_equal_the_whole_batch(digits):
    whole = spec_of(digits, batch_size=50, steps=20)
    pieces = replace(whole, numerics=replace(whole.numerics, micro_batch=16))  # 16 + 16 + 16 + 2
    a, b = weights_after(digits, whole), weights_after(digits, pieces)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    losses = [run_trial(digits, spec).curve.columns["train_loss"] for spec in (whole, pieces)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_bf16_autocast_reaches_the_model(digits):
    spec = spec_of(digits, steps=20)
    exact, rounded = (
        run_trial(digits, replace(spec, numerics=replace(spec.numerics, precision=precision))).record for precision in ("fp32", "bf16")
    )
    assert exact.val_loss != rounded.val_loss
    assert rounded.val_loss == pytest.approx(exact.val_loss, rel=0.05)


def test_a_skipped_fp16_step_does_not_advance_the_schedule(digits, monkeypatch):
    monkeypatch.setattr(step_module, "FIRST_SCALE", 2.0**40)  # float16 gradients overflow until it has been halved often enough
    spec = spec_of(digits, steps=20)
    record = run_trial(digits, replace(spec, numerics=replace(spec.numerics, precision="fp16"))).record
    assert record.status == "completed"
    assert record.steps == 20
    assert record.samples > 20 * 32
    assert record.curve.lr[-1] == pytest.approx(0.1 / 10 / 1000)


def test_frozen_parameters_and_statistics_stay(code):
    problem = open_problem(own(code, args={"norm": True}, with_model={"freeze": ["body.*"]}))
    spec = spec_of(problem, steps=10)
    with conditions(problem, spec):
        fresh = Training(problem, spec).model.state_dict()
    trained = weights_after(problem, spec)
    moved = {name for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert moved == {"head.weight", "head.bias"}


def test_group_factors_reach_the_update(code):
    problem = open_problem(own(code, optimizer={"groups": [{"match": "body.*", "lr_factor": 0.0}]}))
    spec = spec_of(problem, steps=10)
    with conditions(problem, spec):
        fresh = Training(problem, spec).model.state_dict()
    trained = weights_after(problem, spec)
    assert {name for name in fresh if not torch.equal(fresh[name], trained[name])} == {"head.weight", "head.bias"}


def test_augmentation_is_part_of_training_only():
    plain, augmented = opened(), opened(data={"name": "digits", "augment": ["crop:1"]})
    assert plain.task.task_id != augmented.task.task_id
    spec = spec_of(plain, steps=10)
    a, b = run_trial(plain, spec).record, run_trial(augmented, spec).record
    assert a.train_loss != b.train_loss


# ---- the same spec gives the same bits


@pytest.mark.parametrize("data", ["arrays", "noisy"])
def test_a_b_a_gives_a_twice(code, data):
    problem = open_problem(own(code, data=data, args={"dropout": 0.5, "norm": True}))
    a, b = spec_of(problem, steps=30), spec_of(problem, steps=20, seed=9, lr=1.0, batch_size=16)
    outcomes = []
    for number, spec in enumerate((a, b, a)):  # from another global state each time
        torch.manual_seed(number), np.random.seed(number), random.seed(number)
        outcomes.append(reproducible(run_trial(problem, spec)))
    assert outcomes[0] == outcomes[2] != outcomes[1]


def test_a_problem_opened_again_gives_the_same_bits():
    blocks = {"model": {"name": "small_cnn", "args": {"width": 4}}, "data": {"name": "digits", "limit": 400, "augment": ["crop:1"]}}
    one, two = opened(**blocks), opened(**blocks)
    assert one.task == two.task
    assert reproducible(run_trial(one, spec_of(one))) == reproducible(run_trial(two, spec_of(two)))


def test_global_state_is_as_before(digits):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    threads = torch.get_num_threads()
    spec = spec_of(digits, steps=5)
    run_trial(digits, replace(spec, numerics=replace(spec.numerics, threads=threads + 1)))
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.full((), 2.0**-127) * 1.0).item() > 0  # denormals count again


def test_seeds_share_initialization_and_order_between_candidates(digits):
    orders = {}
    for size in (32, 64):
        spec = spec_of(digits, batch_size=size, steps=2, lr=1e-9)
        with conditions(digits, spec):
            training = Training(digits, spec)
            orders[size] = torch.cat([_next_input(training) for _ in range(64 // size)])
            orders[f"weights {size}"] = next(iter(training.model.parameters())).clone()
    assert torch.equal(orders[32], orders[64])
    assert torch.equal(orders["weights 32"], orders["weights 64"])


def _next_input(training):
    ((batch, piece),) = training._next_batch()
    training.taken += 1
    assert piece.weight == 1
    return batch[0]


def test_evaluating_more_often_changes_no_weight(code):
    problem = open_problem(own(code, data="noisy", args={"dropout": 0.5}))
    rare = run_trial(problem, spec_of(problem, steps=20, evaluate_at=(20,))).record
    often = run_trial(problem, spec_of(problem, steps=20, evaluate_at=(5, 10, 15, 20))).record
    assert rare.val_loss == often.val_loss


def test_evaluation_is_in_eval_mode(code):
    problem = open_problem(own(code, args={"dropout": 0.9, "norm": True}))
    spec = spec_of(problem, steps=10)
    x, y = problem.parts.val.take(torch.arange(len(problem.parts.val)))
    model = problem.make_model()
    model.load_state_dict(weights_after(problem, spec))
    expected = nn.functional.cross_entropy(model.eval()(x), y).item()
    assert run_trial(problem, spec).record.val_loss == pytest.approx(expected, abs=1e-6)


def test_the_validation_subset_is_fixed_and_spread(digits):
    torch.manual_seed(1)
    chosen = chosen_samples(359, 50)
    torch.manual_seed(2)
    assert torch.equal(chosen, chosen_samples(359, 50))
    assert set(chosen.diff().tolist()) == {7, 8}
    assert torch.equal(chosen_samples(40, 50), torch.arange(40))
    spec = spec_of(digits, steps=4)
    assert run_trial(digits, replace(spec, validation_limit=50)).record.val_loss != run_trial(digits, spec).record.val_loss


# ---- what a record holds


def test_summary_and_final_values_agree(digits):
    record = run_trial(digits, spec_of(digits, steps=40, evaluate_at=(10, 25, 40))).record
    curve = record.curve
    assert curve.step == (10, 25, 40)
    assert record.val_loss == curve.val_loss[-1]
    assert record.metric == curve.metric[-1]
    assert record.best_val_loss == min(curve.val_loss)
    assert record.best_metric == max(curve.metric)
    assert record.train_loss == curve.train_loss[-1]
    assert (record.steps, record.samples) == (40, 40 * 32)
    assert math.isnan(record.test_loss)


def test_the_test_part_in_blocks(digits):
    record = run_trial(digits, spec_of(digits, steps=30, test=True)).record
    assert len(record.test_block_losses) == 32
    sizes = [len(block) for block in torch.arange(len(digits.parts.test)).tensor_split(32)]
    weighted = sum(loss * size for loss, size in zip(record.test_block_losses, sizes, strict=True)) / sum(sizes)
    assert record.test_loss == pytest.approx(weighted)
    assert 0 < record.test_metric <= 1


def test_a_small_test_part_has_fewer_blocks(code):
    problem = open_problem(own(code, data="arrays"))
    small = replace(problem.parts, test=_First(problem.parts.test, 5))
    record = run_trial(replace(problem, parts=small), spec_of(problem, steps=4, test=True)).record
    assert len(record.test_block_losses) == 5


class _First:
    def __init__(self, part, count):
        self.part, self.count = part, count

    def __len__(self):
        return self.count

    def feed(self, batches, seed, start=0):
        return self.part.feed(batches, seed, start)


def test_steps_may_end_in_mid_epoch(digits):
    outcome = run_trial(digits, spec_of(digits, steps=7, evaluate_at=(7,)))
    assert outcome.record.steps == 7
    assert outcome.curve.columns["step"] == [1, 2, 3, 4, 5, 6, 7]


def test_long_curves_are_bounded_and_keep_every_evaluation():
    steps = 10_001
    series = Series(steps, torch.device("cpu"))
    series.on_device.copy_(torch.arange(steps))
    series.evaluations = [Evaluation(step, 1.0, 0.5) for step in (3, 5000, steps)]
    columns = series.curve(tabulate(Schedule(), steps=steps, lr=1, momentum=0.9, momentum_min=0.8), steps).columns
    rows = columns["step"]
    assert len(rows) <= CURVE_ROWS
    assert [row for row, loss in zip(rows, columns["val_loss"], strict=True) if loss is not None] == [3, 5000, steps]
    widths = [end - start for start, end in zip([0, *rows], rows, strict=False)]
    assert sum(w * loss for w, loss in zip(widths, columns["train_loss"], strict=True)) == pytest.approx(sum(range(steps)))


def test_a_metric_that_returns_nan_is_recorded_as_nan(code):
    problem = open_problem(own(code, metric={"target": f"{code}:no_number"}))
    record = run_trial(problem, spec_of(problem, steps=4)).record
    assert record.status == "completed"
    assert math.isnan(record.metric)
    assert math.isnan(record.best_metric)


def test_a_metric_to_be_minimized_keeps_its_minimum():
    problem = opened(metric={"name": "accuracy", "mode": "min"})
    record = run_trial(problem, spec_of(problem)).record
    assert record.best_metric == min(record.curve.metric)


# ---- every way to end


def test_divergence_is_a_result(digits):
    problem = opened(loss="mse", data={"name": "digits", "split": "random"}, metric="none")
    record = run_trial(problem, spec_of(problem, lr=1e4, steps=40, schedule=Schedule(kind="constant"))).record
    assert record.status == "diverged"
    assert record.error == "the training loss was inf at step 4"
    assert 0 < record.steps < 40
    assert record.samples == record.steps * 32


def test_a_ramp_stops_early_and_keeps_its_curve(digits):
    spec = spec_of(
        digits, steps=60, lr=1e3, evaluate_at=tuple(range(3, 61, 3)), schedule=Schedule(kind="ramp", shape="exponential", min_lr=1e-3),
        stop=StopRule(window=3, relative_to_best=True),
    )  # fmt: skip
    outcome = run_trial(digits, spec)
    assert outcome.record.status == "diverged"
    assert 10 < outcome.record.steps < 60
    assert outcome.record.curve.step[-1] == outcome.record.steps
    assert outcome.curve.columns["step"][-1] == outcome.record.steps


@pytest.mark.parametrize(
    ("losses", "rule", "stops"),
    [
        ([2.0] * 4 + [9.0] * 4, StopRule(window=4), True),
        ([2.0] * 4 + [7.0] * 4, StopRule(window=4), False),
        ([2.0] * 4 + [0.1] * 4 + [1.0] * 4, StopRule(window=4), False),
        ([2.0] * 4 + [0.1] * 4 + [1.0] * 4, StopRule(window=4, relative_to_best=True), True),
        ([2.0, 1e9, 1e9, 1e9], StopRule(window=4), True),  # explodes within the first window
        ([2.0, math.nan, 2.0], StopRule(window=4), True),
        ([2.0] * 3, StopRule(window=4), False),
        ([-1.0] * 4 + [-0.5] * 4, StopRule(window=4), False),
        ([-1.0] * 4 + [2.5] * 4, StopRule(window=4), True),
    ],
)  # fmt: skip
def test_the_stop_rule(losses, rule, stops):
    series = Series(len(losses), torch.device("cpu"))
    series.on_device.copy_(torch.tensor(losses))
    assert series.diverged(len(losses), rule, batch_size=256) is stops


@pytest.mark.parametrize(
    ("losses", "rule", "says"),
    [
        ([2.0, math.nan, math.inf], StopRule(), "the training loss was nan at step 2"),
        ([2.0, 1.0, -math.inf], StopRule(), "the training loss was -inf at step 3"),
        ([2.0] * 4 + [9.0] * 4, StopRule(window=4), "the training loss rose to 9, from 2 at the first steps"),
        ([0.1] * 4 + [1.0] * 4, StopRule(window=4, relative_to_best=True), "the training loss rose to 1, from 0.1 at its lowest"),
        ([2.0] * 4, StopRule(), None),
    ],
)  # fmt: skip
def test_why_a_training_ended_is_said_in_a_sentence(losses, rule, says):
    series = Series(len(losses), torch.device("cpu"))
    series.on_device.copy_(torch.tensor(losses))
    assert series.divergence(len(losses), rule, batch_size=256) == says


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_in_validation_alone_is_divergence(digits, value):
    def loss(output, target):
        found = nn.functional.cross_entropy(output, target)
        return found if torch.is_grad_enabled() else found * 0 + value

    record = run_trial(replace(digits, loss=loss), spec_of(digits)).record
    assert record.status == "diverged"
    assert record.error == f"the validation loss was {value} after 20 steps, while the training loss was finite"
    assert not record.usable
    assert math.isnan(record.best_val_loss)


def test_infinite_losses_of_both_signs_have_no_mean_and_raise_nothing(digits):
    calls = iter(range(10**6))

    def loss(output, target):
        found = nn.functional.cross_entropy(output, target)
        return found if torch.is_grad_enabled() else found + (-1) ** next(calls) * math.inf

    record = run_trial(replace(digits, loss=loss), spec_of(digits, evaluate_at=(40,))).record
    assert record.status == "diverged"
    assert math.isnan(record.val_loss)
    assert {math.inf, -math.inf} <= set(record.val_block_losses)
    series = Series(4, torch.device("cpu"))
    series.on_device.copy_(torch.tensor([1.0, math.inf, -math.inf, 1.0]))
    assert math.isnan(series.train_loss(4))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_recorded_and_never_the_best(digits, value):
    evaluations = iter(range(10**6))
    odd = replace(digits.metric, function=lambda *_: torch.tensor(value if next(evaluations) < 2 else 0.5, dtype=torch.float64))
    record = run_trial(replace(digits, metric=odd), spec_of(digits, evaluate_at=(10, 40))).record
    assert record.status == "completed"
    assert record.usable
    assert not math.isfinite(record.curve.metric[0])
    assert record.best_metric == record.metric == 0.5


def test_fp16_gradients_that_overflow_at_any_scale_are_divergence(digits):
    def loss(output, target):  # finite, its gradient not
        return nn.functional.cross_entropy(output, target) + (output * 0).abs().sqrt().sum()

    spec = spec_of(digits, steps=20)
    spec = replace(spec, numerics=replace(spec.numerics, precision="fp16"))
    record = run_trial(replace(digits, loss=loss), spec).record
    assert record.status == "diverged"
    assert record.error == "the training loss was nan at step 1"
    assert record.samples > 20 * 32, "updates were skipped while the scale was halved"


def test_nan_in_the_data_of_mid_training_is_divergence(code):
    problem = open_problem(own(code, data="items"))
    poisoned = replace(problem.parts, train=_Poisoned(problem.parts.train))
    record = run_trial(replace(problem, parts=poisoned), spec_of(problem, steps=40)).record
    assert record.status == "diverged"
    assert math.isnan(record.train_loss)


class _Poisoned:
    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part)

    def feed(self, batches, seed, start=0):
        for number, (x, y) in enumerate(self.part.feed(batches, seed, start)):
            yield (x * math.nan if number >= 12 else x), y


def test_an_exception_of_the_users_is_a_failed_record_with_its_line(code):
    problem = open_problem(own(code, model="Tires", args={"calls": 15}))
    outcome = run_trial(problem, spec_of(problem, steps=40))
    line = 1 + next(i for i, text in enumerate(USER_CODE.splitlines()) if "# here" in text)
    assert outcome.record.status == "failed"
    assert outcome.record.error == f"{code}:{line}: ValueError: tired of this"
    assert outcome.record.steps == 15
    assert len(outcome.curve.columns["step"]) == 15
    assert torch.is_grad_enabled()


def test_lack_of_memory_is_its_own_status(code):
    problem = open_problem(own(code, model="Tires", args={"calls": 15, "error": "memory"}))
    record = run_trial(problem, spec_of(problem, steps=40)).record
    assert record.status == "out_of_memory"
    request = CalibrationRequest(hyperparameters=spec_of(problem).hyperparameters, numerics=problem.task.numerics)
    calibration = calibrate(problem, request)
    assert calibration.seconds_per_step == calibration.seconds_per_evaluated_sample == math.inf


def test_interruption_passes(digits, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trial(digits, spec_of(digits))


def test_a_batch_larger_than_the_part_fails_in_words(digits):
    record = run_trial(digits, spec_of(digits, batch_size=5000)).record
    assert record.status == "failed"
    assert record.error == f"batch size 5000 is more than the {len(digits.parts.train)} training samples"
    assert record.curve == CurveSummary()


def test_batch_norm_with_batches_of_one_fails_in_words(code):
    problem = open_problem(own(code, args={"norm": True}))
    record = run_trial(problem, spec_of(problem, batch_size=1)).record
    assert record.status == "failed"
    assert "Expected more than 1 value per channel" in record.error


def test_a_calibration_measures_and_leaves_nothing(digits):
    before = reproducible(run_trial(digits, spec_of(digits)))
    request = CalibrationRequest(hyperparameters=spec_of(digits).hyperparameters, numerics=digits.task.numerics, steps=5)
    calibration = calibrate(digits, request)
    assert calibration.batch_size == 32
    assert 0 < calibration.seconds_per_step < 60
    assert 0 < calibration.seconds_per_evaluated_sample < 60
    assert reproducible(run_trial(digits, spec_of(digits))) == before


def test_experiments_of_other_seeds_are_other_tasks():
    assert opened(seed=1).task.task_id != opened(seed=2).task.task_id  # another split is another data set


def test_a_step_that_draws_in_evaluations_too_is_not_disturbed_by_more_of_them(code):
    Path(code).write_text(
        USER_CODE + "\n\ndef drawing(model, batch):\n    x, y = batch\n    output = model(x + 0.5 * torch.randn_like(x))\n"
        "    return nn.functional.cross_entropy(output, y), output\n"
    )
    problem = open_problem(own(code, step={"target": f"{code}:drawing"}))
    rare = run_trial(problem, spec_of(problem, steps=20, evaluate_at=(20,))).record
    often = run_trial(problem, spec_of(problem, steps=20, evaluate_at=(5, 10, 15, 20))).record
    assert rare.val_loss == often.val_loss


def test_a_lost_device_is_no_failed_trial(monkeypatch):
    problem = opened(data={"name": "digits", "limit": 200})
    monkeypatch.setattr("hptune.engine.trainer.is_lost", lambda error, device: True)
    monkeypatch.setattr(problem.parts.train, "feed", lambda *_, **__: 1 / 0)
    with pytest.raises(DeviceLostError, match=r"ZeroDivisionError: division by zero; nothing more can be computed on this device"):
        run_trial(problem, spec_of(problem, steps=5))


@pytest.mark.parametrize(("answers", "lost"), [([RuntimeError("CUDA error: device-side assert triggered")], True), ([None], False)])
def test_a_device_is_lost_where_it_answers_nothing_any_more(monkeypatch, answers, lost):
    def synchronize(device):
        if answers[0] is not None:
            raise answers[0]

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    error = RuntimeError("CUDA error: device-side assert triggered")
    assert is_lost(error, torch.device("cuda")) is lost
    assert is_lost(error, torch.device("cpu")) is False
    assert is_lost(ValueError("no"), torch.device("cuda")) is False
