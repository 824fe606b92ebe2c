"""Losses and metrics: values against hand-made ones, shapes that must not broadcast, the user's own mistakes."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from hptune.config.schema import LOSSES, METRICS, Component, Metric
from hptune.engine import losses, metrics
from hptune.engine.losses import RunningMean, build_loss
from hptune.engine.metrics import Meter, build_metric
from hptune.errors import ConfigError, UserCodeError

torch.set_num_threads(1)

USERS_CODE = """
import torch
from torch import nn

def weighted(output, target, factor=1.0):
    return factor * (output - target).abs().mean()

def per_sample(output, target):
    return (output - target).abs().flatten()

def as_number(output, target):
    return 1.0

def counts(output, target):
    return (output > 0).sum()

def fails(output, target):
    raise KeyError("no such head")

def worst(output, target):
    return (output - target).abs().max().item()

def pairs(output, target):
    return (output[0] - target).abs().max()

def nothing(output, target):
    return None

class Balanced(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, output, target):
        return nn.functional.cross_entropy(output, target, weight=self.weights)

class NotCallable:
    pass
"""


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "my code"
    folder.mkdir()
    file = folder / "own.py"
    file.write_text(USERS_CODE)
    return str(file)


def loss(name, **args):
    return build_loss(Component(name=name, args=args))


def metric(name):
    return build_metric(Metric(name=name))


LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
LABELS = torch.tensor([0, 1, 1])


def test_every_name_of_the_config_exists():
    assert set(losses.BUILT_IN) == set(LOSSES)
    assert set(metrics.BUILT_IN) == set(METRICS)


def test_cross_entropy_by_hand():
    per_sample = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(0.5))]
    assert loss("cross_entropy")(LOGITS, LABELS).item() == pytest.approx(sum(per_sample) / 3, rel=1e-6)


@pytest.mark.parametrize("labels", [LABELS.int(), functional.one_hot(LABELS).float()], ids=["int32", "probabilities"])
def test_cross_entropy_takes_other_forms_of_labels(labels):
    assert loss("cross_entropy")(LOGITS, labels).item() == pytest.approx(loss("cross_entropy")(LOGITS, LABELS).item(), rel=1e-6)


def test_label_smoothing_reaches_the_loss():
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert torch.equal(loss("cross_entropy", label_smoothing=0.1)(LOGITS, LABELS), expected)


def test_cross_entropy_of_pixels():
    output, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    assert torch.equal(loss("cross_entropy")(output, target), functional.cross_entropy(output, target))


OUTPUT, TARGET = torch.tensor([1.0, 2.0, -4.0]), torch.tensor([1.5, 2.0, -1.0])


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("mse", {}, (0.25 + 0 + 9) / 3),
        ("l1", {}, (0.5 + 0 + 3) / 3),
        ("smooth_l1", {}, (0.125 + 0 + 2.5) / 3),
        ("smooth_l1", {"beta": 2.0}, (0.0625 + 0 + 2.0) / 3),
    ],
)
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3, 1), (3,)), ((3,), (3, 1)), ((3, 1), (3, 1))], ids=str)
def test_regression_losses_by_hand(name, args, expected, shapes):
    value = loss(name, **args)(OUTPUT.reshape(shapes[0]), TARGET.reshape(shapes[1]))
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float64])
def test_targets_of_other_types_train(dtype):
    output = torch.tensor([1.0, 2.0], requires_grad=True)
    value = loss("mse")(output, torch.tensor([1, 3], dtype=dtype))
    value.backward()
    assert value.item() == 0.5
    assert output.grad.tolist() == [0.0, -1.0]


def test_half_precision_outputs_are_compared_in_float32():
    output = torch.tensor([256.0], dtype=torch.bfloat16)
    assert loss("mse")(output, torch.tensor([257.0])).item() == 1.0
    assert metric("mae")(output, torch.tensor([257.0])).item() == 1.0


def test_bce_with_one_column():
    output, labels = torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 0])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert loss("bce_with_logits")(output, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "l1", "smooth_l1", "bce_with_logits"])
@pytest.mark.parametrize(("output", "target"), [((4, 3), (4,)), ((4, 1), (4, 4)), ((4, 2, 1), (4, 2)), ((4,), (1,))], ids=str)
def test_nothing_is_broadcast(name, output, target):
    with pytest.raises(ConfigError, match=rf"^loss: loss {name} needs the same shape.*{output}".replace("(", r"\(").replace(")", r"\)")):
        loss(name)(torch.zeros(output), torch.zeros(target))


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.zeros(4, 3), torch.zeros(4)),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.int64)),
    ],
    ids=["float labels", "other batch", "one logit", "integers as probabilities"],
)
def test_cross_entropy_says_what_it_needs(output, target):
    with pytest.raises(ConfigError, match=r"loss cross_entropy needs \(batch, classes\) with integer class labels"):
        loss("cross_entropy")(output, target)


@pytest.mark.parametrize("name", LOSSES)
def test_an_output_of_several_tensors_needs_a_target(name):
    with pytest.raises(ConfigError, match="the model's output to be one tensor, got tuple: write a loss target"):
        loss(name)((OUTPUT, OUTPUT), TARGET)
    with pytest.raises(ConfigError, match="the target to be one tensor, got dict"):
        loss(name)(OUTPUT, {"y": TARGET})


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cross_entropy", {"label_smothing": 0.1}, r"^loss\.args: .*did you mean 'label_smoothing'"),
        ("cross_entropy", {"label_smoothing": 1.5}, r"^loss\.args\.label_smoothing: .*from 0 up to, but not including, 1, got 1.5"),
        ("cross_entropy", {"label_smoothing": "0.1"}, "got '0.1'"),
        ("cross_entropy", {"label_smoothing": True}, "got True"),
        ("smooth_l1", {"beta": math.inf}, "a finite number above 0"),
        ("mse", {"beta": 1.0}, "it takes none"),
    ],
)
def test_wrong_arguments(name, args, message):
    with pytest.raises(ConfigError, match=message):
        loss(name, **args)


def test_running_mean_weighs_batches_by_size():
    mean = RunningMean()
    assert math.isnan(mean.value())
    mean.add(torch.tensor(1.0), 3)
    mean.add(torch.tensor(5.0, requires_grad=True), 1)
    assert (mean.value(), mean.samples) == (2.0, 4)


def test_running_mean_keeps_small_differences_over_many_batches():
    mean = RunningMean()
    for _ in range(5000):
        mean.add(torch.tensor(0.1), 1000)
    assert mean.value() == pytest.approx(torch.tensor(0.1).item(), rel=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_mean_over_ragged_batches_is_the_mean_of_all(name):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(10, 4, generator=generator)
    target = torch.randint(4, (10,), generator=generator) if name == "cross_entropy" else torch.randn(10, 4, generator=generator)
    mean = RunningMean()
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        mean.add(loss(name)(output[part], target[part]), len(output[part]))
    assert mean.value() == pytest.approx(loss(name)(output, target).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "output", "target", "expected"),
    [
        ("accuracy", LOGITS, LABELS, 2 / 3),
        ("accuracy", torch.tensor([[0.1], [-0.1], [3.0], [-2.0]]), torch.tensor([1, 1, 1, 0]), 0.75),
        ("accuracy", torch.tensor([0.1, -0.1]), torch.tensor([1.0, 1.0]), 0.5),
        ("accuracy", torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 0]]), 0.5),
        ("accuracy", torch.eye(2).reshape(1, 2, 2), torch.tensor([[0, 0]]), 0.5),
        ("mse", OUTPUT[:, None], TARGET, 9.25 / 3),
        ("mae", OUTPUT, TARGET, 3.5 / 3),
    ],
)
def test_metrics_by_hand(name, output, target, expected):
    assert metric(name)(output, target).item() == pytest.approx(expected, rel=1e-6)


def test_no_metric_is_nan():
    meter = Meter(metric("none"))
    meter.add(OUTPUT, TARGET, 3)
    assert math.isnan(meter.value())


@pytest.mark.parametrize("name", ["accuracy", "mse", "mae"])
def test_metrics_refuse_what_does_not_fit(name):
    with pytest.raises(ConfigError, match=f"^metric: metric {name} needs the same shape"):
        metric(name)(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ConfigError, match="write a metric target"):
        metric(name)([OUTPUT], TARGET)


def test_a_meter_over_ragged_batches_is_exact():
    meter = Meter(metric("accuracy"))
    meter.add(LOGITS[:2], LABELS[:2], 2)
    meter.add(LOGITS[2:], LABELS[2:], 1)
    assert meter.value() == pytest.approx(2 / 3)


def test_an_empty_meter_is_nan(code):
    assert math.isnan(Meter(metric("mae")).value())
    assert math.isnan(Meter(build_metric(Metric(target=f"{code}:worst"))).value())


def test_a_users_metric_sees_the_whole_part(code):
    meter = Meter(build_metric(Metric(target=f"{code}:worst")))
    meter.add(OUTPUT[:2].requires_grad_(), TARGET[:2], 2)
    meter.add(OUTPUT[2:], TARGET[2:], 1)
    assert meter.value() == 3.0


@pytest.mark.parametrize("form", [lambda x: (x, "label"), lambda x: [x, x], lambda x: {0: x}], ids=["tuple", "list", "dict"])
def test_outputs_of_several_tensors_are_averaged_by_size(code, form):
    meter = Meter(build_metric(Metric(target=f"{code}:pairs")))
    meter.add(form(OUTPUT[:2]), TARGET[:2], 2)
    meter.add(form(OUTPUT[2:]), TARGET[2:], 1)
    assert meter.value() == pytest.approx((2 * 0.5 + 3.0) / 3)


def test_batches_of_unlike_shapes_are_averaged_by_size(code):
    meter = Meter(build_metric(Metric(target=f"{code}:worst")))
    meter.add(torch.ones(3, 5), torch.zeros(3, 5), 3)
    meter.add(3 * torch.ones(1, 7), torch.zeros(1, 7), 1)
    assert meter.value() == pytest.approx(1.5)


def test_a_users_loss_gets_its_arguments(code):
    value = build_loss(Component(target=f"{code}:weighted", args={"factor": 2.0}))(OUTPUT, TARGET)
    assert value.item() == pytest.approx(7 / 3)


def test_a_class_is_made_once_with_its_arguments(code):
    section = Component(target=f"{code}:Balanced", args={"weights": [1.0, 3.0]})
    value = build_loss(section, device=torch.device("cpu"))(LOGITS, LABELS)
    assert torch.equal(value, functional.cross_entropy(LOGITS, LABELS, weight=torch.tensor([1.0, 3.0])))


def test_a_class_is_put_on_the_device(code):
    section = Component(target=f"{code}:Balanced", args={"weights": [1.0, 3.0]})
    meta = torch.device("meta")
    assert build_loss(section, device=meta)(LOGITS.to(meta), LABELS.to(meta)).device == meta


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_sample", r"returned torch\.float32 of shape \(3,\): return one floating-point number"),
        ("counts", r"returned torch\.int64 of shape \(\)"),
        ("as_number", "returned float, not a tensor"),
        ("fails", r"own\.py:18: .*KeyError.*no such head"),
    ],
)
def test_mistakes_in_a_users_loss(code, name, message):
    with pytest.raises(UserCodeError, match=message):
        build_loss(Component(target=f"{code}:{name}"))(OUTPUT, TARGET)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_sample", r"returned a tensor of shape \(3,\): return one number"),
        ("nothing", "returned NoneType: return one number"),
        ("fails", r"own\.py:18: .*computing the metric"),
    ],
)
def test_mistakes_in_a_users_metric(code, name, message):
    with pytest.raises(UserCodeError, match=message):
        build_metric(Metric(target=f"{code}:{name}"))(OUTPUT, TARGET)


def test_objects_that_cannot_be_called(code):
    with pytest.raises(UserCodeError, match="cannot be called with"):
        build_loss(Component(target=f"{code}:NotCallable"))


def test_metric_arguments_are_checked():
    with pytest.raises(ConfigError, match=r"^metric\.args: accuracy has no argument 'top'"):
        build_metric(Metric(name="accuracy", args={"top": 5}))


def test_installed_classes_are_targets():
    value = build_loss(Component(target="torch.nn:HuberLoss", args={"delta": 0.5}))(OUTPUT, TARGET)
    assert torch.equal(value, nn.HuberLoss(delta=0.5)(OUTPUT, TARGET))
