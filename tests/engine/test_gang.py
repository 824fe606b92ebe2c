"""Trials on several devices, here two processes: the numbers of one process to rounding, and no rank that waits for a lost one."""

import math
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_problems import USER_CODE, experiment, own, reproducible, spec_of

from hptune.engine import gang as gang_module
from hptune.engine.augment import Rows, make_augment
from hptune.engine.full import train_full
from hptune.engine.gang import gang_of
from hptune.engine.numerics import first_numerics
from hptune.engine.order import Order, pieces_of
from hptune.engine.problem import open_problem
from hptune.engine.ranks import Ranks
from hptune.engine.sharing import data_key, shared
from hptune.engine.shipping import Shipment, pack
from hptune.engine.trainer import calibrated, run_trial
from hptune.engine.training import Training, conditions
from hptune.engine.worker import perform, planned
from hptune.errors import ConfigError, HptuneError, UserCodeError
from hptune.schedules import Schedule
from hptune.trial import Calibration, CalibrationRequest, StopRule

torch.set_num_threads(1)
pytestmark = pytest.mark.xdist_group("gang")  # one is enough

TWO = {"devices_per_trial": 2}

NETS = """
import os
import signal

import torch.distributed as dist


def images():
    pixels = torch.randint(256, (400, 8, 8), generator=torch.Generator().manual_seed(8)).to(torch.uint8)
    labels = pixels[:, :4].float().mean((1, 2)).gt(127).long()
    return (pixels[:320], labels[:320]), (pixels[320:], labels[320:])


class Images(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2))


class Partly(Net):
    '''One parameter is never used, and a buffer counts the passes in training.'''

    def __init__(self):
        super().__init__(dropout=0.3, norm=True)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += self.training
        return super().forward(x) * (1 + 0.01 * self.passes)


class Ends(Net):
    '''The second rank leaves a training after some passes.'''

    def __init__(self, how, after=12):
        super().__init__()
        self.how, self.left = how, after

    def forward(self, x):
        self.left -= self.training
        if self.left < 0 and dist.is_initialized() and dist.get_rank() == 1:
            if self.how == "raise":
                raise ValueError("not with me")
            if self.how == "memory":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
            os._exit(3) if self.how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Narrow(Net):
    '''The second rank has no memory for more than so many samples.'''

    def forward(self, x):
        if len(x) > 5 and self.training and dist.is_initialized() and dist.get_rank() == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        return super().forward(x)


def spread(output, target):
    return float(output.max() - output.min()) + float(target.float().mean())
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    file = tmp_path_factory.mktemp("my code") / "own.py"
    file.write_text(USER_CODE + NETS)
    return str(file)


@pytest.fixture(scope="module", autouse=True)
def _one_gang_for_all():
    """Tests share a gang, as trials do; those that cost one leave it to the next to start another."""
    yield
    close_all()


def close_all():
    for gang in gang_module._running:
        gang.close()
    gang_module._running.clear()


def processes():
    return [child for child in multiprocessing.active_children() if child.name.startswith("hptune rank")]


def alone(spec):
    return replace(spec, numerics=spec.numerics.on_one_device())


# ---- the numbers of one process

RAMP = {"schedule": Schedule(kind="ramp", min_lr=1e-2), "lr": 1e4, "steps": 120, "stop": StopRule(relative_to_best=True)}
IMAGES = {"data": "images", "model": "Images", "with_data": {"augment": ["flip", "crop:1", "cutout:2"]}}
CASES = {
    "sgd": ({}, {}),
    "adamw, clipped, of odd batches": ({"optimizer": {"name": "adamw", "gradient_clip": 0.5}}, {"lr": 0.01, "batch_size": 33}),
    "augmented": (IMAGES, {"batch_size": 31}),
    "augmented, in pieces": ({**IMAGES, "executor": {**TWO, "micro_batch": 5}}, {"batch_size": 32}),
    "a ramp that diverges": ({}, RAMP),
    "a metric of the whole part": ({"metric": {"target": "spread"}}, {"steps": 10}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_train_as_one_process_with_the_same_batch(code, case):
    blocks, changes = CASES[case]
    if blocks.get("metric"):
        blocks = {"metric": {"target": f"{code}:spread"}}
    config = own(code, **{"executor": TWO, **blocks})
    problem = open_problem(config)
    spec = spec_of(problem, **{"steps": 30, **changes})
    together = perform((config, spec))
    one = run_trial(problem, replace(alone(spec), numerics=replace(alone(spec).numerics, micro_batch=None)))
    assert spec.numerics.replicas == 2
    assert together.record.status == one.record.status == ("diverged" if changes is RAMP else "completed")
    assert (together.record.steps, together.record.samples) == (one.record.steps, one.record.samples)
    if changes is RAMP:
        assert together.record.steps < spec.steps
        return  # rounding grows without bound on the way there
    assert together.curve.columns["train_loss"] == pytest.approx(one.curve.columns["train_loss"], rel=1e-4)
    for name in ("val_loss", "metric", "train_loss"):
        assert getattr(together.record, name) == pytest.approx(getattr(one.record, name), rel=1e-4)
    assert together.record.val_block_losses == pytest.approx(one.record.val_block_losses, rel=1e-4)
    assert together.record.worker == os.getpid()
    assert together.record.spec == spec


def inside(post, config, spec):
    """In a rank: what all have drawn, their weights and buffers after the training, and its losses."""
    problem = planned(config, spec, None)
    with conditions(problem, spec), closing(Training(problem, spec)) as training:
        drawn = torch.rand(3).tolist()
        training.advance(spec.steps)
        training._evaluate()  # with the statistics of the first rank's batch norm
        weights = torch.cat([tensor.flatten().float() for tensor in training.model.state_dict().values()])
    return training.ranks.everyone((drawn, weights.tolist(), training.series.losses(spec.steps).tolist()))


def test_ranks_keep_the_same_weights_and_draw_dropout_of_their_own(code):
    config = own(code, model="Partly", executor=TWO)
    problem = open_problem(config)
    spec = spec_of(problem, steps=12)
    (first, weights, losses), (second, others, same) = gang_of(spec.numerics).call(inside, config, spec)
    assert weights == others
    assert losses == same
    assert first != second
    with conditions(problem, alone(spec)), closing(Training(problem, alone(spec))):
        assert first == torch.rand(3).tolist()


def test_a_trial_is_the_same_whatever_ran_before_and_however_it_got_its_data(code):
    config = own(code, data="items", args={"dropout": 0.2, "norm": True}, executor=TWO)
    problem = open_problem(config)
    spec = spec_of(problem, steps=12)
    before = perform((config, spec))
    perform((config, spec_of(problem, steps=4, batch_size=8, seed=9)))
    assert reproducible(perform((config, spec))) == reproducible(before)
    config = own(code, executor=TWO)
    spec = spec_of(open_problem(config), steps=8)
    with shared(open_problem(config)) as (_, handle):
        assert reproducible(perform((config, spec, handle))) == reproducible(perform((config, spec)))


def test_a_calibration_times_the_parallel_step(code):
    config = own(code, executor=TWO)
    spec = spec_of(open_problem(config))
    found = perform((config, CalibrationRequest(hyperparameters=spec.hyperparameters, numerics=spec.numerics, steps=3)))
    assert 0 < found.seconds_per_step < math.inf
    assert 0 < found.seconds_per_evaluated_sample < math.inf
    assert (found.batch_size, found.micro_batch) == (32, None)


class Overseas:
    """A box that this process alone can open."""

    def __init__(self, parcel):
        self.parcel = parcel

    def open(self):
        return self.parcel

    def __reduce__(self):
        raise TypeError("it leads nowhere from another process")


@pytest.mark.slow
def test_ranks_reach_what_only_the_process_that_started_them_can(code):
    config = own(code, executor=TWO)
    problem = open_problem(config)
    spec = spec_of(problem, steps=6)
    shipment = Shipment(key=data_key(config), box=Overseas(pack(problem.parts)), identity=problem.task.identity)
    expected = reproducible(perform((config, spec)))
    close_all()  # ranks that have not opened the problem yet
    assert reproducible(perform((config, spec, shipment))) == expected
    assert (gang_of(spec.numerics).folder / shipment.key).exists()


# ---- full trainings


def train(problem, spec, folder, **more):
    return train_full(problem, spec, checkpoints=folder / "c", weights=folder / "c" / "weights.pt", **more)


def weights(folder):
    return torch.load(folder / "c" / "weights.pt", weights_only=True)


def test_a_training_that_was_stopped_continues_to_the_same_bits(code, tmp_path):
    config = own(code, args={"dropout": 0.3, "norm": True}, executor=TWO)
    problem = open_problem(config)
    spec = spec_of(problem, steps=40, lr=0.01, stop=StopRule(window=4), test=True)
    whole = train(problem, spec, tmp_path / "whole", every=7)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(problem, spec, tmp_path / "stopped", every=7, progress=seen.append, stop=lambda: bool(seen) and seen[-1].done >= 8)
    assert not (tmp_path / "stopped" / "c" / "weights.pt").exists()
    assert len(processes()) == 2  # they stopped by themselves, together
    seen.clear()
    continued = train(problem, spec, tmp_path / "stopped", every=7, progress=seen.append)
    assert 8 <= seen[0].done < 40
    assert seen[0].notes == (f"continuing after step {seen[0].done} of 40",)
    assert seen[-1].done == 40
    assert reproducible(continued) == reproducible(whole)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_leaves_the_weights_of_one_process(code, tmp_path):
    problem = open_problem(own(code, executor=TWO))
    spec = spec_of(problem, steps=20, batch_size=31)
    outcome, one = train(problem, spec, tmp_path / "two"), train(problem, alone(spec), tmp_path / "one")
    assert outcome.record.val_loss == pytest.approx(one.record.val_loss, rel=1e-4)
    a, b = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


# ---- ranks that do not come to the end


def lost_trial(code, how):
    config = own(code, model="Ends", args={"how": how}, executor=TWO)
    return perform((config, spec_of(open_problem(config))))


def test_a_killed_rank_ends_the_trial_and_the_next_one_is_as_ever(code):
    config = own(code, executor=TWO)
    spec = spec_of(open_problem(config), steps=10)
    before = perform((config, spec))
    outcome = lost_trial(code, "kill")
    assert (outcome.record.status, outcome.record.worker) == ("failed", os.getpid())
    assert outcome.record.error == (
        "the process on device 2 of 2 ended by exit code -9 (killed, as the system does when memory runs out)"
    )  # fmt: skip
    assert processes() == []
    assert reproducible(perform((config, spec))) == reproducible(before)


def test_an_exception_in_one_rank_is_told_with_the_curve_up_to_the_check_before(code):
    record = (outcome := lost_trial(code, "raise")).record
    assert record.status == "failed"
    assert f"{code}:" in record.error
    assert "ValueError: not with me" in record.error
    assert record.steps == 10
    assert len(outcome.curve.columns["step"]) == 10
    assert processes() == []


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status", "words"), [("exit", "failed", "exit code 3"), ("memory", "out_of_memory", "allocate memory")])
def test_other_ends(code, how, status, words):
    record = lost_trial(code, how).record
    assert record.status == status
    assert words in record.error
    assert processes() == []


@pytest.mark.slow
def test_a_batch_that_one_rank_cannot_hold_is_timed_in_pieces(code):
    config = own(code, model="Narrow", executor=TWO)
    spec = spec_of(open_problem(config), batch_size=16)
    found = perform((config, CalibrationRequest(hyperparameters=spec.hyperparameters, numerics=spec.numerics, steps=2)))
    assert found.micro_batch == 4
    assert math.isfinite(found.seconds_per_step)


@pytest.mark.slow
def test_what_the_user_did_wrong_passes(code, tmp_path):
    config = own(code, executor=TWO)
    spec = spec_of(open_problem(config), steps=4)
    broken = own(str(tmp_path / "gone.py"), executor=TWO)
    with pytest.raises(UserCodeError, match=r"there is no file .*gone\.py"):
        perform((broken, spec))
    with pytest.raises(HptuneError, match="not those this trial was planned for"):
        perform((config, replace(spec, task="another")))


@pytest.mark.slow
def test_an_interrupt_leaves_no_process(code, tmp_path):
    problem = open_problem(own(code, executor=TWO))

    def interrupt(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(problem, spec_of(problem, steps=4000), tmp_path, progress=interrupt)
    assert processes() == []


@pytest.mark.slow
def test_ranks_end_with_whoever_started_them(code, tmp_path):
    script = tmp_path / "trial.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_problems import own, spec_of
from hptune.engine.problem import open_problem
from hptune.engine.full import train_full
if __name__ == "__main__":
    from pathlib import Path
    from hptune.engine import gang
    problem = open_problem(own({code!r}, executor={TWO!r}))
    def told(_):
        print(*(m.process.pid for m in gang._running[0]._members), gang._running[0].folder, flush=True)
    folder = Path({str(tmp_path)!r})
    train_full(problem, spec_of(problem, steps=10**6), checkpoints=folder, weights=folder / "w.pt", progress=told)
""")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    *pids, folder = process.stdout.readline().split(" ", 2)
    process.kill()
    process.communicate()
    for pid in map(int, pids):
        while alive(pid):
            time.sleep(0.05)
    assert not Path(folder.strip()).exists()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_three_ranks_continue_to_the_same_bits(tmp_path):
    """With three the order of a sum matters, and torch changes it after the first step."""
    config = experiment(model={"name": "mlp", "args": {"hidden": [400, 300]}}, executor={"devices_per_trial": 3})
    problem = open_problem(config)
    spec = spec_of(problem, steps=20, batch_size=50, stop=StopRule(window=4))
    whole = train(problem, spec, tmp_path / "whole")
    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(problem, spec, tmp_path / "stopped", progress=seen.append, stop=lambda: bool(seen) and seen[-1].done >= 4)
    assert reproducible(train(problem, spec, tmp_path / "stopped")) == reproducible(whole)
    one = run_trial(problem, alone(spec)).record
    assert whole.record.val_loss == pytest.approx(one.val_loss, rel=1e-4)


