"""Charts: the frames they are drawn from, and that every one of them is a valid picture."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricated import fabricate, sweep_key
from surfaces import START, Surface

from hptune import report
from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion
from hptune.report import frames
from hptune.report.charts import cost_figure, draw, make_figures, stage_figures, styled, together, write_figures
from hptune.report.run import StageResult
from hptune.store.layout import RunLayout

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    folder = fabricate(tmp_path_factory.mktemp("charts") / "run", surface=Surface(diverges_above=0.3))
    sweep_key(folder, "model.args.kind", ["plain", "wide"])
    return report.load(folder)


def row(value: Any, loss: float, *, name: str = "weight_decay", **more: Any) -> Row:
    return Row(values=((name, value),), hyperparameters=START, val_loss=loss, verdict=more.pop("verdict", "tied"), **more)


def conclusion(*rows: Row, **detail: Any) -> Conclusion:
    return Conclusion(stage="weight_decay", sentence="", rows=rows, detail=detail)


def stage_of(run: report.Run, name: str) -> tuple[StageResult, Conclusion]:
    stage = run.stage(name)
    assert stage.conclusion is not None
    return stage, stage.conclusion


def test_a_range_test_leaves_out_what_has_no_place_on_a_logarithmic_axis() -> None:
    series = {"lr": [0.0, 1e-3, 1e-2, 0.1, 1.0], "val_loss": [2.3, 2.2, math.nan, 0.5, math.inf], "train_loss": [2.4, 2.1, 1.0, None, 9.0]}
    frame = frames.range_frame(conclusion(ranges=[{**series, "repetition": 0}, {**series, "repetition": 1}]))
    first = frame[frame["seed"] == "0"]
    assert list(first[first["part"] == "validation"]["loss"]) == [2.2, 0.5]
    assert list(first[first["part"] == "training"]["loss"]) == [2.1, 1.0, 9.0]
    assert len(frame) == 10


@pytest.mark.parametrize(
    ("losses", "beyond"),
    [
        ([0.30, 0.301, 0.302, 0.31, 5.0], [5.0]),
        ([0.1, 0.2, 0.3, 0.4], []),
        ([0.3, 0.3, 0.3, 0.32, 0.9], [0.9]),
        ([0.0216, 0.0222, 0.0228, 0.0281], []),
        ([-1.0, -0.99, -0.98, 40.0], [40.0]),
        ([0.5], []),
        ([0.0, 0.0], []),
    ],
)
def test_a_far_off_loss_does_not_press_the_others_into_a_line(losses: list[float], beyond: list[float]) -> None:
    assert [loss for loss in losses if loss > frames.upper_limit(losses)] == beyond


def test_the_limits_of_no_losses_are_infinite() -> None:
    assert frames.upper_limit([]) == frames.range_limit([]) == math.inf


def test_a_range_test_is_cut_a_little_above_its_start() -> None:
    assert frames.range_limit([2.0, 1.0, 0.4, 60.0]) == pytest.approx(2.8)
    assert frames.range_limit([2.0, 30.0]) == pytest.approx(2.2)


def test_a_loss_beyond_the_limit_stands_at_the_edge_and_says_its_number() -> None:
    far_off = row(0.0, 7.0, val_loss_low=6.0, val_loss_high=8.0)
    frame = frames.candidate_frame(conclusion(row(1e-3, 0.30), row(1e-4, 0.31), row(1e-2, 0.32), far_off))
    far = frame[frame["label"] == "0"].iloc[0]
    assert (far["val_loss"], far["beyond"]) == (7.0, "▲ 7")
    assert far["shown"] == far["low"] == far["high"] < 0.5
    assert set(frame[frame["label"] != "0"]["beyond"]) == {""}


def test_zero_and_words_have_a_place_of_their_own() -> None:
    assert frames.axis(conclusion(row(0.0, 0.3), row(1e-3, 0.2))) == frames.Axis("ordered", "weight decay")
    assert frames.axis(conclusion(row("wide", 0.3, name="kind"))) == frames.Axis("ordered", "kind")
    assert frames.axis(conclusion(row(0.1, 0.3, name="lr"))).kind == "log"
    assert frames.axis(conclusion(row("baseline", 0.3, name="candidate"))).kind == "named"


def test_a_timescale_below_an_epoch_is_not_none() -> None:
    rows = [
        Row(values=(("weight_decay", 1e-3), ("timescale_epochs", epochs)), hyperparameters=START, val_loss=0.3, verdict="tied")
        for epochs in ("never", 1234.5, 12.3, 2.02, 0.00606)
    ]
    labels = [label.partition(frames.SECOND_LINE)[2] for label in frames.candidate_frame(conclusion(*rows))["label"]]
    assert labels == ["never", "1,234 epochs", "12 epochs", "2 epochs", "0.0061 epochs"]


def test_weight_decays_stand_in_order_with_zero_first() -> None:
    swept = conclusion(row(1e-3, 0.30), row(0.0, 0.31), row(1e-4, 0.32))
    spec = styled(stage_figures(_stage(swept))[0].chart).to_dict()
    assert spec["layer"][0]["encoding"]["x"]["sort"] == ["0", "1e-04", "0.001"]


def test_what_has_no_loss_is_named_in_the_caption(run: report.Run) -> None:
    lost = conclusion(row(1e-3, 0.3), row(1e-2, math.nan, verdict="diverged"), row(1e-1, math.nan, verdict="out_of_memory"))
    assert frames.missing_candidates(lost) == "without a loss: 0.01 (diverged), 0.1 (out of memory)"
    many = conclusion(*(row(10.0**-i, 0.3) for i in range(frames.SHOWN + 5)))
    assert "5 more are in the table" in frames.missing_candidates(many)
    assert len(frames.candidate_frame(many)) == frames.SHOWN
    assert any("(diverged)" in figure.caption for figure in stage_figures(run.stage("lr_range")))


def test_every_seed_of_a_candidate_is_a_point(run: report.Run) -> None:
    stage, found = stage_of(run, "confirm")
    seeds = frames.seed_frame(stage, found)
    assert seeds.groupby("label")["seed"].nunique().to_dict() == dict.fromkeys(frames.candidate_frame(found)["label"], 3)


def test_curves_are_those_of_the_chosen_and_of_the_baseline(run: report.Run) -> None:
    stage, found = stage_of(run, "confirm")
    curves = frames.curve_frame(stage, found)
    assert "baseline" in set(curves["candidate"])
    assert curves["epoch"].max() == pytest.approx(10)
    stage, found = stage_of(run, "momentum")
    assert frames.curve_frame(stage, found)["candidate"].nunique() == 1


def test_cost_counts_each_trial_once(run: report.Run) -> None:
    cost = frames.cost_frame(run)
    assert cost["trials"].sum() == len(run.records)
    assert cost["samples"].sum() == sum(record.samples for record in run.records)
    momentum = cost[cost["stage"] == "momentum"].iloc[0]
    assert momentum["short_runs"] == pytest.approx(momentum["trials"])


def test_every_figure_is_a_valid_specification(run: report.Run) -> None:
    figures = make_figures(run)
    names = [figure.name for own in figures.values() for figure in own]
    assert names[:4] == ["lr_range", "lr_range_checks", "lr_range_curves", "batch_size"]
    assert {"weight_decay", "refine", "confirm", "confirm_curves", "model.args.kind", "cost"} <= set(names)
    assert len(names) == len(set(names))
    for own in figures.values():
        for figure in own:
            assert figure.spec == styled(figure.chart).to_dict(), "valid, so that altair says nothing"
            assert figure.title
            assert figure.caption.endswith(".")


@pytest.mark.parametrize(
    "found",
    [
        conclusion(),
        conclusion(row(1e-3, math.nan, verdict="diverged")),
        conclusion(row(1e-3, 0.3)),
        conclusion(row(1e-3, 0.0), row(1e-2, 0.0)),
        conclusion(row(1e-3, 1e300), row(1e-2, -1e300)),
        conclusion(ranges=[], suggested=None, low=None, high=None),
        conclusion(ranges=[{"repetition": 0, "lr": [0.1], "val_loss": [math.nan], "train_loss": [2.0]}], suggested=math.nan, low=1, high=1),
    ],
)
def test_odd_data_draws_something_or_nothing_but_never_fails(found: Conclusion) -> None:
    for figure in stage_figures(_stage(found)):
        assert draw(figure.spec).startswith(PNG)


def test_a_stage_without_a_trial_has_no_figures() -> None:
    assert stage_figures(_stage(None)) == []


def test_figures_are_written_as_png(tmp_path: Path, run: report.Run) -> None:
    few = replace(run, layout=RunLayout(tmp_path / "a run"), stages=(run.stage("momentum"),))
    write_figures(few, make_figures(few))
    files = {path.name: path.read_bytes() for path in few.layout.figures.iterdir()}
    assert set(files) == {"momentum.png", "curves.png", "cost.png"}
    for content in files.values():
        assert content.startswith(PNG)
        width = int.from_bytes(content[16:20], "big")
        assert width > 600


def test_many_loss_curves_share_pictures_of_a_size_that_can_be_seen(
    tmp_path: Path, run: report.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = tuple(run.stage(name) for name in ("momentum", "weight_decay", "refine"))
    figures = [figure for own in make_figures(replace(run, stages=stages)).values() for figure in own if figure.name.endswith("_curves")]
    assert [panel["title"] for panel in together(figures)["concat"]] == [figure.title for figure in figures]
    drawn = draw(together(figures[:1])), draw(together(figures[:2]))
    width, wider = (int.from_bytes(content[16:20], "big") for content in drawn)
    assert wider > 1.8 * width, "beside each other"
    monkeypatch.setattr("hptune.report.charts.PANELS", 2)
    few = replace(run, layout=RunLayout(tmp_path / "a run"))
    write_figures(few, {"": figures})
    assert {path.name for path in few.layout.figures.iterdir()} == {"curves.png", "curves_2.png"}
    assert draw(together(figures)) != draw(together(figures[::-1])), "each panel shows its own"


def test_an_empty_run_has_no_cost(run: report.Run) -> None:
    assert cost_figure(replace(run, stages=(), records=())) is None


def _stage(found: Conclusion | None) -> StageResult:
    from surfaces import knowledge

    return StageResult(name="weight_decay", knowledge=knowledge(), planned=1, records=(), conclusion=found, finished=True, counts=True)
