"""The data set of one process, used by others: the same to the bit, held once, and gone when nobody uses it any more."""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from training_problems import USER_CODE, experiment, own, reproducible, spec_of

from hptune.config.loader import from_tree
from hptune.engine import worker
from hptune.engine.arrays import leaves
from hptune.engine.parts import Parts
from hptune.engine.problem import open_problem
from hptune.engine.sharing import ALIGNMENT, attach, data_key, shared
from hptune.engine.trainer import run_trial
from hptune.engine.worker import perform
from hptune.executors import make_executor
from hptune.session import open_session

torch.set_num_threads(1)

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there are no memory files here")


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        USER_CODE + "\n\ndef mixed():\n    odd = lambda a, b: ({'rows': X[a:b].to(torch.bfloat16), 'on': X[a:b, :3] > 0}, X[a:b, 0])\n"
        "    return odd(0, 161), odd(161, 240)\n"
    )
    return str(file)


@pytest.fixture
def loads(monkeypatch):
    """Whether the worker had to load the data itself, for each problem that it opened."""
    calls = []

    def counting(config, parts=None):
        calls.append(parts is None)
        return open_problem(config, parts)

    monkeypatch.setattr(worker, "open_problem", counting)
    return calls


def tensors(parts):
    held = {name: getattr(parts, name).arrays for name in ("train", "val", "test") if getattr(parts, name) is not None}
    return {f"{name} {key}": leaf for name, part in held.items() for key, leaf in (*leaves(part.x), ("y", part.y))}


def memory_files():
    return [link for fd in Path("/proc/self/fd").iterdir() if "memfd:hptune" in (link := _target(fd))]


def _target(fd):
    try:
        return str(fd.readlink())
    except OSError:
        return ""


def mappings(address):
    """The line of this process's memory map that `address` is in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < end:
            return line
    return ""


CONFIGS = {
    "images": lambda code: experiment(data={"name": "digits", "limit": 301}),
    "arrays": own,
    "pairs": lambda code: own(code, data="pairs", model="Two"),
    "dicts": lambda code: own(code, data="dicts", model="Two"),
}


def assert_same(parts, other):
    assert {f.name: getattr(parts, f.name) for f in fields(Parts)[3:]} == {f.name: getattr(other, f.name) for f in fields(Parts)[3:]}
    mine, theirs = tensors(parts), tensors(other)
    assert mine.keys() == theirs.keys()
    for name, leaf in mine.items():
        assert leaf.dtype == theirs[name].dtype
        assert torch.equal(leaf, theirs[name])
    for name in ("train", "val", "test"):
        part = getattr(parts, name)
        assert (part is None) == (getattr(other, name) is None)
        if part is not None:
            at = torch.tensor([0, len(part) - 1])
            (x, y), (other_x, other_y) = part.take(at), getattr(other, name).take(at)
            assert torch.equal(y, other_y)
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(leaves(x), leaves(other_x), strict=True))


@pytest.mark.parametrize("kind", CONFIGS)
def test_attached_parts_equal_the_owners(code, kind):
    problem = open_problem(CONFIGS[kind](code))
    with shared(problem) as (again, handle):
        assert_same(attach(pickle.loads(pickle.dumps(handle))), problem.parts)
        assert_same(again.parts, problem.parts)
        assert again.task == problem.task


def test_every_dtype_is_kept_and_aligned(code):
    def step_free(parts):
        return {name: leaf.data_ptr() % ALIGNMENT for name, leaf in tensors(parts).items()}

    problem = open_problem(own(code))
    from hptune.engine.data import load_parts

    mixed = load_parts(own(code, data="mixed").data, seed=0, device=problem.device)
    with shared(replace(problem, parts=mixed)) as (_, handle):
        attached = attach(handle)
        assert_same(attached, mixed)
        assert {leaf.dtype for leaf in tensors(attached).values()} == {torch.bfloat16, torch.bool, torch.float32}
        assert set(step_free(attached).values()) == {0}


def test_the_memory_is_the_files_and_small_to_send(code):
    problem = open_problem(own(code))
    with shared(problem) as (again, handle):
        for parts in (again.parts, attach(handle)):
            for leaf in tensors(parts).values():
                assert "memfd:hptune data" in mappings(leaf.data_ptr())
        assert "memfd" not in mappings(problem.parts.train.arrays.y.data_ptr())
        assert len(pickle.dumps(handle)) < 4000


def test_the_owners_first_copy_is_freed(code):
    problem = open_problem(own(code))
    first = weakref.ref(problem.parts.train)
    with shared(problem) as (again, _):
        del problem
        gc.collect()
        assert first() is None
        assert len(again.parts.train) == 160


def test_what_one_process_writes_no_other_sees(code):
    with shared(open_problem(own(code))) as (_, handle):
        first, second = attach(handle), attach(handle)
        first.train.arrays.x.fill_(7)
        assert not (second.train.arrays.x == 7).any()


def test_nothing_is_left_after_closing(code):
    with shared(open_problem(own(code))) as (problem, handle):
        assert len(memory_files()) == 1
        kept = attach(handle)
    assert memory_files() == []
    assert attach(handle) is None
    assert torch.equal(kept.train.arrays.y, problem.parts.train.arrays.y), "who has attached keeps the data"


def test_a_descriptor_that_is_anothers_now_is_not_taken_for_ours(code):
    config = own(code)
    with shared(open_problem(config)) as (_, handle):
        size = handle.file[2]
    number = int(handle.path.rpartition("/")[2])
    other = os.memfd_create("other")
    os.ftruncate(other, size)
    if other != number:
        os.dup2(other, number)
        os.close(other)
    try:
        assert attach(handle) is None
        read, write = os.pipe()
        os.dup2(read, number)
        assert attach(handle) is None
        os.close(read)
        os.close(write)
    finally:
        os.close(number)


@pytest.mark.parametrize("data", ["items", "noisy"])
def test_datasets_are_not_shared(code, data):
    problem = open_problem(own(code, data=data))
    with shared(problem) as (again, handle):
        assert again is problem
        assert handle is None


def test_without_memory_files_nothing_is_shared(code, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with shared(open_problem(own(code))) as (_, handle):
        assert handle is None


def test_data_that_do_not_fit_are_not_shared(code, monkeypatch):
    def full(descriptor, *args, **kwargs):
        raise OSError(28, "No space left on device")

    problem = open_problem(own(code))
    monkeypatch.setattr(os, "fdopen", full)
    with shared(problem) as (again, handle):
        assert handle is None
        assert again is problem
    monkeypatch.undo()
    assert memory_files() == []


# ---- in workers


def planned(config):
    spec = spec_of(open_problem(config), steps=6)
    gc.collect()
    return spec


def test_a_trial_on_shared_data_is_the_same_and_loads_nothing(code, loads):
    config = own(code)
    alone = run_trial(open_problem(config), planned(config))
    spec = planned(config)
    with shared(open_problem(config)) as (_, handle):
        gc.collect()
        outcome = perform(pickle.loads(pickle.dumps((config, spec, handle))))
    assert loads == [False]
    assert reproducible(outcome) == reproducible(alone)


def test_variants_of_a_sweep_share_too(code, loads):
    config, wide = experiment(), experiment(model={"name": "mlp", "args": {"hidden": [8]}})
    spec = planned(wide)
    with shared(open_problem(config)) as (_, handle):
        gc.collect()
        assert perform((wide, spec, handle)).record.status == "completed"
    assert loads == [False]


def test_other_data_are_loaded(loads):
    config, other = experiment(), experiment(data={"name": "digits", "limit": 300})
    assert data_key(config) != data_key(other)
    spec = planned(other)
    with shared(open_problem(config)) as (_, handle):
        gc.collect()
        assert perform((other, spec, handle)).record.status == "completed"
    assert loads == [True]


def test_a_stale_handle_means_loading(loads):
    config = experiment()
    spec = planned(config)
    with shared(open_problem(config)) as (_, handle):
        pass
    gc.collect()
    assert perform((config, spec, handle)).record.status == "completed"
    assert loads == [True]


def test_worker_processes_attach_and_give_what_one_process_gives(code):
    config = own(code)
    problem = open_problem(config)
    specs = [spec_of(problem, steps=6, seed=seed) for seed in range(4)]
    expected = [reproducible(run_trial(problem, spec)) for spec in specs]
    with make_executor("process", perform_and_look, workers=2, threads=1) as executor, shared(problem) as (_, handle):
        found = dict(executor.map([(config, spec, handle) for spec in specs]))
    assert [reproducible(found[i][0]) for i in range(4)] == expected
    assert all("memfd:hptune data" in found[i][1] for i in range(4))
    assert multiprocessing.active_children() == []


def perform_and_look(item):
    outcome = perform(item)
    (problem,) = worker._kept.values()
    return outcome, mappings(problem.parts.train.arrays.x.data_ptr())


def test_an_owner_that_is_killed_leaves_nothing(code, tmp_path):
    script = f"""
