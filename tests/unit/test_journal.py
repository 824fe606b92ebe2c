"""What is appended is what is replayed, whatever a crash, a full disk or another version did to the file."""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hptune.errors import JournalError, LockedError, RunDirectoryError
from hptune.schedules import Schedule
from hptune.store.journal import FORMAT, MINOR, Journal, replay
from hptune.store.layout import RunLayout, hold_lock
from hptune.store.salvage import salvage
from hptune.trial import CurveSummary, Hyperparameters, TrialRecord, TrialSpec

HEADER = json.dumps({"kind": "header", "format": FORMAT, "minor": 0, "hptune": "0.1.0"}) + "\n"
"""Of a journal whose lines have no checksums."""
PLAN = {"stage": "momentum", "knowledge": {"task": "t"}, "trials": ["a", "b"]}


def spec(seed: int = 0) -> TrialSpec:
    return TrialSpec(
        task="t",
        hyperparameters=Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4),
        schedule=Schedule(),
        steps=10,
        seed=seed,
        repetition=0,
        evaluate_at=(5, 10),
    )


def record(seed: int = 0, **values: Any) -> TrialRecord:
    return TrialRecord(spec=spec(seed), **{"status": "completed", "val_loss": 0.5, "metric": 0.9, **values})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a run" / "journal.jsonl"


def filled(path: Path) -> Path:
    with Journal(path) as journal:
        journal.append("plan", PLAN)
        journal.append("trial", record(1).to_json())
        journal.append("trial", record(2, error="Zeile 1\nligne 2 é").to_json())
    return path


def contents(path: Path) -> str:
    """All a replay tells, as text, so that NaN equals NaN."""
    state = replay(path)
    records = {key: state.records[key].to_json() for key in state.records}
    return repr((records, state.plans, state.conclusions, state.calibrations, state.tasks, state.others, state.header))


def test_the_first_line_says_what_the_file_is(path: Path) -> None:
    Journal(path).close()
    header = json.loads(path.read_text())
    assert list(header) == ["kind", "format", "minor", "hptune", "crc"]
    assert (header["kind"], header["format"]) == ("header", 1)
    Journal(path).close()
    assert len(path.read_text().splitlines()) == 1


def test_everything_appended_is_replayed(path: Path) -> None:
    with Journal(path) as journal:
        journal.append("task", {"task_id": "t", "notes": ("a", "b")})
        journal.append("calibration", {"key": "k", "seconds_per_step": math.inf})
        journal.append("plan", PLAN)
        journal.append("conclusion", {"stage": "momentum", "sentence": "0.9 is best"})
        journal.append("clock", {"elapsed": 1.5})
        journal.append("clock", {"elapsed": 2.5})
        journal.append("trial", record().to_json())
        live = journal.state
        for state in (live, replay(path)):
            assert state.tasks == {"t": {"task_id": "t", "notes": ["a", "b"]}}
            assert state.calibrations["k"]["seconds_per_step"] == math.inf
            assert state.plans == {"momentum": PLAN}
            assert state.conclusions["momentum"]["sentence"] == "0.9 is best"
            assert state.others == {"clock": [{"elapsed": 1.5}, {"elapsed": 2.5}]}
            assert list(state.records) == [record().trial_id]
            assert repr(state.records[record().trial_id]) == repr(record())


def test_opened_again_it_goes_on(path: Path) -> None:
    filled(path)
    with Journal(path) as journal:
        assert len(journal.state.records) == 2
        journal.append("trial", record(3).to_json())
    assert len(replay(path).records) == 3


def test_the_first_record_of_a_trial_and_the_latest_plan_of_a_stage_count(path: Path) -> None:
    with Journal(path) as journal:
        for stage, trials in (("lr_range", ["a"]), ("momentum", ["b"]), ("lr_range", ["a", "c"])):
            journal.append("plan", {"stage": stage, "trials": trials})
        journal.append("trial", record(val_loss=0.5).to_json())
        journal.append("trial", record(val_loss=0.7).to_json())
    state = replay(path)
    assert [(stage, plan["trials"]) for stage, plan in state.plans.items()] == [("lr_range", ["a", "c"]), ("momentum", ["b"])]
    assert state.records[record().trial_id].val_loss == 0.5


