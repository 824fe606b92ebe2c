"""Idle workers run trials ahead of the plan, and nobody can tell from what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from surfaces import TASK, Surface, experiment

from hptune.config.schema import Experiment
from hptune.executors.base import Failure
from hptune.knowledge import enabled_stages
from hptune.pipeline import run_stage, run_stages
from hptune.running import Remark, Run, TrialDone
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout
from hptune.trial import Calibration, CalibrationRequest, Curve, TrialOutcome, TrialRecord
from scaling.executor import Clock, SimulatedExecutor


class Workers(SimulatedExecutor):
    """Workers in virtual time that take as long as a trial has samples; what is `spoiled` comes to nothing while it is not wanted."""

    def __init__(self, workers: int, spoiled: Any = None) -> None:
        super().__init__(workers, Clock(real=lambda: 0.0), self._train)
        self.asked: list[str] = []
        self._spoiled, self._ahead = spoiled, set[str]()

    def submit(self, item: Any, *, spare: bool = False) -> int:
        if spare:
            self._ahead.add(item[1].trial_id)
        elif isinstance(item[1], CalibrationRequest) is False:
            self._ahead.discard(item[1].trial_id)
        return super().submit(item, spare=spare)

    def _train(self, item: Any) -> tuple[Any, float]:
        request = item[1]
        if isinstance(request, CalibrationRequest):
            size = request.hyperparameters.batch_size
            return Calibration(batch_size=size, seconds_per_step=0.001 * (10 + size / 16), seconds_per_evaluated_sample=1e-5), 1.0
        self.asked.append(request.trial_id)
        if self._spoiled is not None and request.trial_id in self._ahead:
            return self._spoiled(request), 0.0
        seconds = request.samples * (0.8 + int(request.trial_id, 16) % 5 / 10)
        return TrialOutcome(replace(Surface()(request), seconds=0.0), Curve({"step": [1], "train_loss": [1.0]})), seconds


@pytest.fixture(autouse=True)
def _one_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many are played matters to the number of hits only, and to the seconds of these tests."""
    monkeypatch.setattr("hptune.foresight.FUTURES", 1)


def run_in(folder: Path, executor: Workers, config: Experiment, *, foresight: bool = True, stop_after: int | None = None) -> list[Any]:
    layout = RunLayout(folder)
    with Journal(layout.journal) as journal:
        run = Run(
            experiment=config, task=TASK, executor=executor, journal=journal, layout=layout, clock=executor.clock, foresight=foresight
        )
        return list(islice(run_stages(run, enabled_stages(config)), stop_after))


def left(folder: Path) -> dict[str, Any]:
    """What a run leaves: its plans and conclusions in order, its trials and their curves in any."""
    lines = [json.loads(line) for line in RunLayout(folder).journal.read_text().splitlines()]
    for line in lines:
        line.pop("crc", None)
    trials = sorted((line for line in lines if line["kind"] == "trial"), key=lambda line: str(line["trial_id"]))
    others = [line for line in lines if line["kind"] in ("plan", "conclusion", "calibration")]
    return {"trials": str(trials), "others": str(others), "curves": sorted(file.name for file in RunLayout(folder).curves.iterdir())}


CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a budget": {"budget": {"epochs": 10, "search_epochs": 2, "search": 20}},
    "equal time, by the metric": {"stages": {"batch_size": {"values": [32, 64]}, "confirm": {"seeds": 2}}, "rank_by": "metric"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_with_idle_workers_leaves_what_a_serial_one_leaves(tmp_path: Path, name: str) -> None:
    config = experiment(**CONFIGS[name])
    run_in(tmp_path / "serial", Workers(1), config, foresight=False)
    whole = left(tmp_path / "serial")
    for workers in (3, 48):
        executor = Workers(workers)
        events = run_in(tmp_path / str(workers), executor, config)
        assert left(tmp_path / str(workers)) == whole
        assert len(executor.asked) == len(set(executor.asked)), "what was done ahead is not done again"
        said = events[-1]
        assert isinstance(said, Remark)
        begun, used = (int(word) for word in said.text.split() if word.isdigit())
        assert 0 < used <= begun
        trials = sum(isinstance(event, TrialDone) for event in events)
        assert used > 0.5 * trials or workers == 3, "most of a run, where there are workers for it"


SMALL: dict[str, Any] = {"stages": {"batch_size": False, "refine": False, "confirm": {"seeds": 2, "finalists": 2}}}


def test_workers_that_run_ahead_end_a_run_sooner(tmp_path: Path) -> None:
    waited, ahead = Workers(16), Workers(16)
    run_in(tmp_path / "waited", waited, experiment(**SMALL), foresight=False)
    run_in(tmp_path / "ahead", ahead, experiment(**SMALL))
    assert ahead.clock() < 0.54 * waited.clock(), "0.58 where it sees no further than the stage under way"


def test_without_foresight_idle_workers_wait(tmp_path: Path) -> None:
    executor = Workers(16)
    events = run_in(tmp_path / "r", executor, experiment(**SMALL), foresight=False)
    assert len(executor.asked) == sum(isinstance(event, TrialDone) for event in events)
    assert not [event for event in events if isinstance(event, Remark)]


@pytest.mark.parametrize("stop_after", [3, 20, 31])
def test_an_interrupted_run_loses_nothing_that_was_planned(tmp_path: Path, stop_after: int) -> None:
    run_in(tmp_path / "whole", Workers(1), experiment(**SMALL), foresight=False)
    before = run_in(tmp_path / "r", Workers(16), experiment(**SMALL), stop_after=stop_after)
    executor = Workers(16)
    after = run_in(tmp_path / "r", executor, experiment(**SMALL))
    assert left(tmp_path / "r") == left(tmp_path / "whole")
    done = [event.record.trial_id for event in (*before, *after) if isinstance(event, TrialDone)]
    assert len(done) == len(set(done))


def out_of_memory(spec: Any) -> TrialOutcome:
    return TrialOutcome(TrialRecord(spec=spec, status="out_of_memory"), Curve({"step": []}))


def dead(_spec: Any) -> Failure:
    return Failure(error="it cost two workers", died=True)


@pytest.mark.parametrize("spoiled", [out_of_memory, dead], ids=["out of memory", "dead"])
def test_what_comes_to_nothing_ahead_is_run_when_it_is_its_turn_and_not_before(tmp_path: Path, spoiled: Any) -> None:
    run_in(tmp_path / "serial", Workers(1), experiment(**SMALL), foresight=False)
    executor = Workers(16, spoiled)
    run_in(tmp_path / "r", executor, experiment(**SMALL))
    assert left(tmp_path / "r") == left(tmp_path / "serial")
    times = [executor.asked.count(trial) for trial in set(executor.asked)]
    assert max(times) == 2


def test_a_sweep_of_another_key_runs_second_seeds_ahead(tmp_path: Path) -> None:
    def sweep(workers: int, foresight: bool) -> list[Any]:
        layout, executor = RunLayout(tmp_path / str(workers)), Workers(workers)
        with Journal(layout.journal) as journal:
            run = Run(
                experiment=experiment(**SMALL),
                task=TASK,
                executor=executor,
                journal=journal,
                layout=layout,
                clock=executor.clock,
                foresight=foresight,
            )
            return list(run_stage(run, "model.args.width", {"variants": variants(run.experiment)}))

    assert not [event for event in sweep(1, foresight=False) if isinstance(event, Remark)]
    (said,) = [event for event in sweep(12, foresight=True) if isinstance(event, Remark)]
    assert left(tmp_path / "12") == left(tmp_path / "1")
    assert said.text.endswith("of which it came to 3")


def variants(config: Experiment) -> Sequence[dict[str, Any]]:
    """Three momenta, under the names of three widths."""
    own = config.baseline_hyperparameters()
    plain = {"task": TASK.task_id, "train_samples": TASK.train_samples, "schedule": {"kind": "one_cycle", "milestones": []}, "numerics": {}}
    found = []
    for value, momentum in ((8, 0.9), (16, 0.91), (32, 0.92)):
        h = own.but(momentum=momentum)
        found.append({**plain, "value": value, "hyperparameters": {name: getattr(h, name) for name in h.__dataclass_fields__}})
    return found
