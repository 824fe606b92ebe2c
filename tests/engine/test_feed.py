"""Batches are the same whoever reads them, and whoever reads them ends when nobody wants them any more."""

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_problems import USER_CODE, own, reproducible, spec_of

from hptune.config.schema import Data
from hptune.engine.data import load_parts, parts_from_objects
from hptune.engine.feed import can_fork, loader_workers
from hptune.engine.identity import task_identity
from hptune.engine.measure import measure
from hptune.engine.order import Order
from hptune.engine.parts import DatasetPart
from hptune.engine.problem import open_problem
from hptune.engine.trainer import calibrate, run_trial
from hptune.engine.training import Training, conditions
from hptune.errors import HptuneError, UserCodeError
from hptune.trial import CalibrationRequest, StopRule

torch.set_num_threads(1)
CPU = torch.device("cpu")
PATIENCE = 10.0  # seconds

pytestmark = pytest.mark.skipif(not can_fork(), reason="loader workers are forked")


class Crops:
    """Random crops, each moved and scaled by another library's random numbers."""

    def __init__(self, samples=40, spoil=None):
        self.samples, self.spoil = samples, spoil

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        if self.spoil is not None and index == 30:
            self.spoil()
        left = int(torch.randint(0, 5, ()))
        row = torch.arange(12.0)[left : left + 8] + index
        return row * (1 + 0.1 * random.random()) + np.random.rand(), index % 4


def part(workers, dataset=None, collate=None):
    dataset = dataset or Crops()
    return DatasetPart(dataset, np.arange(len(dataset)), collate, CPU, "mine", workers=workers)


def batches(count=8, size=5):
    return list(torch.arange(count * size).split(size))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def in_time(condition):
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture(autouse=True)
def _nobody_stays():
    before, threads = set(multiprocessing.active_children()), threading.active_count()
    yield
    assert set(multiprocessing.active_children()) <= before
    assert in_time(lambda: threading.active_count() <= threads)


# ---- the same batches


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_the_batches_of_the_process_that_trains(workers):
    torch.manual_seed(1)
    here = list(part(0).feed(batches(), 7))
    torch.manual_seed(2)
    there = list(part(workers).feed(batches(), 7))
    assert len(here) == len(there) == 8
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert [type(batch) for batch in there] == [tuple] * 8


def test_draws_depend_on_seed_and_number_alone():
    whole = list(part(0).feed(batches(), 7))
    for workers in (0, 2):
        rest = list(part(workers).feed(batches(), 7, start=5))
        assert all(same(a, b) for a, b in zip(rest, whole[5:], strict=True))
    assert not same(next(part(0).feed(batches(), 8)), whole[0])
    repeated = list(part(0).feed([batches()[0]] * 2, 7))
    assert not same(*repeated)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_the_random_states_alone(workers):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()[1:3]), random.getstate()

    before = states()
    feed = part(workers).feed(batches(), 7)
    next(feed)
    assert states() == before
    list(feed)
    assert states() == before


def test_a_feed_from_the_end_is_empty():
    assert list(part(2).feed(batches(), 7, start=8)) == []


def test_a_collate_may_form_anything():
    def collate(items):
        return {"rows": [row for row, _ in items], "names": ["a", "b"]}

    for workers in (0, 2):
        batch = next(part(workers, collate=collate).feed(batches(), 7))
        assert batch["names"] == ["a", "b"]
        assert [len(row) for row in batch["rows"]] == [8] * 5


