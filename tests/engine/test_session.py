"""Trials of a session that no stage has planned, and speeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hptune.config.loader import from_tree
from hptune.knowledge import Progress, stage_knowledge
from hptune.session import Session, open_session

TREE = {
    "name": "asked",
    "data": {"name": "digits", "limit": 200},
    "model": {"name": "linear"},
    "device": "cpu",
    "executor": {"name": "serial"},
    "budget": {"epochs": 1, "search_epochs": 1},
}


@contextmanager
def session_in(folder: Path) -> Iterator[Session]:
    with open_session(from_tree(TREE, folder), run_dir=folder / "run") as session:
        yield session


def specs_of(session: Session, rates: list[float]):
    knowledge = stage_knowledge("lr_range", session.experiment, session.task, Progress(), settings={})
    return [knowledge.short_run(knowledge.baseline.but(lr=lr)) for lr in rates]


def test_trials_that_are_known_are_not_run_again(tmp_path):
    with session_in(tmp_path) as session:
        specs = specs_of(session, [0.1, 0.2, 0.1])
        first = list(session.trials(specs))
        assert [record.trial_id for record in first] == [spec.trial_id for spec in specs[:2]]
        assert all(record.usable for record in first)
    with session_in(tmp_path) as session:
        more = specs_of(session, [0.1, 0.2, 0.3])
        assert [record.trial_id for record in session.trials(more)] == [more[2].trial_id]
        assert session.journal.state.records.keys() >= {spec.trial_id for spec in more}
        assert not session.journal.state.plans


def test_speeds_are_measured_once(tmp_path, monkeypatch):
    with session_in(tmp_path) as session:
        speeds = dict(session.speeds([16, 32]))
        assert speeds[64] == 1.0  # the baseline's own
        assert set(speeds) == {16, 32, 64}
        assert all(speed > 0 for speed in speeds.values())
    with session_in(tmp_path) as session:
        monkeypatch.setattr(session.crew.executor, "map", lambda items: pytest.fail("measured again"))
        assert dict(session.speeds([16, 32])) == speeds
