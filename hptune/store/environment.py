"""environment.json: with what, on what and by which command lines a run was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hptune.confidential import hide_in_command, hide_values
from hptune.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "optuna", "pydantic")


def describe_environment(path: Path, *, command: Sequence[str], directory: Path, seed: int, device: Mapping[str, Any]) -> str:
    """Return the text of environment.json at `path` as of now: `command` joins the command lines that the file holds already.

    `directory`: where the config lies, for the git commit. `device`: what the engine says about it, as JSON values. Values named
    like secrets are hidden.
    """
    commit = git_commit(directory)
    invocation = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": hide_values(hide_in_command(command), os.environ),
        "hptune": __version__,
        "git_commit": commit,
    }
    content = {
        "versions": {"hptune": __version__, "python": platform.python_version(), **package_versions()},
        "platform": platform.platform(),
        "cpu": {"model": cpu_model(), "cores": os.cpu_count()},
        "device": dict(device),
        "git_commit": commit,
        "seed": seed,
        "invocations": [*_earlier_invocations(path), invocation],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that can change a result, without importing them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(directory: Path) -> str | None:
    """Return the commit checked out in `directory`, with `-dirty` where tracked files differ; None where there is none to know."""
    command = ["git", "-c", "core.fsmonitor=false", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cpu_model() -> str:
    """Return the CPU's name as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _earlier_invocations(path: Path) -> list[Any]:
    """What the file holds already; a missing or damaged one holds nothing, since nothing is decided from it."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))["invocations"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return earlier if isinstance(earlier, list) else []
