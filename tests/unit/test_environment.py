"""environment.json: what it holds, and what it must not hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hptune.confidential import as_variables, hide_in_command, hide_values
from hptune.store.environment import describe_environment, git_commit


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["run", "c.yaml", "--set", "data.args.token=abc"], ["run", "c.yaml", "--set", "data.args.token=***"]),
        (["run", "--set=data.args.api_key=a=b"], ["run", "--set=data.args.api_key=***"]),
        (["run", "--token", "abc", "c.yaml"], ["run", "--token", "***", "c.yaml"]),
        (["run", "--password=abc"], ["run", "--password=***"]),
        (["run", "--token", "--json"], ["run", "--token", "--json"]),
        (["--set", "data.args.DB_PASSWD=x", "--set", "a.Secret.b=y"], ["--set", "data.args.DB_PASSWD=***", "--set", "a.Secret.b=***"]),
        (["--set", "data.args={url: u, apikey: abc}"], ["--set", "data.args=***"]),
        (["--set", 'data.args={"credentials": "abc"}'], ["--set", "data.args=***"]),
        (["--set", "seed=1", "--set", "data.root=${MY_TOKEN}"], ["--set", "seed=1", "--set", "data.root=${MY_TOKEN}"]),
        (["sweep", "model.args.width", "c.yaml", "--values", "1,2"], ["sweep", "model.args.width", "c.yaml", "--values", "1,2"]),
        (["run", "secret project/c.yaml", "--quiet"], ["run", "secret project/c.yaml", "--quiet"]),
        ([], []),
    ],
)
def test_values_named_like_secrets_are_hidden(command: list[str], shown: list[str]) -> None:
    assert hide_in_command(command) == shown


def test_what_a_secret_variable_holds_is_hidden_wherever_it_stands() -> None:
    environment = {"MY_TOKEN": "abcdefgh", "LONGER_TOKEN": "abcdefgh-ij", "TOKENIZERS_PARALLELISM": "false", "HOME": "/home/me"}
    value = {"a": ["x abcdefgh-ij y abcdefgh", 1, None], "false": "/home/me false"}
    assert hide_values(value, environment) == {"a": ["x *** y ***", 1, None], "false": "/home/me false"}
    assert as_variables("abcdefgh-ij/abcdefgh", environment) == "${LONGER_TOKEN}/${MY_TOKEN}"


def test_it_says_with_what_on_what_and_how(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    text = describe_environment(path, command=["run", "--token", "abc"], directory=tmp_path, seed=7, device={"device": "cpu"})
    content = json.loads(text)
    assert content["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"hptune", "numpy", "torch"} <= set(content["versions"])
    assert content["seed"] == 7
    assert content["device"] == {"device": "cpu"}
    assert content["cpu"]["model"]
    assert [i["command"] for i in content["invocations"]] == [["run", "--token", "***"]]


def test_each_invocation_is_added(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    for seed in (1, 2):
        path.write_text(describe_environment(path, command=["run", str(seed)], directory=tmp_path, seed=seed, device={}))
    content = json.loads(path.read_text())
    assert content["seed"] == 2
    assert [i["command"] for i in content["invocations"]] == [["run", "1"], ["run", "2"]]


@pytest.mark.parametrize(
    "damage", ["", "{torn", "[]", '{"invocations": 3}', "\xff", "[" * 100_000, '{"a": ' * 5000, "9" * 5000, "\0" * 100]
)
def test_a_damaged_file_is_begun_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "environment.json"
    path.write_bytes(damage.encode("latin-1"))
    content = json.loads(describe_environment(path, command=["run"], directory=tmp_path, seed=0, device={}))
    assert [i["command"] for i in content["invocations"]] == [["run"]]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_of_the_configs_directory(tmp_path: Path) -> None:
    assert git_commit(tmp_path / "nowhere") is None
    directory = tmp_path / "my configs"
    directory.mkdir()
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], cwd=directory, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=directory, check=True, capture_output=True, text=True).stdout.strip()
    assert git_commit(directory) == head
    (directory / "c.yaml").write_text("a: 1")
    subprocess.run(["git", "add", "c.yaml"], cwd=directory, check=True)
    assert git_commit(directory) == f"{head}-dirty"


def test_reading_and_writing_a_run_directory_needs_no_torch() -> None:
    code = (
        "import sys, hptune.store.environment, hptune.store.journal, hptune.store.layout, hptune.executors; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