ROWS = np.random.default_rng(0).normal(size=(40, 3))
PAIRS = {
    "images": (np.arange(40 * 30).reshape(40, 5, 6, 1).astype(np.uint8), np.arange(40) % 4),
    "half floats": (ROWS.astype(np.float16), ROWS[:, 0]),
    "dict": ({"a": ROWS, "b": np.arange(40)}, np.arange(40) % 4),
    "tuple": ((ROWS, np.zeros((40, 5, 6, 1), np.uint8)), np.arange(40) % 4),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_streamed_arrays_give_the_batches_of_resident_ones(kind):
    section = Data(target="unused.py:load")
    resident = parts_from_objects(PAIRS[kind], section=section, seed=0, device=CPU).train
    streamed = parts_from_objects(PAIRS[kind], section=section, seed=0, device=CPU, room=0).train
    assert (resident.resident, streamed.resident) == (True, False)
    order = Order(len(resident), 7, batches=9, seed=3)
    for start in (0, 5):
        pairs = list(zip(resident.feed(order, 0, start), streamed.feed(order, 0, start), strict=True))
        assert len(pairs) == 9 - start
        for (x, y), (other_x, other_y) in pairs:
            assert type(x) is type(other_x)
            assert torch.equal(y, other_y)
            assert y.dtype == other_y.dtype
            for a, b in zip(_leaves(x), _leaves(other_x), strict=True):
                assert torch.equal(a, b)
                assert a.dtype == b.dtype
    at = torch.tensor([3, 1])
    assert torch.equal(streamed.take(at)[1], resident.take(at)[1])


def _leaves(x):
    return list(x.values()) if isinstance(x, dict) else list(x) if isinstance(x, tuple) else [x]


def test_streaming_reads_ahead_but_not_far(monkeypatch):
    section = Data(target="unused.py:load")
    streamed = parts_from_objects(PAIRS["images"], section=section, seed=0, device=CPU, room=0).train
    gathered = []
    select = torch.index_select
    monkeypatch.setattr(torch, "index_select", lambda leaf, *args, **kw: gathered.append(1) or select(leaf, *args, **kw))
    feed = streamed.feed(Order(len(streamed), 2, batches=100, seed=0), 0)
    next(feed)
    assert in_time(lambda: len(gathered) >= 2 * 2)  # inputs and targets of more than the one batch
    assert len(gathered) <= 2 * 6
    feed.close()


# ---- what is chosen, and said


def test_what_does_not_fit_is_streamed_and_said():
    section, (x, y) = Data(target="unused.py:load", split="random"), (np.zeros((1000, 250), np.float32), np.zeros(1000, np.float32))
    train, val, test = (fraction * 1_004_000 for fraction in (0.6, 0.2, 0.2))

    def opened(room):
        parts = parts_from_objects((x, y), section=section, seed=0, device=CPU, room=int(room))
        return [part.resident for part in (parts.train, parts.val, parts.test)], parts.notes

    assert opened(train + val + test) == ([True, True, True], ())
    assert opened(train + val) == (
        [True, True, False],
        ("the test data (0.2 MB) do not fit into half of the device's free memory (0.8 MB) beside the other parts: "
         "they are streamed from main memory",),
    )  # fmt: skip
    held, notes = opened(val + test)
    assert held == [False, True, True]
    assert notes[0].startswith("the training data (0.6 MB) do not fit into half of the device's free memory (0.4 MB)")
    assert opened(0)[0] == [False, False, False]
    assert load_parts(Data(name="digits", limit=100), seed=0, device=CPU, room=0).fingerprint == (
        load_parts(Data(name="digits", limit=100), seed=0, device=CPU).fingerprint
    )


def test_how_many_workers_read():
    cuda = torch.device("cuda")
    assert loader_workers("auto", CPU) == 0
    assert loader_workers("auto", cuda) == min(8, max(0, len(os.sched_getaffinity(0)) - 1))
    assert loader_workers(3, CPU) == 3
    assert loader_workers(0, cuda) == 0


def test_without_fork_nothing_but_this_process_reads(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert loader_workers(3, CPU) == 0
    section = Data(target="unused.py:load", workers=3)
    notes = parts_from_objects(Crops(), section=section, seed=0, device=CPU).notes
    assert "items are read by the process that trains: data.workers needs a system that can fork" in notes


def test_how_items_are_read_is_said():
    notes = [
        parts_from_objects(Crops(), section=Data(target="unused.py:load", workers=workers), seed=0, device=CPU).notes[-1]
        for workers in (0, 1, 2)
    ]
    assert notes == ["items are read by the process that trains", "items are read by 1 loader worker", "items are read by 2 loader workers"]


# ---- errors


def raising():
    raise ValueError("no such image")  # here


def test_an_error_in_a_worker_is_the_error_it_is_here():
    errors = []
    for workers in (0, 2):
        feed = part(workers, Crops(spoil=raising)).feed(batches(), 7)
        for _ in range(6):
            next(feed)
        with pytest.raises(UserCodeError) as caught:
            next(feed)
        errors.append((str(caught.value), caught.value.where, caught.value.exit_status))
    assert errors[0] == errors[1]
    line = 1 + next(i for i, text in enumerate(Path(__file__).read_text(encoding="utf-8").splitlines()) if "# here" in text)
    assert errors[0][1] == f"{__file__}:{line}"


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)], ids=["killed", "exits"])
def test_a_worker_that_dies_is_an_error_in_words(end):
    def dies():
        time.sleep(0.3)  # until the training waits for this batch
        end()

    with pytest.raises(HptuneError, match=r"process that reads the data ended \(.+\): .*data\.workers: 0 reads without them"):
        list(part(1, Crops(spoil=dies)).feed(batches(), 7))