def test_a_gang_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(gang_module, "serve", os._exit)
    close_all()
    config = experiment(executor=TWO)
    spec = spec_of(open_problem(config), steps=2)
    with pytest.raises(HptuneError, match="end before they are ready"):
        perform((config, spec))
    assert processes() == []


# ---- how the work is divided


@pytest.mark.parametrize("micro_batch", [None, 1, 3, 5])
@pytest.mark.parametrize(("size", "ranks"), [(9, 2), (12, 3), (7, 4)])
def test_pieces_cover_the_batch_and_weigh_its_mean(size, ranks, micro_batch):
    samples = torch.arange(size, dtype=torch.float64) ** 2
    of_ranks = [pieces_of(size, micro_batch, Ranks(rank, ranks)) for rank in range(ranks)]
    rows = [row for pieces in of_ranks for piece in pieces for row in range(piece.start, piece.stop)]
    assert rows == list(range(size))
    means = [sum(samples[p.start : p.stop].mean() * p.weight for p in pieces) for pieces in of_ranks]
    assert sum(means) / ranks == pytest.approx(samples.mean())
    for pieces in of_ranks:
        assert [(p.first, p.last) for p in pieces] == [(p is pieces[0], p is pieces[-1]) for p in pieces]
        assert all(p.stop - p.start <= (micro_batch or size) for p in pieces)


