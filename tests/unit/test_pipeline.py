"""The loop, with a made-up training in place of the engine: what is done is not done twice, and kills change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from surfaces import TASK, Surface, experiment

from hptune.config.schema import Experiment
from hptune.dispatch import longest_first
from hptune.errors import DeviceLostError, StageError
from hptune.executors.serial import SerialExecutor
from hptune.knowledge import enabled_stages
from hptune.pipeline import elapsed_before, resume_progress, run_stages
from hptune.running import Remark, Run, StageConcluded, StageStarted, TrialDone
from hptune.schedules import Schedule
from hptune.store.journal import Journal, replay
from hptune.store.layout import RunLayout
from hptune.trial import Calibration, CalibrationRequest, Curve, Hyperparameters, TrialOutcome, TrialRecord, TrialSpec


class Training:
    """A work function that counts what it is asked for."""

    def __init__(self, surface: Surface | None = None) -> None:
        self.surface = surface or Surface()
        self.asked: list[str] = []

    def __call__(self, item: tuple[Experiment, TrialSpec | CalibrationRequest]) -> TrialOutcome | Calibration:
        request = item[1]
        if isinstance(request, CalibrationRequest):
            size = request.hyperparameters.batch_size
            return Calibration(batch_size=size, seconds_per_step=0.001 * (10 + size / 16), seconds_per_evaluated_sample=1e-5)
        self.asked.append(request.trial_id)
        return TrialOutcome(self.surface(request), Curve({"step": [1, 2], "train_loss": [1.0, 0.5]}))


def run_in(folder: Path, training: Any, config: Experiment, *, stages: Any = None, stop_after: int | None = None) -> list[Any]:
    layout = RunLayout(folder)
    with Journal(layout.journal) as journal:
        run = Run(experiment=config, task=TASK, executor=SerialExecutor(training), journal=journal, layout=layout)
        names = stages or enabled_stages(config)
        if stages:
            run.progress = resume_progress(journal, TASK, enabled_stages(config)[: enabled_stages(config).index(names[0])])
        events: Iterator[Any] = run_stages(run, names)
        return list(islice(events, stop_after))


def conclusions(events: list[Any]) -> dict[str, Any]:
    return {e.conclusion.stage: e.conclusion for e in events if isinstance(e, StageConcluded)}


def test_all_stages_run_in_order_and_end_in_a_better_configuration(tmp_path: Path) -> None:
    events = run_in(tmp_path / "r", Training(), experiment())
    found = conclusions(events)
    assert list(found) == ["lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm"]
    assert found["confirm"].detail["winner"] != "baseline"


def test_running_again_runs_nothing_and_writes_nothing(tmp_path: Path) -> None:
    run_in(tmp_path / "r", Training(), experiment())
    before = RunLayout(tmp_path / "r").journal.read_bytes()
    again = Training()
    events = run_in(tmp_path / "r", again, experiment())
    assert again.asked == []
    assert not any(isinstance(e, TrialDone) for e in events)
    assert RunLayout(tmp_path / "r").journal.read_bytes() == before


def test_a_round_journals_its_own_trials_alone(tmp_path: Path) -> None:
    run_in(tmp_path / "r", Training(), experiment())
    lines = [json.loads(line) for line in RunLayout(tmp_path / "r").journal.read_text().splitlines()]
    plans, rounds = ([line for line in lines if line["kind"] == kind] for kind in ("plan", "round"))
    assert [plan["stage"] for plan in plans] == list(enabled_stages(experiment())), "what a stage knows is written once"
    assert len(rounds) > len(plans)
    for name, plan in replay(RunLayout(tmp_path / "r").journal).plans.items():
        written = [line["trials"] for line in (*plans, *rounds) if line["stage"] == name]
        assert plan["trials"] == [trial for trials in written for trial in trials]


@pytest.mark.parametrize("stop_after", [1, 4, 9, 23, 40, 61])
def test_a_run_stopped_anywhere_ends_the_same(tmp_path: Path, stop_after: int) -> None:
    whole = conclusions(run_in(tmp_path / "whole", Training(), experiment()))
    first, second = Training(), Training()
    run_in(tmp_path / "r", first, experiment(), stop_after=stop_after)
    continued = conclusions(run_in(tmp_path / "r", second, experiment()))
    assert {name: c.rows for name, c in continued.items()} == {name: c.rows for name, c in whole.items()} or str(continued) == str(whole)
    kept = len([e for e in first.asked if e in replay(RunLayout(tmp_path / "r").journal).records])
    assert len(set(first.asked) & set(second.asked)) <= len(first.asked) - kept + 1


def test_a_changed_config_reruns_only_what_changed(tmp_path: Path) -> None:
    run_in(tmp_path / "r", Training(), experiment())
    again = Training()
    run_in(
        tmp_path / "r", again, experiment(stages={"batch_size": {"values": [32, 64, 128], "compare": "samples"}, "confirm": {"seeds": 3}})
    )
    assert 0 < len(again.asked) <= 4 + 6, "a third seed of four finalists, and the shorter trainings of another winner"


def test_a_config_that_goes_back_to_an_earlier_task_makes_it_the_current_one_again(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "r")
    other = replace(TASK, task_id="t2")
    for task in (TASK, other, TASK, TASK):
        with Journal(layout.journal) as journal:
            run = Run(experiment=experiment(), task=task, executor=SerialExecutor(Training()), journal=journal, layout=layout)
            list(run_stages(run, ["momentum"]))
        assert list(replay(layout.journal).tasks)[-1] == task.task_id
    assert sum('"kind": "task"' in line for line in layout.journal.read_text().splitlines()) == 3


def test_a_stage_alone_uses_what_earlier_stages_concluded(tmp_path: Path) -> None:
    config = experiment()
    first = conclusions(run_in(tmp_path / "r", Training(Surface(lr=0.4)), config, stages=["lr_range"]))
    alone = conclusions(run_in(tmp_path / "r", Training(Surface(lr=0.4)), config, stages=["momentum"]))
    assert alone["momentum"].chosen.lr == first["lr_range"].chosen.lr != 0.1


def test_a_stage_stopped_between_two_rounds_settles_nothing(tmp_path: Path) -> None:
    config = experiment()
    ramps_and_first_checks = 2 + 4
    first = run_in(tmp_path / "r", Training(Surface(lr=0.4)), config, stages=["lr_range"], stop_after=1 + 1 + ramps_and_first_checks)
    assert not conclusions(first)
    with Journal(RunLayout(tmp_path / "r").journal) as journal:
        state = journal.state
        state.plans["lr_range"]["trials"] = [t for t in state.plans["lr_range"]["trials"] if t in state.records]
        assert state.plans["lr_range"]["trials"]
        assert not resume_progress(journal, TASK, ["lr_range"]).finished


def test_a_stage_in_which_everything_diverges_fails_with_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="lr_range"):
        run_in(tmp_path / "r", Training(Surface(diverges_above=0.0)), experiment())
    assert replay(RunLayout(tmp_path / "r").journal).conclusions["lr_range"]["chosen"] is None


def test_a_worker_that_fails_leaves_a_failed_record_and_the_sweep_goes_on(tmp_path: Path) -> None:
    class Sometimes(Training):
        def __call__(self, item: Any) -> Any:
            if isinstance(item[1], TrialSpec) and item[1].hyperparameters.momentum == 0.97:
                raise RuntimeError("boom")
            return super().__call__(item)

    events = run_in(tmp_path / "r", Sometimes(), experiment())
    failed = [e.record for e in events if isinstance(e, TrialDone) and e.record.status == "failed"]
    assert failed
    assert all("boom" in (record.error or "") for record in failed)
    rows = conclusions(events)["momentum"].rows
    assert rows[-1].verdict == "failed"


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path: Path) -> None:
    class Crowded(SerialExecutor):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            self.workers = 2

        def map(self, items: Any) -> Any:
            for index, found in super().map(items):
                crowded = TrialOutcome(TrialRecord(spec=found.record.spec, status="out_of_memory"), found.curve)
                yield index, crowded if len(items) > 1 else found

    layout = RunLayout(tmp_path / "r")
    with Journal(layout.journal) as journal:
        run = Run(experiment=experiment(), task=TASK, executor=Crowded(Training()), journal=journal, layout=layout)
        events = list(run_stages(run, ["lr_range"]))
    assert {e.record.status for e in events if isinstance(e, TrialDone)} == {"completed"}


def test_equal_time_measures_each_size_once(tmp_path: Path) -> None:
    config = experiment(stages={"batch_size": {"values": [32, 64, 128, 5000]}, "refine": False, "confirm": False})
    events = run_in(tmp_path / "r", Training(), config)
    measured = [e.text for e in events if isinstance(e, Remark)]
    assert len(measured) == 3, "5000 does not fit the data"
    assert not [e for e in run_in(tmp_path / "r", Training(), config) if isinstance(e, Remark)]
    speeds = dict(conclusions(events)["batch_size"].detail["speeds"])
    assert speeds[32] < speeds[64] == 1.0 < speeds[128]


@pytest.mark.parametrize("runs", [1, 4, 8, 16, 40])
def test_a_budget_in_short_runs_is_kept(tmp_path: Path, runs: int) -> None:
    config = experiment(
        budget={"epochs": 10, "search_epochs": 2, "search": runs}, stages={"batch_size": {"compare": "samples"}, "confirm": False}
    )
    events = run_in(tmp_path / "r", Training(), config)
    spent = sum(e.record.spec.samples for e in events if isinstance(e, TrialDone)) / (2 * 1280)
    assert spent <= runs + 1
    assert spent >= 0.5 * runs
    assert conclusions(events)


@pytest.mark.parametrize(
    ("runs", "first", "last"),
    [(4, 3.0, 0.0), (8, 3.0, 0.5), (16, 4.2, 6.0), (32, 5.12, 16.0), (200, 32.0, 110.0)],
    ids=lambda value: f"{value:g}",
)
def test_what_the_short_runs_need_is_left_to_longer_ones(tmp_path: Path, runs: int, first: float, last: float) -> None:
    config = experiment(budget={"epochs": 10, "search_epochs": 2, "search": runs}, stages={"batch_size": {"compare": "samples"}})
    events = run_in(tmp_path / "r", Training(), config)
    given = {e.stage: e.knowledge.allowance for e in events if isinstance(e, StageStarted)}
    assert given["lr_range"] == first
    assert given["refine"] >= last
    assert given["batch_size"] >= 0.8 * (runs - first) or runs > 14, "small budgets go to the best batch size and its LR"


def test_what_trials_that_ended_early_did_not_take_is_left_to_later_stages(tmp_path: Path) -> None:
    config = experiment(budget={"epochs": 10, "search_epochs": 2, "search": 16}, stages={"batch_size": {"compare": "samples"}})
    events = run_in(tmp_path / "r", Training(Surface(lr=0.1, diverges_above=0.11)), config)
    last = next(e.knowledge for e in events if isinstance(e, StageStarted) and e.stage == "refine")
    before = {e.record.trial_id: e.record for e in events if isinstance(e, TrialDone) and e.stage not in ("refine", "confirm")}
    assert last.allowance == pytest.approx(16 - sum(last.spent(record) for record in before.values()), abs=2e-3)
    assert last.allowance > 17 - sum(last.cost(record.spec) for record in before.values()), "some diverged"


class Slow(Training):
    """Each item takes five seconds of the clock `now`."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now = now

    def __call__(self, item: Any) -> Any:
        self.now[0] += 5.0
        return super().__call__(item)


