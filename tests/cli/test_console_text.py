"""What is shown, built without a terminal: tables that fit, progress, sentences."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console as Terminal

from hptune.analysis.candidates import Noise
from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion, Recommendation
from hptune.cli import interruption, words
from hptune.cli.console import Console, json_text
from hptune.cli.progress import Tracker, follow, speed, trial_line
from hptune.cli.results import differing_keys, finding, gain_sentence, recommendation_table, stage_table
from hptune.cli.tables import Column, Table
from hptune.running import Event, Remark, RoundPlanned, StageConcluded, StageStarted, TrialDone
from hptune.schedules import Schedule
from hptune.stages.base import Knowledge
from hptune.trial import Hyperparameters, Numerics, TrialRecord, TrialSpec

H = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)


def known(**changes: Any) -> Knowledge:
    values: dict[str, Any] = {
        "task": "t", "numerics": Numerics(), "train_samples": 1280, "val_samples": 320, "test_samples": 0, "optimizer": "sgd",
        "schedule": Schedule(), "start": H, "baseline": H,
    }  # fmt: skip
    return Knowledge(**{**values, **changes})


def record(lr: float = 0.1, repetition: int = 0, **changes: Any) -> TrialRecord:
    spec = known().short_run(H.but(lr=lr), repetition)
    return TrialRecord(**{"spec": spec, "status": "completed", "val_loss": 0.5, "steps": 20, "seconds": 2.0, **changes})


def conclusion(stage: str = "weight_decay", count: int = 2, **changes: Any) -> Conclusion:
    rows = tuple(
        Row(
            values=(("weight_decay", 10.0**-i), ("timescale_epochs", 3.0 * i)), hyperparameters=H, val_loss=0.5 + i, val_loss_low=0.4 + i,
            val_loss_high=0.6 + i, metric=0.9, train_loss=0.3, seeds=2, chosen=i == 1, verdict="best" if i == 0 else "tied",
            clue="balanced", steps=100, samples=6400, samples_per_second=3200.0, seconds=2.0,
        )
        for i in range(count)
    )  # fmt: skip
    return Conclusion(**{"stage": stage, "sentence": "weight decay 1 goes on", "rows": rows, "chosen": H, **changes})


def test_a_table_in_plain_text() -> None:
    columns = (Column(title="name", words=True), Column(title="loss"), Column(title="empty"))
    table = Table(columns=columns, rows=(("a", "0.5", ""), ("long name", "12", "")))
    assert table.fitted(80).lines() == ["name       loss", "a           0.5", "long name    12"]


def test_a_narrow_table_loses_its_least_important_columns_first() -> None:
    columns = tuple(Column(title=f"column{i}", importance=importance) for i, importance in enumerate((9, 1, 5, 1)))
    table = Table(columns=columns, rows=(("1", "2", "3", "4"),))
    kept = {width: [c.title[-1] for c in table.fitted(width).columns] for width in (34, 33, 25, 17, 8, 1)}
    assert kept == {34: ["0", "1", "2", "3"], 33: ["0", "1", "2"], 25: ["0", "1", "2"], 17: ["0", "2"], 8: ["0"], 1: ["0"]}


@pytest.mark.parametrize("width", [50, 80, 140])
def test_a_stages_table_stays_within_the_terminal(width: int) -> None:
    console = Console()
    console.terminal = Terminal(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False, markup=False)
    console.table(stage_table(conclusion(), "accuracy"))
    text = console.terminal.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert all(word in text for word in ("weight decay", "val loss", "verdict", "→"))
    assert ("samples/s" in text) == (width == 140)


def test_the_chosen_row_is_marked_and_numbers_are_short() -> None:
    header, first, second = stage_table(conclusion(), "accuracy").fitted(200).lines()
    assert header.split()[:3] == ["rank", "weight", "decay"]
    assert first.split() == ["1", "1", "0", "0.5", "0.4", "to", "0.6", "0.9", "0.3", "2", "best", "balanced", "100", "3200", "2"]
    assert second.startswith("→")


def test_what_was_not_measured_is_an_empty_cell() -> None:
    row = Row(values=(("lr", 5.0),), hyperparameters=H, verdict="diverged", seeds=1)
    table = stage_table(Conclusion(stage="lr_range", sentence="", rows=(row,)))
    assert "nan" not in "\n".join(table.lines())
    assert "95 %" not in [column.title for column in table.fitted(200).columns]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (61, "1:01"), (3599.2, "1:00:00"), (-1, "0:00"), (36061, "10:01:01")],
)
def test_a_clock(seconds: float, expected: str) -> None:
    assert words.clock(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.123, "0.12 s"), (42.4, "42 s"), (99.6, "1.7 min"), (3000, "50 min"), (7200, "2 h"), (400000, "4.63 days")]
)
def test_a_duration(seconds: float, expected: str) -> None:
    assert words.duration(seconds) == expected


def test_which_value_came_from_where_in_one_line() -> None:
    sources = {"lr": "lr_range", "batch_size": "batch_size", "momentum": "baseline", "momentum_min": "baseline", "weight_decay": "baseline"}
    line = words.starts_from(known(sources=tuple(sources.items())))
    assert line == (
        "from LR 0.1 (LR range test); batch size 64 (batch size); momentum 0.9 to 0.85, weight decay 1e-04 (the config's baseline)"
    )


def test_progress_counts_known_trials_and_tells_the_time_left_from_this_stages_pace() -> None:
    tracker = Tracker(stages=("lr_range", "momentum"), where="cpu (some model)")
    for event, now in (
        (StageStarted(stage="momentum", knowledge=known()), 100.0),
        (RoundPlanned(stage="momentum", trials=6, known=(record(0.3, val_loss=0.7), record(0.4, val_loss=0.8))), 100.0),
    ):
        tracker.take(event, now)
    assert tracker.seconds_left(105.0) is None
    tracker.take(TrialDone(stage="momentum", record=record(val_loss=0.5, samples=300)), 110.0)
    tracker.take(TrialDone(stage="momentum", record=record(0.2, val_loss=0.25, samples=300)), 120.0)
    assert tracker.seconds_left(120.0) == pytest.approx(20.0)
    assert tracker.heading() == "stage 2 of 2: momentum"
    first, second = tracker.lines(120.0, 200).split("\n")
    for text in ("stage 2 of 2: momentum", "4/6 trials", "0:20 left", "150 samples/s", "cpu (some model)"):
        assert text in first
    tracker.workers = "Ray: 2 workers on 2 nodes"
    assert "0:20 left  Ray: 2 workers on 2 nodes  150 samples/s" in tracker.lines(120.0, 110).split("\n")[0]
    tracker.workers = ""
    assert second == "best loss 0.25 (noise not known yet)  LR 0.2  batch size 64  momentum 0.9 to 0.85  weight decay 1e-04"
    usual = tracker.lines(120.0, 79).split("\n")
    assert usual[0] == "stage 2 of 2: momentum  ━━━━━━━╌╌╌ 4/6 trials  0:20 left  150 samples/s"
    assert usual[1] == "best loss 0.25 (noise not known yet)  LR 0.2  batch size 64  weight decay 1e-04", "what fits"
    narrow = tracker.lines(120.0, 60).split("\n")
    assert max(map(len, narrow)) <= 60
    assert "4/6 trials" in narrow[0]
    assert narrow[1] == "best loss 0.25 (noise not known yet)  LR 0.2  batch size 64"
    tracker.take(StageStarted(stage="lr_range", knowledge=known()), 130.0)
    assert "0/0 trials" in tracker.lines(130.0, 60), "the next stage starts from nothing"


def test_the_best_so_far_has_the_interval_of_the_noise_known_from_short_runs() -> None:
    def line_of(stage: str, done: TrialRecord) -> str:
        tracker = Tracker()
        tracker.take(StageStarted(stage=stage, knowledge=known(noise=Noise(sum_squares=0.04, df=4))), 0.0)
        tracker.take(TrialDone(stage=stage, record=done), 1.0)
        return tracker.lines(1.0, 80).split("\n")[1]

    assert line_of("momentum", record(val_loss=0.5)).startswith("best loss 0.5 [0.379, 0.66]"), "exp(±2.776 · 0.1) times"
    assert "noise not known yet" in line_of("confirm", record(repetition=1000)), "that of short runs says nothing of long ones"


def test_the_speed_is_that_of_all_workers_at_their_latest_trials() -> None:
    done = [record(worker=worker, samples=samples, seconds=2.0) for worker, samples in ((1, 1000), (2, 3000), (1, 5000))]
    assert speed(done) == "4,000 samples/s"
    assert speed([*done, *[record(worker=3, samples=200, seconds=2.0)] * 16]) == "100 samples/s", "a worker long gone does not count"
    assert speed([record(samples=0)]) == ""


def test_ramps_and_failures_are_never_the_best() -> None:
    tracker = Tracker()
    tracker.take(StageStarted(stage="lr_range", knowledge=known()), 0.0)
    ramp = TrialRecord(spec=known().short_run(H, schedule=Schedule(kind="ramp")), status="completed", val_loss=0.01)
    for done in (ramp, record(0.2, status="diverged", val_loss=0.02), record(val_loss=0.3)):
        tracker.take(TrialDone(stage="lr_range", record=done), 1.0)
    assert tracker.best is not None
    assert tracker.best.val_loss == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (record(), "x, 20 steps, seed 1: loss 0.5 (2 s)"),
        (record(status="diverged", steps=3), "x, 20 steps, seed 1: diverged after 3 steps (2 s)"),
        (record(status="out_of_memory", steps=0), "x, 20 steps, seed 1: out of memory after 0 steps (2 s)"),
        (record(status="failed", error="Traceback\nValueError: no"), "x, 20 steps, seed 1: failed (ValueError: no) (2 s)"),
        (record(repetition=1001), "x, 20 steps, fresh seed 2: loss 0.5 (2 s)"),
    ],
)
def test_a_trials_line(done: TrialRecord, expected: str) -> None:
    assert trial_line("x", done) == expected


def printed(events: list[Event], *, quiet: bool, capsys: pytest.CaptureFixture[str]) -> str:
    follow(iter(events), Console(quiet=quiet), stages=("weight_decay",), where="cpu", metric="accuracy", clock=lambda: 0.0)
    return capsys.readouterr().out


EVENTS: list[Event] = [
    Remark(text="measuring"),
    StageStarted(stage="weight_decay", knowledge=known()),
    RoundPlanned(stage="weight_decay", trials=3, known=(record(0.3),)),
    TrialDone(stage="weight_decay", record=record()),
    StageConcluded(conclusion=conclusion(notes=("at the edge",))),
]


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(EVENTS, quiet=False, capsys=capsys).splitlines()
    assert lines[:2] == ["measuring", ""]
    assert "1 trial of 3 already done" in lines
    assert "2/3  LR 0.1, batch size 64, momentum 0.9 to 0.85, weight decay 1e-04, 20 steps, seed 1: loss 0.5 (2 s)" in lines
    assert lines[lines.index("weight decay 1 goes on") + 1] == "note: at the edge"
    assert not any("\x1b" in line for line in lines)


def test_quiet_prints_conclusions_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(EVENTS, quiet=True, capsys=capsys) == "weight decay 1 goes on\nnote: at the edge\n"


def test_a_stage_without_candidates_has_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = [StageConcluded(conclusion=conclusion(count=0))]
    assert printed(events, quiet=False, capsys=capsys) == "weight decay 1 goes on\n"


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def output() -> str:
        console = Console()
        console.terminal = Terminal(file=io.StringIO(), force_terminal=True, color_system="auto", width=80)
        console.say("note", "yellow")
        return console.terminal.file.getvalue()  # type: ignore[attr-defined]

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in output()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in output()


def test_a_sentence_says_what_it_is_about() -> None:
    assert finding(conclusion()) == "weight decay 1 goes on"
    assert finding(conclusion(stage="refine", sentence="the current best stays")) == "joint refinement: the current best stays"


def recommendation(**changes: Any) -> Recommendation:
    found = H.but(lr=0.4)
    values: dict[str, Any] = {"hyperparameters": found, "baseline": H, "short": found, "epochs": 30.0, "sources": (("lr", "lr_range"),)}
    return Recommendation(**{**values, **changes})


def test_the_recommendation_beside_the_baseline() -> None:
    lines = recommendation_table(recommendation(), epochs=20.0).lines()
    assert lines[1].split() == ["LR", "0.1", "0.4", "LR", "range", "test"]
    assert lines[4].split() == ["momentum", "minimum", "0.85", "0.85", "baseline"]
    assert lines[-1].split()[:3] == ["epochs", "20", "30"]
    assert len(recommendation_table(recommendation(), epochs=30.0).rows) == 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "not confirmed"),
        ({"confirmed": True, "better": False, "hyperparameters": H}, "keep the baseline"),
        ({"confirmed": True, "better": False}, "the baseline gave no usable loss"),
        (
            {"confirmed": True, "better": True, "gain": {"ratio": 0.8, "low": 0.7, "high": 0.9}},
            "0.8 times the baseline's (95 %: 0.7 to 0.9): better than the baseline",
        ),
        (
            {"confirmed": True, "better": False, "gain": {"ratio": 0.8, "low": float("nan"), "high": float("nan")}},
            "0.8 times the baseline's; that it is better than the baseline is not shown",
        ),
    ],
)
def test_nothing_is_claimed_that_was_not_shown(changes: dict[str, Any], expected: str) -> None:
    assert expected in gain_sentence(recommendation(**changes))


def test_json_has_null_for_what_is_no_number() -> None:
    text = json_text({"a": [float("nan"), float("inf"), 1.5], 2: (None, "é")})
    assert text.replace("\n", "").replace(" ", "") == '{"a":[null,null,1.5],"2":[null,"é"]}'


def test_differing_keys_are_dotted() -> None:
    assert differing_keys({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}) == ["a.c", "d", "e"]


def test_the_command_that_continues_is_the_same_but_for_fresh() -> None:
    assert interruption.continuation(["hptune", "run", "a b.yaml", "--fresh"]) == ["hptune", "run", "a b.yaml"]


def test_the_program_is_called_as_it_can_be_called_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "hptune").write_text("#!/bin/sh\n")
    (tmp_path / "hptune").chmod(0o755)
    assert interruption.program("/x/hptune/__main__.py")[1:] == ["-m", "hptune"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interruption.program(str(tmp_path / "hptune")) == ["hptune"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert interruption.program(str(tmp_path / "hptune")) == [str(tmp_path / "hptune")]


def test_a_key_sweeps_trials_are_told_apart() -> None:
    from dataclasses import asdict

    spec: TrialSpec = record().spec
    variants = [
        {"value": value, "task": task, "hyperparameters": asdict(spec.hyperparameters), "schedule": asdict(spec.schedule)}
        for value, task in ((8, "t"), (16, "another"))
    ]
    tracker = Tracker()
    tracker.take(StageStarted(stage="model.args.width", knowledge=known(settings={"variants": variants})), 0.0)
    assert tracker.tried(record()).startswith("model.args.width 8, LR 0.1")