import os, sys, signal
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_problems import own
from hptune.engine.problem import open_problem
from hptune.engine.sharing import shared
with shared(open_problem(own({code!r}))) as (_, handle):
    print(handle.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert not Path(done.stdout.strip()).exists()
    assert not list(Path("/dev/shm").glob("*hptune*")) if Path("/dev/shm").is_dir() else True


def test_a_session_shares_with_several_workers_and_ends_with_the_records_of_one_process(tmp_path):
    tree = {
        "name": "shared",
        "data": {"name": "digits", "limit": 200},
        "model": {"name": "linear"},
        "device": "cpu",
        "budget": {"epochs": 2, "search_epochs": 1},
        "stages": {"lr_range": {}},
    }
    found = {}
    for name in ("serial", "process"):
        loaded = from_tree({**tree, "executor": {"name": name, "workers": 2}}, tmp_path)
        with open_session(loaded, run_dir=tmp_path / name, fresh=True) as session:
            assert (session._run.leads[session.task.task_id] is not None) is (name == "process")
            assert len(memory_files()) == (name == "process")
            list(session.run(["lr_range"]))
            records = session.journal.state.records
            found[name] = {trial: replace(record, seconds=0.0, worker=0).to_json() for trial, record in records.items()}
        assert memory_files() == []
    assert str(dict(sorted(found["process"].items()))) == str(dict(sorted(found["serial"].items())))
    assert len(found["serial"]) >= 1


@pytest.mark.parametrize(("settings", "training"), [({"name": "process", "workers": 1}, False), ({"name": "process", "workers": 2}, True)])
def test_a_session_whose_data_nobody_else_reads_makes_no_copy(tmp_path, settings, training):
    loaded = from_tree(
        {"name": "alone", "data": {"name": "digits", "limit": 200}, "model": {"name": "linear"}, "device": "cpu", "executor": settings},
        tmp_path,
    )
    with open_session(loaded, run_dir=tmp_path / "run", training=training) as session:
        assert session._run.leads[session.task.task_id] is None
        assert memory_files() == []