class Unsendable:
    def __reduce__(self):
        raise TypeError("keep out")


@pytest.mark.parametrize(
    ("made", "what"), [(Unsendable, "Unsendable.*keep out"), (lambda: torch.ones(1, requires_grad=True) * 2, "Tensor.*detach")]
)
def test_what_a_worker_cannot_send_is_an_error_not_a_wait(made, what):
    def collate(items):
        return {"x": torch.zeros(2), "odd": [made()]}

    assert next(part(0, collate=collate).feed(batches(), 7))
    with pytest.raises(UserCodeError, match=what):
        next(part(1, collate=collate).feed(batches(), 7))


# ---- nobody is left behind (see also the fixture)


def test_a_feed_that_is_dropped_ends_its_workers():
    feed = part(2).feed(batches(), 7)
    next(feed)
    assert len(multiprocessing.active_children()) == 2
    del feed
    gc.collect()
    assert multiprocessing.active_children() == []


def test_a_feed_that_is_closed_ends_its_workers_and_threads():
    streamed = parts_from_objects(PAIRS["images"], section=Data(target="unused.py:load"), seed=0, device=CPU, room=0).train
    for each in (part(2), streamed):
        feed = each.feed(batches(4), 7)
        next(feed)
        feed.close()
        assert multiprocessing.active_children() == []
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("hptune gathers")]


def test_workers_start_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(part(8).feed(batches(), 7))


def test_workers_leave_interrupts_to_the_process_that_trains():
    feed = part(1, Crops(100)).feed(batches(20), 7)
    next(feed)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGINT)
    assert len(list(feed)) == 19


# ---- trials


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(USER_CODE)
    return str(file)


def noisy(code, workers, **changes):
    return open_problem(own(code, data="noisy", args={"dropout": 0.5}, with_data={"workers": workers}, **changes))


def test_a_trial_is_the_same_with_and_without_workers(code):
    problems = [noisy(code, workers) for workers in (0, 2)]
    assert problems[0].task.task_id == problems[1].task.task_id
    spec = spec_of(problems[0], steps=14, evaluate_at=(4, 14))
    assert reproducible(run_trial(problems[0], spec)) == reproducible(run_trial(problems[1], spec))


def test_workers_and_streaming_are_no_part_of_the_task(code):
    experiment = own(code, with_data={"workers": 2})
    assert task_identity(experiment, "f") == task_identity(own(code), "f")


@pytest.mark.parametrize("model", ["own", "built in"])
def test_a_streamed_trial_is_the_same(code, model):
    experiments = {"own": own(code), "built in": own(code, with_model={"target": None, "name": "mlp"})}
    resident = open_problem(experiments[model])
    parts = load_parts(resident.experiment.data, seed=0, device=CPU, room=0)
    assert not parts.val.resident
    streamed = open_problem(experiments[model], parts)
    spec = spec_of(resident, steps=14, test=True)
    assert run_trial(resident, spec).record.status == "completed"
    assert reproducible(run_trial(streamed, spec)) == reproducible(run_trial(resident, spec))