def test_a_round_adds_to_the_plan_of_its_stage(path: Path) -> None:
    with Journal(path) as journal:
        journal.append("plan", PLAN)
        journal.append("plan", {"stage": "lr_range", "trials": ["x"]})
        for after, trials in ((2, ["c"]), (3, ["d", "e"]), (4, ["f"])):
            journal.append("round", {"stage": "momentum", "after": after, "trials": trials})
    state = replay(path)
    assert state.plans == journal.state.plans
    assert state.plans["momentum"] == {**PLAN, "trials": ["a", "b", "c", "d", "f"]}, "another fifth trial takes the place of the first"
    assert state.plans["lr_range"]["trials"] == ["x"]
    assert PLAN["trials"] == ["a", "b"], "what was appended is not changed"
    with Journal(path.parent / "another.jsonl") as journal:
        journal.append("round", {"stage": "momentum", "after": 2, "trials": ["c"]})
    assert journal.state.plans == {}, "its plan was damaged and left out"


def test_the_stored_id_names_a_record(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(HEADER + json.dumps({"kind": "trial", **record(3).to_json(), "trial_id": "made by another version"}) + "\n")
    assert replay(path).records["made by another version"].spec == spec(3)


def test_a_record_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path) as journal:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
        journal.append("plan", PLAN)
        assert synced == [path.stat().st_size]


floats = st.floats(allow_nan=True, allow_infinity=True)
hostile = st.sampled_from(["\n", "\r", "\x00", "\x1c", "\u0085", "\u2028", "\u2029", "\ud800", "\udcff", '"', "\\"])
pair = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # two lone surrogates that JSON cannot tell from the one character they encode
texts = st.lists(hostile | st.characters(), max_size=20).map("".join).filter(lambda text: not pair.search(text))


@settings(max_examples=60, deadline=None)
@example(val_loss=math.nan, lr=[math.inf, -math.inf], error="a\u2028b\udcff", seed=0)
@given(val_loss=floats, lr=st.lists(floats, max_size=3), error=st.none() | texts, seed=st.integers(0, 2**31))
def test_any_record_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, val_loss: float, lr: list[float], error: str | None, seed: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    written = record(seed, val_loss=val_loss, error=error, curve=CurveSummary(lr=tuple(lr)))
    with Journal(path) as journal:
        journal.append("trial", written.to_json())
        assert repr(journal.state.records[written.trial_id]) == repr(written)
    assert repr(replay(path).records[written.trial_id]) == repr(written)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2, "other readers see other lines"