def test_ranks_read_the_batches_of_one_process_between_them():
    whole = Order(50, 9, batches=12, seed=4)
    halves = [Order(50, 9, batches=12, seed=4, ranks=Ranks(rank, 2)) for rank in range(2)]
    for number in range(len(whole)):
        assert torch.equal(torch.cat([half[number] for half in halves]), whole[number])


def test_augmentation_draws_for_the_whole_batch():
    augment = make_augment(["flip", "crop:2", "cutout:3"])
    images = torch.randn(10, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    source = torch.Generator()
    whole = augment(images, source.manual_seed(1))
    state = source.get_state()
    for start, stop in ((0, 4), (4, 10)):
        assert torch.equal(augment(images[start:stop], Rows(source.manual_seed(1), start, 10)), whole[start:stop])
        assert torch.equal(source.get_state(), state)


# ---- what cannot be


def test_a_batch_with_fewer_samples_than_devices_is_refused():
    with pytest.raises(ConfigError, match=r"baseline\.batch_size: 2 samples leave some of 3 devices without any: use at least 3"):
        open_problem(experiment(baseline={"batch_size": 2}, executor={"devices_per_trial": 3}))


def test_more_devices_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: ("H200", "T4", "T4")[i])
    config = experiment(device="auto", executor={"devices_per_trial": 4})
    with pytest.raises(ConfigError, match=r"executor\.devices_per_trial: 4 is more than the 1 CUDA device that can be used here"):
        first_numerics(config, torch.device("cuda", 0), torch.nn.Linear(1, 1))


