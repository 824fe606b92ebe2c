"""The program from outside: a process that is started, watched, stopped, and what it leaves on disk."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from hptune.cli.schemas import DOCUMENTS

TINY = """
name: tiny
data: {name: digits, limit: 400}
model: {name: mlp, args: {hidden: [16]}}
baseline: {lr: 0.02, batch_size: 32}
budget: {epochs: 3, search_epochs: 1}
stages:
  batch_size: {values: [32, 64], compare: samples}
  momentum: {values: [0.95, 0.9]}
  weight_decay: {values: [1e-2, 1e-4], bisect: false}
  refine: {trials: 2}
  confirm: {seeds: 3, finalists: 1}
device: cpu
executor: {name: serial}
"""


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hptune", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def hptune(folder: Path, *arguments: object, status: int = 0) -> tuple[str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err or out
    assert "Traceback" not in err + out
    return out, err


def hold(text: str, name: str) -> Any:
    """The document that `text` is; fail where it is not what the schema called `name` says, or no strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    Draft202012Validator(DOCUMENTS[name][1]).validate(document)
    return document


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def lasting(run: Path) -> dict[str, object]:
    """What no interruption, worker or order may change."""
    timing = ("seconds", "samples_per_second")
    tables = {
        path.relative_to(run).as_posix(): [{k: v for k, v in row.items() if k not in timing} for row in rows(path)]
        for folder in ("tables", "curves")
        for path in sorted((run / folder).glob("*.csv"))
    }
    return {**tables, "recommended.yaml": (run / "recommended.yaml").read_text()}


def trials(run: Path) -> list[dict[str, object]]:
    return [r for r in map(json.loads, (run / "journal.jsonl").read_text().splitlines()) if r["kind"] == "trial"]


def wait_for_trials(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    journal = run / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b'"kind": "trial"') >= count):
        time.sleep(0.01)
    assert process.poll() is None, f"the run ended before it could be stopped: {process.communicate()}"


def members(group: int) -> list[int]:
    """Processes of a process group that are alive, zombies that nobody has collected included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[2]) == group:
            found.append(int(stat.parent.name))
    return found


def wait_until_gone(group: int, seconds: float = 20.0) -> None:
    """Return once no process of the group is left; fail where one stays."""
    deadline = time.monotonic() + seconds
    while left := members(group):
        assert time.monotonic() < deadline, f"left over: {[(pid, command_of(pid)) for pid in left]}"
        time.sleep(0.02)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
