"""Runs on a Ray cluster of two nodes, and what becomes of them when nodes, workers and drivers are lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import hptune, lasting, start, trials, wait_for_trials

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
PATIENCE = 90.0

OWN = """
name: own
data: {target: "mine.py:load", args: {marks: MARKS}}
model: {target: "mine.py:Net", args: {width: 12, marks: MARKS}}
baseline: {lr: 0.02, batch_size: 32}
budget: {epochs: 6, search_epochs: 2}
seeds: 3
stages:
  batch_size: off
  momentum: {values: [0.95, 0.9]}
  weight_decay: {values: [1e-2, 1e-4], bisect: false}
  refine: off
  confirm: {seeds: 3, finalists: 1}
device: cpu
executor: {name: serial}
"""
MINE = """
import os, sys, time
from pathlib import Path
import torch
from helper import WORD

def load(marks):
    Path(marks, f"load {os.getpid()}").touch()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 5, generator=g)
    return (x[:400], (x[:400].sum(1) > 0).long()), (x[400:], (x[400:].sum(1) > 0).long())

class Net(torch.nn.Module):
    def __init__(self, width, marks):
        super().__init__()
        self.slow = Path(marks, "slow").exists()
        Path(marks, f"net {os.getpid()}").write_text(str(Path(__file__).resolve()))
        assert Path(__file__).with_name("word.txt").read_text() == WORD
        self.f = torch.nn.Sequential(torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
    def forward(self, x):
        if self.training and self.slow:
            time.sleep(0.01)
        return self.f(x)
"""


class Nodes:
    """A cluster whose nodes can be taken away."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.second = self.cluster.add_node(num_cpus=1)

    def replace_second(self, *, graceful: bool) -> None:
        self.cluster.remove_node(self.second, allow_graceful=graceful)
        self.second = self.cluster.add_node(num_cpus=1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ray's own
        nodes = Nodes()
        yield nodes
        nodes.cluster.shutdown()


@pytest.fixture
def own(tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, its code, a small file beside it, and a folder for the marks it leaves."""
    folder = tmp_path / "own code"
    (folder / "marks").mkdir(parents=True)
    (folder / "c.yaml").write_text(OWN.replace("MARKS", json.dumps(str(folder / "marks"))))
    (folder / "mine.py").write_text(MINE)
    (folder / "helper.py").write_text("WORD = 'said'\n")
    (folder / "word.txt").write_text("said")
    monkeypatch.setenv("RAY_ADDRESS", nodes.cluster.address)
    return folder


def free(nodes: Nodes) -> float:
    """CPUs of the cluster that nobody has."""
    code = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR'); print(ray.available_resources().get('CPU', 0))"
    command = [sys.executable, "-W", "ignore", "-c", code, nodes.cluster.address]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def test_it_ends_as_one_process_does_and_workers_need_no_file_of_the_driver(own: Path) -> None:
    hptune(own, "run", "c.yaml", "--run-dir", "one")
    for mark in (own / "marks").iterdir():
        mark.unlink()
    (own / "marks" / "slow").touch()
    hptune(own, "run", "c.yaml", "--run-dir", "two", "--executor", "ray")
    assert lasting(own / "two") == lasting(own / "one")
    marks = list((own / "marks").iterdir())
    assert len([mark for mark in marks if mark.name.startswith("load")]) == 1, "workers loaded the data"
    nets = [mark for mark in marks if mark.name.startswith("net")]
    assert len({record["worker"] for record in trials(own / "two")}) == 2
    assert len(nets) >= 2
    assert not any(Path(mark.read_text()).is_relative_to(own) for mark in nets), "workers read the driver's files"


@pytest.mark.parametrize("graceful", [True, False])
def test_lost_nodes_cost_attempts_and_nothing_else(own: Path, nodes: Nodes, graceful: bool) -> None:
    hptune(own, "run", "c.yaml", "--run-dir", "one")
    (own / "marks" / "slow").touch()
    process = start(own, "run", "c.yaml", "--run-dir", "two", "--executor", "ray")
    for lost in range(5):
        wait_for_trials(own / "two", 3 * lost + 2, process)
        assert process.poll() is None, "it ended before a node was lost"
        nodes.replace_second(graceful=graceful)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err or out
    assert lasting(own / "two") == lasting(own / "one")
    assert "failed" not in {record["status"] for record in trials(own / "two")}
    assert "is gone" in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_lost_driver_lets_go_of_the_cluster_and_continues(own: Path, nodes: Nodes, number: signal.Signals) -> None:
    hptune(own, "run", "c.yaml", "--run-dir", "one")
    (own / "marks" / "slow").touch()
    process = start(own, "run", "c.yaml", "--run-dir", "two", "--executor", "ray")
    wait_for_trials(own / "two", 4, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "hptune run c.yaml" in err
    deadline = time.monotonic() + PATIENCE
    while free(nodes) < 2:
        assert time.monotonic() < deadline, "workers keep the cluster"
    before = trials(own / "two")
    (own / "marks" / "slow").unlink()
    hptune(own, "run", "c.yaml", "--run-dir", "two", "--executor", "ray")
    assert trials(own / "two")[: len(before)] == before
    assert lasting(own / "two") == lasting(own / "one")


def test_mistakes_are_told_by_their_places_at_home(own: Path) -> None:
    code = (own / "mine.py").read_text()
    (own / "mine.py").write_text(code.replace("super().__init__()", "super().__init__(); 1 / 0"))
    _, err = hptune(own, "run", "c.yaml", "--executor", "ray", status=2)
    line = 1 + code[: code.index("super()")].count("\n")
    assert f"{own / 'mine.py'}:{line}: your code raised ZeroDivisionError" in err


def test_there_must_be_a_cluster_where_one_is_named(own: Path) -> None:
    _, err = hptune(own, "lr-range", "c.yaml", "--executor", "ray", "--set", "executor.address=127.0.0.1:1", status=2)
    assert "executor.address: there is no Ray cluster at 127.0.0.1:1" in err


def test_code_that_only_a_variant_needs_travels_too(own: Path) -> None:
    (own / "wide.py").write_text(MINE.replace("width, 2)", "width, 2, bias=False)"))
    values = f"{own / 'mine.py'}:Net,{own / 'wide.py'}:Net"
    hptune(own, "sweep", "model.target", "c.yaml", "--values", values, "--seeds", "1", "--run-dir", "two", "--executor", "ray")
    assert {record["status"] for record in trials(own / "two")} == {"completed"}
    assert len(trials(own / "two")) == 2
    nets = [Path(mark.read_text()) for mark in (own / "marks").iterdir() if mark.name.startswith("net")]
    assert not any(net.is_relative_to(own) for net in nets)
