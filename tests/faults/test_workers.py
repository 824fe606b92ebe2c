"""Workers that die or hang in the middle of a search: each costs its trial, and the search goes on.

The other ways to end are in the contract of the executors.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from outside import TINY, rows, start, trials, wait_until_gone

ENDING = """
import ctypes
import multiprocessing
import threading

import torch

class Net(torch.nn.Module):
    def __init__(self, end="well"):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.end, self.steps = end, 0

    def forward(self, x):
        self.steps += self.training
        if multiprocessing.parent_process() is not None and self.steps == 5:
            if self.end == "crash":
                ctypes.string_at(0)
            if self.end == "hang":
                threading.Event().wait()
        return self.layer(x.flatten(1))
"""
ENDS = {
    "crash": "SIGSEGV",
    "hang": "no sign of life for",
}


@pytest.mark.slow
def test_every_way_for_a_worker_to_end_costs_its_own_trials_only(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(ENDING)
    (tmp_path / "c.yaml").write_text(TINY.replace("{name: mlp, args: {hidden: [16]}}", '{target: "net.py:Net"}'))
    values = ",".join(["well", *ENDS])
    options = ("--executor", "process", "--workers", 2, "--set", "executor.heartbeat=6s", "--set", "seeds=1", "--run-dir", "run")
    process = start(tmp_path, "sweep", "model.args.end", "c.yaml", "--values", values, *options)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    wait_until_gone(process.pid)
    table = {row["end"]: row for row in rows(tmp_path / "run" / "tables" / "model.args.end.csv")}
    assert {end: row["verdict"] for end, row in table.items()} == {"well": "best"} | dict.fromkeys(ENDS, "failed")
    reasons = " | ".join(str(trial["error"]) for trial in trials(tmp_path / "run"))
    for reason in ENDS.values():
        assert reason in reasons
    assert reasons.count("it cost two worker processes") == len(ENDS)
