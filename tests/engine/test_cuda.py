"""The engine on a CUDA device: captured, compiled and eager steps agree, and nothing of a trial stays. Skipped without such a device.

Two equal trainings differ by the order of the device's additions, and a training at a high learning rate makes that grow: a percent after
some tens of steps. So they are compared while it is small, with kernels that add in a fixed order where there are such.
"""

import gc
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from test_gang import NETS
from training_problems import USER_CODE, opened, own, spec_of

from hptune.engine import gang as gang_module
from hptune.engine.full import train_full
from hptune.engine.problem import open_problem
from hptune.engine.program import rig_for
from hptune.engine.trainer import calibrate, run_trial
from hptune.engine.worker import perform
from hptune.trial import CalibrationRequest, StopRule

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

SMALL = {"model": {"name": "small_cnn", "args": {"width": 8}}, "device": "cuda", "precision": "fp32", "executor": {"compile": False}}
AUGMENTED = {**SMALL, "data": {"name": "digits", "augment": ["flip", "crop:1", "cutout:2"]}}


WIDE = {**SMALL, "model": {"name": "small_cnn", "args": {"width": 64}}}


@pytest.fixture(autouse=True)
def _deterministic_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


LOOKS_AT_DATA = """
class LooksAtData(Net):
    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() > 0 else 0.5)
"""


def eagerly(problem, spec):
    """Run a trial step by step, whatever could be captured."""
    before, problem.kept.refusal = problem.kept.refusal, "steps one by one are wanted"
    problem.kept.drop()
    try:
        return run_trial(problem, spec)
    finally:
        problem.kept.refusal = before


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_steps_are_the_eager_ones(optimizer, precision):
    problem = opened(**{**AUGMENTED, "precision": precision}, optimizer={"name": optimizer})
    spec = spec_of(problem, lr=0.01, steps=24)
    captured, eager = run_trial(problem, spec).record, eagerly(problem, spec).record
    assert problem.kept.refusal is None
    assert captured.status == eager.status == "completed"
    assert captured.val_loss == pytest.approx(eager.val_loss, rel=0.02)
    assert captured.curve.train_loss == pytest.approx(eager.curve.train_loss, rel=0.02)


def test_dropout_is_drawn_alike(tmp_path):
    (tmp_path / "own.py").write_text(USER_CODE)
    problem = open_problem(own(str(tmp_path / "own.py"), args={"dropout": 0.5}, device="cuda"))
    spec = spec_of(problem, steps=30, batch_size=40)
    assert run_trial(problem, spec).record.val_loss == pytest.approx(eagerly(problem, spec).record.val_loss, rel=0.02)


def test_trials_of_a_shape_share_a_graph_and_leave_nothing_in_it():
    problem = opened(**AUGMENTED)
    a, b = spec_of(problem, steps=20), spec_of(problem, steps=12, lr=0.3, seed=9)
    first = run_trial(problem, a).record
    programs = dict(problem.kept.programs)
    run_trial(problem, b)
    again = run_trial(problem, a).record
    assert problem.kept.programs == programs
    assert again.val_loss == pytest.approx(first.val_loss, rel=1e-3)


def test_what_python_steers_is_trained_step_by_step(tmp_path):
    (tmp_path / "own.py").write_text(USER_CODE + LOOKS_AT_DATA)
    problem = open_problem(own(str(tmp_path / "own.py"), model="LooksAtData", device="cuda"))
    assert "cannot be captured" in problem.kept.refusal
    assert run_trial(problem, spec_of(problem, steps=10)).record.status == "completed"


def test_the_device_survives_a_failed_capture(tmp_path):
    test_what_python_steers_is_trained_step_by_step(tmp_path)
    problem = opened(**SMALL)
    assert run_trial(problem, spec_of(problem, steps=10)).record.status == "completed"
    assert problem.kept.refusal is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")  # of the compiler itself
def test_compiled_and_captured_steps_train_as_plain_ones():
    plain, compiled = opened(**SMALL), opened(**{**SMALL, "executor": {"compile": True}})
    assert compiled.task.numerics.compiled
    for size in (32, 64):
        a, b = (run_trial(p, spec_of(p, batch_size=size, steps=40)).record for p in (plain, compiled))
        assert b.val_loss == pytest.approx(a.val_loss, rel=0.05)


def test_fp16_skips_no_schedule_step():
    problem = opened(**{**SMALL, "precision": "fp16"})
    record = run_trial(problem, spec_of(problem, steps=30)).record
    assert (record.status, record.steps) == ("completed", 30)