def test_a_time_budget_ends_the_search_and_counts_time_already_spent(tmp_path: Path) -> None:
    config = experiment(
        budget={"epochs": 10, "search_epochs": 2, "search": "60s"}, stages={"batch_size": {"compare": "samples"}, "confirm": False}
    )
    now = [0.0]

    layout = RunLayout(tmp_path / "r")

    def go() -> list[Any]:
        with Journal(layout.journal) as journal:
            run = Run(
                experiment=config, task=TASK, executor=SerialExecutor(Slow(now)), journal=journal, layout=layout, clock=lambda: now[0]
            )
            run.progress = resume_progress(journal, TASK, ())
            return list(run_stages(run, enabled_stages(config)))

    go()
    assert 30 <= now[0] <= 80
    spent = now[0]
    go()
    assert now[0] <= spent + 5, "run again, it has nothing left to spend"


@pytest.mark.parametrize("events_seen", [4, 12, 25])
def test_a_time_budget_counts_what_a_killed_run_has_spent(tmp_path: Path, events_seen: int) -> None:
    config = experiment(
        budget={"epochs": 10, "search_epochs": 2, "search": "1h"}, stages={"batch_size": {"compare": "samples"}, "confirm": False}
    )
    now = [1000.0]

    layout = RunLayout(tmp_path / "r")
    for killed in (1, 2):
        with Journal(layout.journal) as journal:
            run = Run(
                experiment=config, task=TASK, executor=SerialExecutor(Slow(now)), journal=journal, layout=layout, clock=lambda: now[0]
            )
            run.progress = resume_progress(journal, TASK, ())
            before, began = run.progress.elapsed, now[0]
            trained = [e for e in islice(run_stages(run, enabled_stages(config)), events_seen * killed) if isinstance(e, TrialDone)]
            assert elapsed_before(journal) == before + now[0] - began
        assert trained
        now[0] = 0.0  # another machine's clock


