"""What the report's own table and curves are made of, and the words beside them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import fabricate

from hptune import report
from hptune.report import frames_confirm, trial_data
from hptune.report.recommended import interval_text
from hptune.report.why import why


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    return report.load(fabricate(tmp_path_factory.mktemp("data") / "run"))


@pytest.mark.parametrize(("length", "points", "kept"), [(0, 8, []), (3, 8, [0, 1, 2]), (9, 3, [0, 4, 8]), (100, 2, [0, 99])])
def test_a_thinned_curve_keeps_its_ends(length: int, points: int, kept: list[int]) -> None:
    assert trial_data.thinned(length, points) == kept


def test_every_trial_has_a_row_and_its_own_curve(run: report.Run) -> None:
    data = trial_data.trial_data(run)
    columns = {column["title"]: column for column in data["columns"]}
    assert data["rows"] == len(run.records) == len(data["curves"]) == len(data["names"])
    assert {len(column["values"]) for column in data["columns"]} == {len(run.records)}
    ids = columns["id"]
    assert [ids["texts"][at] for at in ids["values"]] == [record.trial_id for record in run.records]
    at, record = next((i, record) for i, record in enumerate(run.records) if record.spec.steps == 20 and record.usable)
    epochs, training, validation = data["curves"][at]
    assert epochs[-1] == pytest.approx(record.spec.samples / 1280, rel=1e-4)
    assert (training[-1], validation[-1]) == pytest.approx((record.curve.train_loss[-1], record.curve.val_loss[-1]), rel=1e-4)
    assert columns["val loss"]["values"][at] == pytest.approx(record.val_loss, rel=1e-4)
    json.dumps(data, allow_nan=False)


def test_what_is_the_same_in_all_trials_is_said_once(run: report.Run) -> None:
    data = trial_data.trial_data(run)
    titles = [column["title"] for column in data["columns"]]
    assert "device cpu" in data["same"]
    assert "device" not in titles
    assert "LR" in titles
    alone = trial_data.trial_data(replace(run, records=run.records[:1]))
    assert alone["same"] == ""
    assert "device" in [column["title"] for column in alone["columns"]]


def test_numbers_that_are_none_do_not_stop_the_page(run: report.Run) -> None:
    odd = replace(run.records[5], val_loss=math.inf, metric=math.nan, status="diverged")
    broken = replace(odd, curve=replace(odd.curve, val_loss=(math.nan,) * len(odd.curve.step)))
    data = trial_data.trial_data(replace(run, records=(odd, broken)))
    json.dumps(data, allow_nan=False)
    losses = next(column for column in data["columns"] if column["title"] == "val loss")
    assert set(losses["values"]) == {"inf"}
    assert set(data["curves"][1][2]) == {None}


def test_more_trials_than_the_page_holds_are_cut(run: report.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_data, "ROWS", 7)
    assert trial_data.trial_data(run)["rows"] == 7


def test_the_recommended_and_the_baseline_are_shown_at_first(run: report.Run) -> None:
    shown = [run.records[at] for at in trial_data.trial_data(run)["chosen"]]
    assert run.recommendation is not None
    assert [record.spec.hyperparameters for record in shown] == [run.recommendation.hyperparameters, run.recommendation.baseline]
    assert len({record.spec.repetition for record in shown}) == 1


def test_the_gain_is_drawn_as_the_pairs_it_comes_from(run: report.Run) -> None:
    stage = run.stage("confirm")
    assert stage.conclusion is not None
    gain = frames_confirm.gain_frame(stage.conclusion).set_index("part")
    pairs = frames_confirm.pair_frame(stage, stage.conclusion)
    assert dict(pairs.groupby("part").size()) == {"validation part": 3, "test part": 3}
    mean = math.exp(pairs[pairs["part"] == "validation part"]["ratio"].map(math.log).mean())
    assert gain.loc["validation part", "ratio"] == pytest.approx(mean)
    assert gain.loc["validation part", "low"] < mean < gain.loc["validation part", "high"]
    shorter = frames_confirm.shorter_frame(stage, stage.conclusion)
    assert dict(shorter.groupby("share").size()) == {0.25: 3, 0.5: 3, 1.0: 3}


def test_why_says_the_numbers_of_the_conclusions(run: report.Run) -> None:
    text = why(run)
    confirm = run.stage("confirm").conclusion
    assert confirm is not None
    assert "on 3 seeds that no step had seen" in text
    assert "learning rate from 0.1 to" in text
    assert "lower on 3 of 3 seeds" in text
    assert "On the test part, which no choice has used" in text
    assert "momentum" in text.rpartition("keeps")[2].partition(".")[0]


def test_why_claims_no_more_than_was_done(tmp_path: Path) -> None:
    text = why(report.load(fabricate(tmp_path / "run", only=["lr_range", "momentum"])))
    assert "no training at full length has checked the outcome yet" in text
    assert "seeds" not in text
    assert why(report.load(fabricate(tmp_path / "none", stop_after=0))) == ""


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.2, 0.4, "60.0 to 80.0 % lower"), (0.9, 1.2, "20.0 % higher to 10.0 % lower"), (1.1, 1.3, "30.0 to 10.0 % higher")],
)
def test_an_interval_is_said_in_per_cent(low: float, high: float, text: str) -> None:
    assert interval_text(low, high) == f"95 % interval {text}"
