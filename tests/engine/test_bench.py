"""Speed by batch size: what is measured, how FLOPs are counted, and that trouble at one size is a row. No test depends on a clock."""

import pytest
import torch
from training_problems import opened, own

from hptune.engine import bench as bench_module
from hptune.engine.bench import Speed, bench
from hptune.engine.peaks import peak_flops
from hptune.engine.problem import open_problem
from hptune.trial import Numerics

torch.set_num_threads(1)
BRIEFLY = 0.001

PARTICULAR = '''
import torch
from torch import nn


def load():
    x, y = torch.randn(160, 6), torch.arange(160) % 2
    return (x, y), (x, y)


class Net(nn.Module):
    """Fits 16 samples into its memory, and does not take 8."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        if len(x) == 8:
            raise ValueError("not eight")  # here
        if self.training and len(x) > 16:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        return self.layer(x)


class Sum(nn.Module):
    """No matrix product, no convolution."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x.sum(dim=1, keepdim=True) * self.scale
'''


@pytest.fixture(scope="module")
def digits():
    return opened()


@pytest.fixture
def code(tmp_path):
    (tmp_path / "particular.py").write_text(PARTICULAR)
    return str(tmp_path / "particular.py")


def test_every_size_is_measured_once_in_ascending_order(digits):
    begun = []
    rows = bench(digits, [64, 32, 64], seconds=BRIEFLY, begin=begun.append)
    assert begun == [32, 64]
    assert [row.batch_size for row in rows] == begun
    for row in rows:
        assert row.status == "measured"
        assert row.seconds > 0
        assert row.compute_seconds > 0
        assert row.reading_seconds > 0
        assert row.augmentation_seconds is None, "there is none"
        assert row.steps >= bench_module.FEWEST_ROUNDS
        assert row.samples_per_second == row.batch_size / row.seconds
        assert row.peak_share is None, "a CPU's peak is in no table"
    assert rows[1].memory is None or rows[1].memory >= rows[0].memory > 2**20


def test_nothing_of_it_remains_in_the_process(digits):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    bench(digits, [32], seconds=BRIEFLY)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_augmented_images_and_either_optimizer(optimizer):
    images = opened(data={"name": "digits", "augment": ["crop:1"]}, model={"name": "small_cnn"}, optimizer={"name": optimizer})
    (row,) = bench(images, [32], seconds=BRIEFLY)
    assert row.status == "measured"
    assert row.augmentation_seconds > 0
    assert set(row.outside) == {"reading", "augmentation", "python"}


# ---- FLOPs


def test_flops_of_linear_layers_are_those_counted_by_hand(digits):
    # A product of (n, a) with (a, b) takes 2·n·a·b. Each layer needs one forward and one for its weights' gradient; all but the
    # first one more for the gradient of their input.
    linear = opened(model={"name": "linear"})
    assert digits.task.flops == 2 * (2 * 64 * 16) + 3 * (2 * 16 * 10)  # an mlp with 16 hidden units
    (row,) = bench(linear, [32], seconds=BRIEFLY)
    assert row.flops == 32 * 2 * (2 * 64 * 10)
    assert row.flops_per_second == row.flops / row.seconds


def test_where_there_is_nothing_to_count_there_is_no_number(code):
    problem = open_problem(own(code, data="load", model="Sum", baseline={"batch_size": 16}))
    (row,) = bench(problem, [16], seconds=BRIEFLY)
    assert (row.status, row.flops, row.flops_per_second) == ("measured", None, None)


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 80GB HBM3", "fp32", 494),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "fp16", 989),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA A4000", "bf16", None),
    ],
)
def test_peaks_go_by_the_whole_name_of_the_device(name, precision, tera):
    found = peak_flops(Numerics(device="cuda", device_model=name, precision=precision))
    assert found == (None if tera is None else tera * 1e12)


def test_a_cpu_has_no_peak():
    assert peak_flops(Numerics(device="cpu", device_model="AMD EPYC L4")) is None


# ---- what follows from the times


def test_time_outside_compute_is_divided_among_its_places():
    row = Speed(batch_size=10, seconds=1.0, compute_seconds=0.5, reading_seconds=0.3, augmentation_seconds=0.1)
    assert row.outside_compute == 0.5
    assert row.outside == pytest.approx({"reading": 0.3, "augmentation": 0.1, "python": 0.1})


def test_pieces_that_take_longer_alone_make_no_share_negative():
    row = Speed(batch_size=10, seconds=1.0, compute_seconds=0.9, reading_seconds=0.3, augmentation_seconds=0.3)
    assert row.outside == pytest.approx({"reading": 0.1, "augmentation": 0.0, "python": 0.0})
    assert Speed(batch_size=10, seconds=1.0, compute_seconds=1.2).outside_compute == 0


def test_share_of_the_peak():
    assert Speed(batch_size=1, seconds=0.5, flops=1e12, peak_flops=10e12).peak_share == pytest.approx(0.2)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_blocks_are_taken_in_turn_and_never_exceed_the_steps_there_are(seconds):
    taken = []
    actions = {name: lambda times, name=name: taken.append((name, times)) for name in ("step", "compute")}
    rounds = bench_module._in_turn(actions, seconds, torch.device("cpu"), most=100)
    assert [name for name, _ in taken] == ["step", "compute"] * (len(taken) // 2)
    assert 1 + rounds.block * len(rounds.seconds["step"]) == sum(times for name, times in taken if name == "step") <= 100
    assert len(rounds.seconds["step"]) == len(rounds.seconds["compute"]) >= bench_module.FEWEST_ROUNDS


def test_a_machine_that_slows_down_does_not_change_the_shares():
    steady = bench_module._Rounds(1, {"step": [2.0, 2.0, 2.0], "compute": [1.0, 1.0, 1.0]})
    slower = bench_module._Rounds(1, {"step": [2.0, 4.0, 8.0], "compute": [1.0, 2.0, 4.0]})
    assert steady.typical() == {"step": 2.0, "compute": 1.0}
    assert slower.typical() == {"step": 4.0, "compute": 2.0}
    assert steady.spread() == 0
    assert slower.spread() == (6 - 3) / 2 / 4


# ---- trouble


def test_a_size_that_does_not_fit_is_a_row_and_larger_ones_are_not_tried(code):
    problem = open_problem(own(code, data="load", baseline={"batch_size": 16}))
    rows = bench(problem, [16, 32, 64], seconds=BRIEFLY)
    assert [row.status for row in rows] == ["measured", "out_of_memory", "not_tried"]
    assert rows[0].flops is not None
    assert rows[1].samples_per_second is rows[1].outside_compute is rows[1].flops is None
    assert rows[1].outside == {}


def test_an_exception_of_the_user_s_code_is_a_row_that_says_where(code):
    problem = open_problem(own(code, data="load", baseline={"batch_size": 16}))
    rows = bench(problem, [8, 16], seconds=BRIEFLY)
    assert [row.status for row in rows] == ["failed", "measured"]
    line = PARTICULAR[: PARTICULAR.index("# here")].count("\n") + 1
    assert rows[0].error.endswith(f"particular.py:{line}: ValueError: not eight")