def test_torn_at_any_byte_the_last_record_is_dropped(path: Path) -> None:
    whole = filled(path).read_bytes()
    before_last = whole.rindex(b"\n", 0, -1) + 1
    path.write_bytes(whole[:before_last])
    expected = contents(path)
    for size in range(before_last, len(whole)):
        path.write_bytes(whole[:size])
        assert contents(path) == expected
        assert path.stat().st_size == size, "replay changed the file"
    for size in (before_last + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        with Journal(path) as journal:
            journal.append("trial", record(2, error="Zeile 1\nligne 2 é").to_json())
        assert path.read_bytes() == whole


@pytest.mark.parametrize("torn", ["", '{"kind": "hea', HEADER[:-1]])
def test_a_journal_that_was_just_begun_begins_again(path: Path, torn: str) -> None:
    path.parent.mkdir()
    path.write_text(torn)
    assert replay(path).header == {}
    with Journal(path) as journal:
        journal.append("plan", PLAN)
    assert replay(path).plans == {"momentum": PLAN}


@pytest.mark.parametrize(
    "damage",
    [
        b"not json\n",
        b"\n",
        b"[1, 2]\n",
        b'"text"\n',
        b"null\n",
        b'{"no": "kind"}\n',
        b'{"kind": 7}\n',
        b'{"kind": "trial"}\n',
        b'{"kind": "trial", "trial_id": ["a"]}\n',
        b'{"kind": "plan", "knowledge": {}}\n',
        b'{"kind": "round", "stage": "momentum", "trials": ["c"]}\n',
        b'{"kind": "round", "stage": "momentum", "after": 2, "trials": 3}\n',
        b'{"kind": "header"}\n',
        b'{"kind": "clock", "x": "\xff"}\n',
        b"\x00\x00\x00\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_line_is_an_error_that_names_it(path: Path, damage: bytes) -> None:
    lines = filled(path).read_bytes().splitlines(keepends=True)
    for after in (lines[2:], []):  # in the middle, and as a complete last line
        path.write_bytes(b"".join([*lines[:2], damage, *after]))
        for open_it in (replay, Journal):
            with pytest.raises(JournalError, match=r"journal\.jsonl, line 3: the line is damaged"):
                open_it(path)


def test_an_incomplete_record_is_an_error_that_names_its_line(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(HEADER + '{"kind": "trial", "trial_id": "x", "spec": {}}\n')
    with pytest.raises(JournalError, match="line 2: this is no complete trial record"):
        replay(path).records["x"]


def test_some_other_file_is_no_journal(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"kind": "plan", "stage": "momentum"}\n')
    with pytest.raises(JournalError, match="line 1: this is not an hptune journal"):
        replay(path)


def test_a_newer_format_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"kind": "header", "format": FORMAT + 1, "hptune": "9.0"}) + "\n")
    for open_it in (replay, Journal):
        with pytest.raises(JournalError, match=r"written by hptune 9\.0 in format 2.*install the newer version"):
            open_it(path)


def test_what_a_newer_minor_version_adds_is_kept(path: Path) -> None:
    newer = record(1).to_json()
    newer["spec"]["numerics"]["new"] = 1
    newer["new"] = {"a": 1}
    path.parent.mkdir()
    lines = [
        {"kind": "header", "format": FORMAT, "minor": 7, "hptune": "1.7", "new": True},
        {"kind": "weather", "sky": "blue"},
        {"kind": "plan", **PLAN, "new": 2},
        {"kind": "trial", **newer},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = replay(path)
    assert state.header["new"] is True
    assert state.others == {"weather": [{"sky": "blue"}]}
    assert state.plans["momentum"]["new"] == 2
    assert state.records[newer["trial_id"]].val_loss == 0.5


def test_a_full_disk_costs_the_record_at_hand_only(path: Path) -> None:
    filled(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        try:
            with pytest.raises(RunDirectoryError, match=r"cannot write .*journal\.jsonl: File too large; make room"):
                journal.append("trial", record(3).to_json())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
        assert record(3).trial_id not in journal.state.records
        journal.append("trial", record(3).to_json())
    assert len(replay(path).records) == 3


def test_where_a_torn_line_cannot_be_taken_back_nothing_is_written_behind_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    with Journal(path) as journal:
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(RunDirectoryError, match="Input/output error"):
            journal.append("plan", PLAN)
        monkeypatch.undo()
        with pytest.raises(RunDirectoryError, match="the journal is closed"):
            journal.append("plan", PLAN)


def test_a_journal_that_cannot_be_cut_is_not_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(path).open("a") as file:
        file.write('{"torn')

    def fail(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(RunDirectoryError, match="Read-only file system"):
        Journal(path)


def test_unreadable_places_get_a_clear_message(path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"is not a run directory: it holds no journal\.jsonl"):
        replay(path)
    path.mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="cannot read"):
        replay(path)
    with pytest.raises(RunDirectoryError, match="cannot write"):
        Journal(path)


@pytest.mark.parametrize("own", ["kind", "crc"])
def test_a_payload_brings_no_kind_and_no_checksum_of_its_own(path: Path, own: str) -> None:
    with Journal(path) as journal, pytest.raises(ValueError, match="no kind and no checksum"):
        journal.append("plan", {own: "trial", **PLAN})
    assert len(path.read_text().splitlines()) == 1


def test_a_checksum_is_that_of_the_line_before_it(path: Path) -> None:
    for line in filled(path).read_bytes().splitlines():
        content, _, checksum = line.rpartition(b', "crc": "')
        assert checksum == b'%08x"}' % zlib.crc32(content)


def test_a_flipped_byte_anywhere_but_in_the_last_line_is_an_error_that_names_its_line(path: Path) -> None:
    whole = filled(path).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    rng = random.Random(0)
    for at in range(last):
        line = whole.count(b"\n", 0, at) + 1
        damaged = bytearray(whole)
        damaged[at] ^= rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        path.write_bytes(damaged)
        if line == 1 and json_header(damaged).get("minor", 0) > MINOR:
            continue  # a newer minor version: it is read, and nothing in it is decided by that number
        with pytest.raises(JournalError, match=rf"line {line}: "):
            list(replay(path).records.values())


def json_header(journal: bytes) -> dict[str, Any]:
    try:
        header = json.loads(journal.partition(b"\n")[0])
    except ValueError:
        return {}
    return header if isinstance(header, dict) and isinstance(header.get("minor", 0), int) else {}


def test_a_line_of_ours_whose_checksum_is_gone_is_damaged_and_a_later_versions_kind_is_not(path: Path) -> None:
    with filled(path).open("a") as file:
        file.write('{"kind": "weather", "sky": "blue"}\n')
    assert replay(path).others["weather"] == [{"sky": "blue"}]
    with path.open("a") as file:
        file.write('{"kind": "clock", "elapsed": 1.0}\n')
    with pytest.raises(JournalError, match="line 6: the line is damaged"):
        replay(path)


def test_a_journal_without_checksums_is_read_and_goes_on_with_them(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(HEADER + json.dumps({"kind": "trial", **record(1).to_json()}) + "\n")
    with Journal(path) as journal:
        journal.append("trial", record(2).to_json())
    assert list(replay(path).records) == [record(1).trial_id, record(2).trial_id]
    path.write_bytes(path.read_bytes().replace(b'"metric": 0.9, "best_val_loss": NaN', b'"metric": 0.8, "best_val_loss": NaN'))
    with pytest.raises(JournalError, match="line 3: the line is damaged"):
        replay(path)


def flip(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(lines[line - 1]) * 2 // 3  # in the header no digit of its minor version
    lines[line - 1] = lines[line - 1][:at] + bytes([lines[line - 1][at] ^ 1]) + lines[line - 1][at + 1 :]
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("damaged", [(1,), (2,), (3,), (4,), (1, 3), (2, 4)])
def test_salvage_leaves_damaged_lines_out_and_keeps_the_damaged_file(path: Path, damaged: tuple[int, ...]) -> None:
    state = replay(filled(path))
    for line in damaged:
        flip(path, line)
    broken = path.read_bytes()
    found = salvage(RunLayout(path.parent))
    assert found.lines == damaged
    assert found.kept is not None
    assert found.kept.read_bytes() == broken
    after = replay(path)
    assert len(after.plans) == (2 not in damaged)
    assert list(after.records) == [trial for line, trial in zip((3, 4), state.records, strict=True) if line not in damaged]
    with Journal(path) as journal:
        journal.append("plan", PLAN)
        for seed, error in ((1, None), (2, "Zeile 1\nligne 2 é")):
            journal.append("trial", record(seed, error=error).to_json())
    again = replay(path)
    assert sorted(again.records) == sorted(state.records)
    assert again.plans == state.plans
    assert again.header["format"] == state.header["format"]


def test_salvage_of_a_journal_without_checksums_whose_header_is_gone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{damaged\n" + json.dumps({"kind": "trial", **record(1).to_json()}) + "\n[]\n")
    assert salvage(RunLayout(path.parent)).lines == (1, 3)
    assert list(replay(path).records) == [record(1).trial_id]


def test_salvage_of_an_intact_journal_changes_nothing(path: Path) -> None:
    before = filled(path).read_bytes()
    assert salvage(RunLayout(path.parent)).kept is None
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith("journal")] == [path.name]


def test_each_damaged_journal_is_kept_under_a_name_of_its_own(path: Path) -> None:
    filled(path)
    for number, line in ((1, 4), (2, 3)):
        flip(path, line)
        kept = salvage(RunLayout(path.parent)).kept
        assert kept is not None
        assert kept.name == f"journal.damaged-{number}.jsonl"


def test_where_nothing_is_intact_nothing_is_salvaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"<html>\n" * 3)
    with pytest.raises(JournalError, match="no line of it is intact"):
        salvage(RunLayout(path.parent))
    assert path.read_bytes() == b"<html>\n" * 3


def test_a_run_that_is_being_written_is_not_salvaged(path: Path) -> None:
    flip(filled(path), 3)
    with hold_lock(RunLayout(path.parent)), pytest.raises(LockedError):
        salvage(RunLayout(path.parent))


def test_a_trial_whose_text_looks_like_json_is_read_all_the_same(path: Path) -> None:
    odd = record(1, error='he said "{[" and \\ left')
    with Journal(path) as journal:
        journal.append("trial", odd.to_json())
    assert replay(path).records[odd.trial_id].error == odd.error
