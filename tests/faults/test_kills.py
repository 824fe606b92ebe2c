"""Killed at any moment, a run ends with the tables, the recommendation and the curves it would have had; a training, with its bits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from outside import command_of, hptune, lasting, members, rows, start, trials, wait_for_trials, wait_until_gone

from hptune.store.journal import replay

AFTER_THE_LAST_LINE = 3.0  # seconds: about as long as tables, figures and the report take
TRAINING = """
name: training
data: {name: digits, limit: 400, augment: [crop:1]}
model: {name: mlp, args: {hidden: [16], dropout: 0.2}}
baseline: {lr: 0.02, batch_size: 32}
budget: {epochs: 300, search_epochs: 1}
device: cpu
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training that was never stopped and the config of it."""
    folder = tmp_path_factory.mktemp("never stopped")
    (folder / "c.yaml").write_text(TRAINING)
    hptune(folder, "train", "c.yaml", "--quiet")
    return folder


def lines(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def holder(run: Path) -> int | None:
    """The process that writes the run."""
    try:
        pid: int = json.loads((run / ".lock-holder.json").read_text())["pid"]
    except (OSError, ValueError):
        return None
    return pid


def steps_saved(run: Path) -> int:
    return max((int(path.stem.rpartition("-")[2]) for path in (run / "checkpoints").glob("*-*.pt")), default=0)


def stopped_at(process: subprocess.Popen[str], reached: Callable[[], bool], pause: float, how: str) -> bool:
    """Stop it as `how` says once `reached` does and a `pause` has passed; False where the process ended before.

    `how` is a signal's name, or `SIGKILL alone` for the driver without its workers. Nothing of the process group may remain; after any
    other signal than SIGKILL the exit status is 130, with the command that continues.
    """
    while process.poll() is None and not reached():
        time.sleep(0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        _, err = process.communicate(timeout=pause)
        assert process.returncode == 0, err
        return False
    if how == "SIGKILL":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.Signals[how.removesuffix(" alone")])
    _, err = process.communicate(timeout=60)
    wait_until_gone(process.pid)
    if "KILL" not in how:
        assert process.returncode == 130, err
        words = [str(word) for word in process.args[1:]]
        assert f"Continue with:\n  {shlex.join([process.args[0], *words])}" in err
        assert "Traceback" not in err
    return True


def stop_run(folder: Path, name: str, stops: Sequence[str], rng: random.Random, *options: object) -> int:
    """Stop a run of the config again and again, at points all over it, then let it end; return how many stops it survived."""
    run, total = folder / name, lines(folder / "runs" / "tiny")
    command = ("run", "c.yaml", "--run-dir", name, "--quiet", *options)
    done = 0
    for point, how in zip(sorted(rng.randint(0, total) for _ in stops), stops, strict=True):
        process = start(folder, *command)

        def reached(point: int = point, how: str = how, pid: int = process.pid) -> bool:
            begun = holder(run) == pid or (point == 0 and how == "SIGKILL")  # any other signal would end what cannot hear it yet
            return begun and lines(run) >= point

        done += stopped_at(process, reached, rng.uniform(0, AFTER_THE_LAST_LINE if point in (0, total) else 0.3), how)
        if (run / "journal.jsonl").exists():
            replay(run / "journal.jsonl")
    hptune(folder, *command)
    assert lasting(run) == lasting(folder / "runs" / "tiny")
    ids = [trial["trial_id"] for trial in trials(run)]
    assert len(ids) == len(set(ids)) == len(trials(folder / "runs" / "tiny")), "a trial was recorded twice, or one too many"
    assert not list(run.rglob(".*.tmp")), "temporary files stay"
    return done


def stop_training(folder: Path, name: str, stops: Sequence[str], rng: random.Random) -> int:
    """The same for a training; the points are shares of its steps. A signal that can be heard costs no step."""
    reference, run = folder / "runs" / "training", folder / name
    total = steps_saved(reference)
    command = ("train", "c.yaml", "--run-dir", name)
    done = 0
    for point, how in zip(sorted(rng.uniform(0.02, 0.9) for _ in stops), stops, strict=True):
        process = start(folder, *command)

        def reached(point: float = point, pid: int = process.pid) -> bool:
            return holder(run) == pid and steps_saved(run) >= point * total

        done += stopped_at(process, reached, rng.uniform(0, 0.2), how)
    saved = steps_saved(run)
    out, _ = hptune(folder, *command)
    assert saved in (0, total) or f"continuing after step {saved} of {total}" in out
    ours, theirs = (torch.load(path / "checkpoints" / "weights.pt", weights_only=True) for path in (run, reference))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    (record,), (expected,) = (trials(path) for path in (run, reference))
    assert reproducible(record) == reproducible(expected)
    curve = f"curves/{expected['trial_id']}.csv"
    assert rows(run / curve) == rows(reference / curve)
    assert len(list((run / "checkpoints").glob("*-*.pt"))) <= 2
    return done


def reproducible(record: dict[str, object]) -> dict[str, str]:
    """As text, so that NaN equals NaN."""
    return {key: repr(value) for key, value in record.items() if key not in ("seconds", "worker", "crc")}


def test_a_run_of_two_workers_stopped_in_every_way_ends_as_if_it_had_not_been(tiny_run: Path) -> None:
    stops = ["SIGTERM", "SIGKILL"]
    assert stop_run(tiny_run, "stopped", stops, random.Random(3), "--executor", "process", "--workers", 2) == len(stops)
    assert len({trial["worker"] for trial in trials(tiny_run / "stopped")}) >= 2


def test_a_training_stopped_in_every_way_ends_with_the_same_bits(trained: Path) -> None:
    stops = ["SIGINT", "SIGKILL", "SIGHUP"]
    assert stop_training(trained, "stopped", stops, random.Random(1)) == len(stops)


def kills(rng: random.Random) -> list[str]:
    return [rng.choice(["SIGKILL", "SIGKILL", "SIGKILL alone"]) for _ in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_runs_killed_all_over_end_as_if_they_had_not_been(tiny_run: Path, seed: int) -> None:
    rng = random.Random(seed)
    options = ("--executor", "process", "--workers", 2) if seed % 2 else ()
    survived = stop_run(tiny_run, f"killed {seed}", kills(rng), rng, *options)
    print(f"run {seed}: {survived} of 10 kills, then the same end")
    assert survived >= 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_trainings_killed_all_over_end_with_the_same_bits(trained: Path, seed: int) -> None:
    rng = random.Random(seed)
    survived = stop_training(trained, f"killed {seed}", kills(rng), rng)
    print(f"training {seed}: {survived} of 10 kills, then the same bits")
    assert survived >= 8


def test_a_driver_that_is_killed_alone_leaves_no_process_and_no_shared_memory(trained: Path) -> None:
    (trained / "own.py").write_text(OWN_DATA)
    config = TRAINING.replace("{name: digits, limit: 400, augment: [crop:1]}", '{name: custom, target: "own.py:make", workers: 2}')
    (trained / "own.yaml").write_text(config.replace("epochs: 300", "epochs: 3"))
    before = shared_memory()
    run = trained / "alone"
    process = start(trained, "run", "own.yaml", "--run-dir", run.name, "--executor", "process", "--workers", 2)
    wait_for_trials(run, 1, process)
    deadline = time.monotonic() + 30
    while len(members(process.pid)) < 5:  # itself, two workers, and at least one pair of processes that read data
        assert time.monotonic() < deadline, [command_of(pid) for pid in members(process.pid)]
        time.sleep(0.002)
    process.kill()
    process.communicate()
    wait_until_gone(process.pid)
    assert shared_memory() <= before


OWN_DATA = """
import torch
from torch.utils.data import Dataset

class Squares(Dataset):
    def __init__(self, seed):
        self.x = torch.randn(400, 8, generator=torch.Generator().manual_seed(seed))
    def __len__(self):
        return len(self.x)
    def __getitem__(self, index):
        return self.x[index], int(self.x[index].sum() > 0)

def make():
    return Squares(0), Squares(1)
"""


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").is_dir() else set()