def test_confirm_takes_nothing_of_a_time_budget(tmp_path: Path) -> None:
    off = dict.fromkeys(("batch_size", "momentum", "weight_decay", "refine"), False)
    config = experiment(budget={"epochs": 10, "search_epochs": 2, "search": "1h"}, stages=off)
    now = [0.0]

    layout = RunLayout(tmp_path / "r")
    with Journal(layout.journal) as journal:
        run = Run(experiment=config, task=TASK, executor=SerialExecutor(Slow(now)), journal=journal, layout=layout, clock=lambda: now[0])
        events = list(run_stages(run, enabled_stages(config)))
        confirming = sum(isinstance(e, TrialDone) and e.stage == "confirm" for e in events)
        assert confirming
        assert elapsed_before(journal) == now[0] - 5.0 * confirming


def test_every_item_carries_what_the_run_shares(tmp_path: Path) -> None:
    class Carried(Training):
        def __call__(self, item: Any) -> TrialOutcome | Calibration:
            carried.append(item[2])
            return super().__call__(item)

    carried: list[Any] = []
    layout = RunLayout(tmp_path / "r")
    config = experiment(stages={"batch_size": {"values": [32, 64], "compare": "time"}})
    with Journal(layout.journal) as journal:
        leads = {TASK.task_id: "here"}
        run = Run(experiment=config, task=TASK, executor=SerialExecutor(Carried()), journal=journal, layout=layout, leads=leads)
        list(run_stages(run, ["lr_range", "batch_size"]))
    assert len(carried) > 4
    assert set(carried) == {"here"}


