"""What --json prints, held to its schemas: a key that is added, renamed or lost fails here.

Commands that need torch are held to theirs where they are tested from outside.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Hptune
from jsonschema import Draft202012Validator
from outside import hold
from test_search_commands import strict

from hptune.cli.schema_parts import listed
from hptune.cli.schemas import DOCUMENTS, ROW
from hptune.cli.topics import TOPICS


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_schemas_are_schemas_and_their_objects_closed(name: str) -> None:
    schema = DOCUMENTS[name][1]
    Draft202012Validator.check_schema(schema)
    for found in objects(schema):
        assert found["required"] == list(found["properties"])
        assert found["additionalProperties"] is False or found["properties"] == ROW["properties"], "rows hold swept values as well"
    assert all(says and kind for _, kind, says in listed(schema))


@pytest.mark.usefixtures("engine", "no_report")
def test_commands_that_search(hptune: Hptune) -> None:
    for command in (["lr-range", "c.yaml"], ["sweep", "schedule.lr_ratio", "c.yaml", "--values", "5,20"], ["run", "c.yaml"]):
        found = hold(hptune(*command, "--json").out, "run")
    assert len(found["stages"]) == 7
    assert found["recommendation"] is not None


def test_commands_that_read(hptune: Hptune, run_dir: Path, project: Path) -> None:
    shutil.copytree(run_dir, project / "runs" / "again")
    (project / "runs" / "broken").mkdir()
    (project / "runs" / "broken" / "journal.jsonl").write_text("no\njournal\n")
    cut = (run_dir / "journal.jsonl").read_bytes().splitlines(keepends=True)[:9]
    shutil.copytree(run_dir, project / "runs" / "cut")
    (project / "runs" / "cut" / "journal.jsonl").write_bytes(b"".join(cut))
    shutil.copytree(run_dir, project / "runs" / "empty")
    (project / "runs" / "empty" / "journal.jsonl").write_bytes(cut[0])
    for name in ("made up", "cut", "empty"):
        hold(hptune("show", f"runs/{name}", "--json").out, "run")
        hold(hptune("watch", f"runs/{name}", "--once", "--json").out, "standing")
    hold(hptune("recommend", "c.yaml", "--json").out, "run")
    hold(hptune("compare", run_dir, "runs/again", "runs/cut", "runs/empty", "--json").out, "comparison")
    states = {row["state"] for row in hold(hptune("runs", "--json").out, "runs")}
    assert states == {"finished", "unfinished", "empty", "unreadable"}


def test_where_a_run_stands(hptune: Hptune, run_dir: Path) -> None:
    found = strict(hptune("watch", run_dir, "--once", "--json").out)
    assert (found["stage"], found["stages_concluded"], found["held_by"]) == ("confirm", 6, None)
    assert found["best"]["val_loss_low"] < found["best"]["val_loss"] < found["best"]["val_loss_high"]
    assert len(found["findings"]) == 6
    answer = hptune("watch", run_dir, "--json")
    assert (answer.status, answer.out, "--once" in answer.err) == (2, "", True)


def test_explain(hptune: Hptune) -> None:
    hold(hptune("explain", "--json").out, "topics")
    assert hold(hptune("explain", "momentum", "--json").out, "topic")["schemas"] == {}
    found = hold(hptune("explain", "json", "--json").out, "topic")["schemas"]
    assert found == json.loads(json.dumps({name: schema for name, (_, schema) in DOCUMENTS.items()}))


def test_every_key_is_listed_for_readers() -> None:
    text = TOPICS["json"].text()
    for line in (
        "  recommendation.hyperparameters.lr: number; maximum learning rate",
        "  stages.NAME.table[].NAME: number or text or true or false or null; a swept value",
        "  settings.NAME: array; one value a run",
    ):
        assert line in text
    assert all(f"\nhptune {commands}: " in text for commands, _ in DOCUMENTS.values())


def test_a_key_too_many_or_too_few_is_noticed(hptune: Hptune, run_dir: Path) -> None:
    document = strict(hptune("show", run_dir, "--json").out)
    schema = Draft202012Validator(DOCUMENTS["run"][1])
    assert schema.is_valid(document)
    assert not schema.is_valid({**document, "new": 1})
    assert not schema.is_valid({key: value for key, value in document.items() if key != "notes"})
    document["stages"]["momentum"]["table"][0].pop("clue")
    assert not schema.is_valid(document)