KEEPS = """

class Keeps(Noisy):
    def __init__(self, start, end):
        super().__init__(start, end)
        self.kept = {}

    def __getitem__(self, i):
        if i not in self.kept:
            self.kept[i] = X[i] * 1
        return self.kept[i].add_(0), int(Y[i])


def keeps():
    held = Keeps(0, 160)
    return held, held
"""


def test_items_that_a_dataset_keeps_from_an_evaluation_serve_in_training(code):
    Path(code).write_text(USER_CODE + KEEPS)
    problem = open_problem(own(code, data="keeps", with_model={"target": None, "name": "mlp"}))
    problem.parts.val._dataset.kept.clear()
    measure(problem, problem.make_model(), problem.parts.val, problem.task.numerics)
    assert len(problem.parts.val._dataset.kept) == 160
    record = run_trial(problem, spec_of(problem, steps=8)).record
    assert (record.status, record.error) == ("completed", None)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("micro_batch", [None, 10])
def test_a_training_continues_in_mid_epoch_with_the_same_batches(code, workers, micro_batch):
    problem = noisy(code, workers)
    spec = spec_of(problem, steps=9)
    spec = replace(spec, numerics=replace(spec.numerics, micro_batch=micro_batch))
    with conditions(problem, spec), contextlib.closing(Training(problem, spec)) as whole:
        whole.advance(9)
        expected = list(whole.series.losses(9))
    with conditions(problem, spec), contextlib.closing(Training(problem, spec)) as first:
        first.advance(3)
        state = first.state()
    with conditions(problem, spec), contextlib.closing(Training(problem, spec)) as second:
        second.advance(1)
        second.restore(state)
        second.advance(6)
        assert list(second.series.losses(9)) == expected


def test_no_worker_outlives_its_trial(code):
    problem = noisy(code, 2)
    diverging = spec_of(problem, steps=40, lr=1e20, stop=StopRule(window=2))
    assert run_trial(problem, diverging).record.status == "diverged"
    assert multiprocessing.active_children() == []
    tired = open_problem(own(code, data="noisy", model="Tires", args={"calls": 8}, with_data={"workers": 2}))
    assert run_trial(tired, spec_of(tired)).record.status == "failed"
    assert multiprocessing.active_children() == []
    calibrate(problem, CalibrationRequest(hyperparameters=diverging.hyperparameters, numerics=diverging.numerics, steps=2))
    assert multiprocessing.active_children() == []


def test_an_interrupted_trial_leaves_no_worker(code, monkeypatch):
    problem = noisy(code, 2)

    def interrupted(*_):
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_trial(problem, spec_of(problem))
    assert multiprocessing.active_children() == [], "although the exception still holds its frames"
    assert caught.value.__traceback__ is not None


def test_an_error_in_an_evaluation_leaves_no_worker(code):
    def loss(output, target):
        assert len(multiprocessing.active_children()) == 1
        raise ValueError("no such loss")

    problem = replace(noisy(code, 2), loss=loss)
    with pytest.raises(ValueError, match="no such loss") as caught:
        measure(problem, problem.make_model(), problem.parts.train, problem.task.numerics)
    assert multiprocessing.active_children() == []
    assert caught.value.__traceback__ is not None


def test_skipped_updates_take_further_batches(code):
    problem = noisy(code, 2)
    spec = spec_of(problem, steps=4)
    with conditions(problem, spec), contextlib.closing(Training(problem, spec)) as training:
        step = training._rig.step
        results = []

        def skips_the_first(*args):
            results.append(step(*args))
            return None if len(results) <= 2 else results[-1]

        training._rig.step = skips_the_first
        training.advance(4)
        assert (training.done, training.taken, len(results)) == (4, 6, 6)