def test_a_lost_device_costs_its_trial_and_the_same_command_goes_on(tmp_path: Path) -> None:
    class Fragile(Training):
        left = 5

        def __call__(self, item: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise DeviceLostError("device-side assert triggered")
            return super().__call__(item)

    with pytest.raises(DeviceLostError, match="give the same command again"):
        run_in(tmp_path / "r", Fragile(), experiment())
    (failed,) = [r for r in replay(tmp_path / "r" / "journal.jsonl").records.values() if r.status == "failed"]
    assert failed.error == "device-side assert triggered"
    again = Training()
    run_in(tmp_path / "r", again, experiment())
    assert failed.trial_id not in again.asked


# ---- memory and how many trials at once


class Limited(Training):
    """A device that holds `most` samples at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.accumulated = most, set[int]()

    def __call__(self, item: tuple[Experiment, TrialSpec | CalibrationRequest]) -> TrialOutcome | Calibration:
        request = item[1]
        size = request.hyperparameters.batch_size
        if isinstance(request, CalibrationRequest):
            result = super().__call__(item)
            assert isinstance(result, Calibration)
            return result if size <= self.most else replace(result, micro_batch=self.most)
        if (request.numerics.micro_batch or size) > self.most:
            self.asked.append(request.trial_id)
            return TrialOutcome(TrialRecord(spec=request, status="out_of_memory"), Curve({"step": []}))
        self.accumulated |= {size} if request.numerics.micro_batch else set()
        return super().__call__(item)


def test_a_batch_that_outgrows_memory_is_accumulated_from_then_on(tmp_path: Path) -> None:
    device = Limited(64)
    events = run_in(tmp_path / "r", device, experiment())
    assert [e.text for e in events if isinstance(e, Remark) and "does not fit into memory" in e.text] == [
        "batch size 128 does not fit into memory: gradients are accumulated over 64 samples at a time (batch norm then sees these)"
    ]
    found = conclusions(events)["batch_size"]
    assert {row.hyperparameters.batch_size for row in found.rows if row.verdict != "out_of_memory"} == {32, 64, 128}
    assert device.accumulated == {128}
    assert len(device.asked) == len(set(device.asked)), "what fits is the same trial as before"


def test_a_run_continued_after_lack_of_memory_runs_nothing_again(tmp_path: Path) -> None:
    whole = conclusions(run_in(tmp_path / "r", Limited(64), experiment()))
    again = Limited(64)
    assert str(conclusions(run_in(tmp_path / "r", again, experiment()))) == str(whole)
    assert again.asked == []


class Device(SerialExecutor):
    """An executor whose device gets more done with more workers, up to a number, each holding a share of its memory."""

    def __init__(self, work: Any, *, best: int, share: float = 0.01) -> None:
        super().__init__(work)
        self.best, self.share, self.sizes = best, share, list[int]()

    def resize(self, workers: int) -> None:
        self.workers = workers
        self.sizes.append(workers)

    def map(self, items: Any) -> Iterator[tuple[int, Any]]:
        slower = max(1.0, self.workers / self.best)
        for index, result in super().map(items):
            measured = isinstance(result, Calibration)
            yield index, replace(result, seconds_per_step=0.001 * slower, memory_share=self.share * self.workers) if measured else result


def on_device(folder: Path, device: Device, most: int = 16) -> list[str]:
    layout = RunLayout(folder)
    with Journal(layout.journal) as journal:
        run = Run(experiment=experiment(), task=TASK, executor=device, journal=journal, layout=layout, most_workers=most)
        return [e.text for e in run_stages(run, ["momentum"]) if isinstance(e, Remark)]


@pytest.mark.parametrize(("best", "share", "most", "chosen"), [(4, 0.01, 16, 4), (1, 0.01, 16, 1), (16, 0.2, 16, 4), (16, 0.01, 8, 8)])
def test_workers_are_doubled_while_that_pays_and_fits(tmp_path: Path, best: int, share: float, most: int, chosen: int) -> None:
    device = Device(Training(), best=best, share=share)
    remarks = on_device(tmp_path / "r", device, most)
    assert device.workers == chosen
    assert remarks[-1] == (f"{chosen} trials at once" if chosen > 1 else "one trial at a time")


def test_the_number_of_workers_is_measured_once(tmp_path: Path) -> None:
    on_device(tmp_path / "r", Device(Training(), best=4))
    RunLayout(tmp_path / "r").journal.write_text(
        "".join(line for line in RunLayout(tmp_path / "r").journal.read_text().splitlines(keepends=True) if '"kind": "trial"' not in line)
    )
    again = Device(Training(), best=1)
    on_device(tmp_path / "r", again)
    assert again.sizes == [4]


def test_long_trials_go_first_as_far_as_records_tell() -> None:
    def spec(batch_size: int, steps: int) -> TrialSpec:
        own = Hyperparameters(lr=0.1, batch_size=batch_size, momentum=0.9, momentum_min=0.85, weight_decay=0.0)
        return TrialSpec(
            task="t", hyperparameters=own, schedule=Schedule(), steps=steps, seed=0, repetition=0, evaluate_at=(steps,)
        )  # fmt: skip

    small, large, long = spec(10, 100), spec(100, 12), spec(10, 110)
    assert longest_first([small, large, long], []) == [large, long, small]  # by samples
    records = [TrialRecord(spec=s, status="completed", samples=n, seconds=1.0) for s, n in ((small, 100), (large, 1000))]
    assert longest_first([large, small, long], records) == [long, small, large]  # large batches are ten times as fast
    assert longest_first([small, replace(small, seed=1)], records) == [small, replace(small, seed=1)]