def test_one_named_device_is_not_several(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H200")
    with pytest.raises(ConfigError, match=r"device: cuda:1 is one device, and a trial is to have 2: use cuda"):
        first_numerics(experiment(device="cuda:1", executor=TWO), torch.device("cuda", 1), torch.nn.Linear(1, 1))


def test_ranks_get_the_devices_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-abc,2")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in gang_module._environments(2, "cuda", 1)] == ["5", "GPU-abc"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = gang_module._environments(3, "cuda", 6)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in found] == ["0", "1", "2"]
    assert {e["OMP_NUM_THREADS"] for e in found} == {"6"}
    assert all("CUDA_VISIBLE_DEVICES" not in e for e in gang_module._environments(2, "cpu", 1))


def test_batch_norm_over_devices_is_for_cuda():
    with pytest.raises(ConfigError, match=r"executor\.sync_batch_norm: .* is for CUDA: leave it out on a CPU"):
        open_problem(experiment(executor={**TWO, "sync_batch_norm": True}))
    assert not open_problem(experiment(executor={"sync_batch_norm": True})).task.numerics.sync_batch_norm  # nothing to do


def test_the_first_step_is_tried_with_the_share_of_one_device():
    problem = open_problem(experiment(baseline={"batch_size": 65}, executor={**TWO, "micro_batch": 20}))
    assert (problem.task.numerics.replicas, problem.task.numerics.micro_batch) == (2, 20)
    assert problem.task.numerics.for_batch(41).micro_batch == 20
    assert problem.task.numerics.for_batch(40).micro_batch is None


def test_a_process_that_is_no_rank_does_not_train_for_several():
    problem = open_problem(experiment(executor=TWO))
    record = run_trial(problem, spec_of(problem)).record
    assert record.status == "failed"
    assert "a training on 2 devices runs in as many processes, and this is one of 1" in record.error


def test_pieces_that_fit_are_looked_for_below_the_share_of_one_device():
    problem = open_problem(experiment(executor=TWO))
    request = CalibrationRequest(hyperparameters=spec_of(problem, batch_size=30).hyperparameters, numerics=problem.task.numerics)
    tried = []

    def attempt(numerics):
        tried.append(numerics.micro_batch)
        return None if len(tried) < 3 else Calibration(batch_size=30, seconds_per_step=1.0, seconds_per_evaluated_sample=1.0)

    assert calibrated(request, attempt).seconds_per_step == 1.0
    assert tried == [None, 8, 4]
    assert calibrated(request, lambda numerics: None).seconds_per_step == math.inf