def test_lack_of_memory_is_freed_and_accumulation_reaches_the_batch():
    problem = opened(**WIDE)
    spec = spec_of(problem, steps=4, batch_size=1024)
    gc.collect()
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 4 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        assert run_trial(problem, spec).record.status == "out_of_memory"
        found = calibrate(problem, CalibrationRequest(hyperparameters=spec.hyperparameters, numerics=spec.numerics, steps=2))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.micro_batch is None or found.micro_batch < 1024
    pieces = replace(spec, numerics=replace(spec.numerics, micro_batch=256))
    assert run_trial(problem, pieces).record.status == "completed"


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_a_step_waits_for_nothing():
    problem = opened(**SMALL)
    rig, program = rig_for(problem, 64, problem.task.numerics)
    assert program is not None
    indices = torch.randint(len(problem.parts.train), (20, 64), device="cuda")
    rates = torch.full((20,), 0.01, device="cuda")
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        program.run(indices, rates, rates, torch.full_like(rates, 1e-4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(parameter.isfinite().all()) for parameter in rig.model.parameters())


def test_records_do_not_depend_on_the_checks_between():
    problem = opened(**SMALL)
    spec = spec_of(problem, steps=16, evaluate_at=(16,))
    often = replace(spec, stop=replace(spec.stop, window=4))
    assert run_trial(problem, spec).record.val_loss == pytest.approx(run_trial(problem, often).record.val_loss, rel=1e-3)


def test_a_failed_assertion_on_the_device_is_known_for_what_it_is():
    """In a process of its own: nothing can be computed in it afterwards."""
    script = """
import torch
from hptune.engine.memory import is_lost
device = torch.device("cuda")
try:
    torch.zeros(4, 3, device=device) @ torch.zeros(4, 3, device=device)
except RuntimeError as error:
    print(is_lost(error, device))
try:
    torch.zeros(3, device=device)[torch.tensor([7], device=device)]
    torch.cuda.synchronize()
except RuntimeError as error:
    print(is_lost(error, device))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "False\nTrue\n", done.stderr


# ---- one trial on two devices

two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here, or none")
BLOCKS = {**AUGMENTED, "executor": {"compile": False, "devices_per_trial": 2}}


@pytest.fixture
def gang():
    yield
    for running in gang_module._running:
        running.close()
    gang_module._running.clear()


def by_two(problem, spec):
    return perform((problem.experiment, spec)).record


@two_devices
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch_size", [32, 33])
def test_two_devices_train_as_one(tmp_path, gang, precision, batch_size):
    """Without batch norm; augmentation is drawn on the device for the whole batch."""
    (tmp_path / "own.py").write_text(USER_CODE)
    problem = open_problem(own(str(tmp_path / "own.py"), device="cuda", precision=precision, executor={"devices_per_trial": 2}))
    spec = spec_of(problem, lr=0.01, steps=24, batch_size=batch_size)
    together = by_two(problem, spec)
    one = eagerly(problem, replace(spec, numerics=spec.numerics.on_one_device())).record
    assert together.status == one.status == "completed"
    assert together.val_loss == pytest.approx(one.val_loss, rel=0.02)
    assert together.curve.train_loss == pytest.approx(one.curve.train_loss, rel=0.02)


@two_devices
def test_batch_norm_over_two_devices_is_that_of_one(gang):
    problem = opened(**{**BLOCKS, "executor": {**BLOCKS["executor"], "sync_batch_norm": True}})
    assert problem.task.numerics.sync_batch_norm
    spec = spec_of(problem, lr=0.01, steps=24)
    together = by_two(problem, spec)
    one = eagerly(problem, replace(spec, numerics=spec.numerics.on_one_device())).record
    assert together.val_loss == pytest.approx(one.val_loss, rel=0.02)
    local = by_two(problem, replace(spec, numerics=replace(spec.numerics, sync_batch_norm=False)))
    assert local.status == "completed"
    assert local.val_loss != together.val_loss


@two_devices
def test_a_compiled_step_is_parallel_too(gang):
    problem = opened(**{**BLOCKS, "executor": {**BLOCKS["executor"], "compile": True}})
    spec = spec_of(problem, lr=0.01, steps=12)
    plain = replace(spec, numerics=replace(spec.numerics, compiled=False))
    assert by_two(problem, spec).val_loss == pytest.approx(by_two(problem, plain).val_loss, rel=0.05)


@two_devices
def test_a_rank_that_dies_leaves_no_other_waiting_on_its_device(tmp_path, gang):
    (tmp_path / "own.py").write_text(USER_CODE + NETS)
    problem = open_problem(
        own(str(tmp_path / "own.py"), model="Ends", args={"how": "kill"}, device="cuda", executor={"devices_per_trial": 2})
    )
    record = by_two(problem, spec_of(problem))
    assert record.status == "failed"
    assert "device 2 of 2 ended by exit code -9" in record.error


@two_devices
def test_a_training_on_two_devices_continues_from_its_checkpoint(tmp_path, gang):
    problem = opened(**BLOCKS)
    spec = replace(spec_of(problem, lr=0.01, steps=40), stop=StopRule(window=4))
    files = {"checkpoints": tmp_path / "c", "weights": tmp_path / "c" / "weights.pt"}
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train_full(problem, spec, **files, progress=seen.append, stop=lambda: bool(seen) and seen[-1].done >= 8)
    continued = train_full(problem, spec, **files).record
    assert continued.steps == 40
    assert continued.val_loss == pytest.approx(by_two(problem, spec).val_loss, rel=0.02)
