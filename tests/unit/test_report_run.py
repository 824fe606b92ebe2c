"""A run directory read back: whatever state it is in, it says what it holds and what counts."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fabricated import TASK, TREE, fabricate, sweep_key
from markupsafe import escape
from surfaces import Surface

import hptune
from hptune import report
from hptune.errors import InputError, RunDirectoryError, StageError
from hptune.report import html
from hptune.report.recommended import require_recommendation
from hptune.stages import STAGES
from hptune.store.journal import Journal, replay
from hptune.store.layout import RunLayout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    folder = fabricate(tmp_path_factory.mktemp("a folder") / "run")
    sweep_key(folder, "model.args.width", [4, 8])
    return report.load(folder)


def test_a_finished_run_recommends_what_confirm_chose(finished: report.Run) -> None:
    assert finished.state == "finished"
    assert [stage.name for stage in finished.stages] == [
        "lr_range", "batch_size", "momentum", "weight_decay", "refine", "confirm", "model.args.width",
    ]  # fmt: skip
    assert finished.recommendation is not None
    confirm = finished.stage("confirm").conclusion
    assert confirm is not None
    assert finished.recommendation.hyperparameters == confirm.chosen
    assert finished.recommendation.confirmed
    assert finished.recommendation.better
    assert finished.recommendation.epochs == 10


def test_tables_are_those_the_run_concluded(finished: report.Run) -> None:
    journalled = replay(finished.layout.journal).conclusions
    for stage in finished.stages:
        assert stage.conclusion is not None
        assert json.dumps(stage.conclusion.to_json()) == json.dumps(journalled[stage.name])


def test_frames_hold_every_trial_row_and_step(finished: report.Run) -> None:
    trials = finished.trials
    assert list(trials["trial_id"]) == [record.trial_id for record in finished.records]
    assert set(trials["stage"]) == {stage.name for stage in finished.stages}
    assert list(finished.table("momentum")["rank"]) == [1, 2, 3, 4]
    curve = finished.curve(trials["trial_id"][0])
    assert list(curve["train_loss"]) == [1.0, 0.5, 0.25]
    assert list(curve["val_loss"].isna()) == [True, True, False]


def test_unknown_names_are_said_with_the_known_ones(finished: report.Run) -> None:
    with pytest.raises(InputError, match=r"no stage 'momentm'.*lr_range, batch_size, momentum"):
        finished.table("momentm")
    with pytest.raises(InputError, match=r"no curve of a trial '\.\./journal'"):
        finished.curve("../journal")


@pytest.mark.parametrize("stop_after", [1, 3, 9, 25, 60])
def test_an_unfinished_run_rests_on_its_finished_stages(tmp_path: Path, stop_after: int) -> None:
    run = report.load(fabricate(tmp_path / "run", stop_after=stop_after))
    open_stages = [stage.name for stage in run.stages if not stage.finished]
    assert run.state == ("empty" if not run.records else "unfinished" if open_stages else "finished")
    assert len(open_stages) <= 1
    missing = [name for name in STAGES if name not in [stage.name for stage in run.stages]]
    assert not run.stages or not missing or any(note.startswith("not run yet") and note.endswith(", ".join(missing)) for note in run.notes)
    assert (run.recommendation is None) == (len(run.conclusions) == 0)
    assert all(any(name in note and "unfinished" in note for note in run.notes) for name in open_stages)
    assert not any(stage.counts for stage in run.stages if stage.name in open_stages)
    report.write_results(run)
    assert run.layout.recommended.exists() == (run.recommendation is not None)


def test_a_failed_stage_is_told_and_recommends_nothing(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        fabricate(tmp_path / "run", surface=Surface(diverges_above=0.0))
    run = report.load(tmp_path / "run")
    assert run.state == "failed"
    assert run.recommendation is None
    assert len(run.trials) == len(run.records) > 0
    with pytest.raises(InputError, match=r"no recommendation yet.*hptune run"):
        require_recommendation(run)


def test_a_run_stopped_before_its_config_was_written_is_empty(tmp_path: Path) -> None:
    with Journal(RunLayout(tmp_path).journal):
        pass
    run = report.load(tmp_path)
    assert (run.state, run.stages, run.recommendation, len(run.trials)) == ("empty", (), None, 0)
    assert any("before its config" in note for note in run.notes)


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"is no run directory: holds no journal\.jsonl"):
        report.load(tmp_path)
    with pytest.raises(RunDirectoryError, match="is no run directory: there is no such directory"):
        report.load(tmp_path / "nowhere")


def test_results_of_another_machine_can_be_read_without_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPTUNE_TEST_ROOT", str(tmp_path))
    folder = fabricate(tmp_path / "run", data={"name": "mnist", "root": "${HPTUNE_TEST_ROOT}"}, only=["lr_range"])
    here = report.load(folder).recommendation
    monkeypatch.delenv("HPTUNE_TEST_ROOT")
    run = report.load(folder)
    assert run.recommendation == here
    assert here is not None
    assert any("HPTUNE_TEST_ROOT" in note for note in run.notes)
    with pytest.raises(InputError, match="HPTUNE_TEST_ROOT"):
        require_recommendation(run)


def test_stages_of_an_earlier_task_or_switched_off_do_not_count(tmp_path: Path) -> None:
    fabricate(tmp_path / "run", only=["lr_range", "momentum"])
    fabricate(tmp_path / "run", only=["lr_range"], task=replace(TASK, task_id="t2"))
    run = report.load(tmp_path / "run")
    assert [stage.name for stage in run.stages if stage.counts] == ["lr_range"]
    assert any(note.startswith("momentum was run before") for note in run.notes)

    fabricate(tmp_path / "off", only=["lr_range", "momentum"])
    fabricate(tmp_path / "off", only=["lr_range"], stages={**TREE["stages"], "momentum": False})
    run = report.load(tmp_path / "off")
    assert [stage.name for stage in run.stages if stage.counts] == ["lr_range"]
    assert any(note.startswith("momentum was run, but the config no longer has it") for note in run.notes)


def test_a_conclusion_of_an_earlier_plan_finishes_no_stage(tmp_path: Path) -> None:
    fabricate(tmp_path / "run", only=["momentum"], seeds=1)
    before = report.load(tmp_path / "run").stage("momentum")
    other = {**TREE["stages"], "momentum": {"values": [0.98, 0.96, 0.9, 0.8]}}
    fabricate(tmp_path / "run", only=["momentum"], seeds=1, stages=other, stop_after=3)
    after = report.load(tmp_path / "run").stage("momentum")
    assert (before.finished, before.planned) == (True, 4)
    assert (after.finished, after.planned) == (False, 4)
    assert len(after.records) < 4


def test_equal_compute_time_stretches_the_recommended_length(tmp_path: Path) -> None:
    run = report.load(fabricate(tmp_path / "run", only=["lr_range", "batch_size"]))
    stage = run.stage("batch_size")
    faster = replace(stage, knowledge=replace(stage.knowledge, speeds=((32, 0.5), (64, 1.5), (128, 2.0))))
    from hptune.report.reading import _recommendation

    recommendation = _recommendation([run.stage("lr_range"), faster], run.loaded)
    assert recommendation is not None
    assert recommendation.hyperparameters.batch_size == 64
    assert recommendation.epochs == 15


def test_recommended_yaml_is_complete_and_carries_its_evidence(finished: report.Run) -> None:
    from hptune.config.loader import load_config

    report.write_results(finished)
    text = finished.layout.recommended.read_text()
    loaded = load_config(finished.layout.recommended)
    assert finished.recommendation is not None
    assert loaded.experiment.chosen_hyperparameters() == finished.recommendation.hyperparameters
    assert loaded.experiment.baseline_hyperparameters() == finished.recommendation.baseline
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any("Better than the baseline at full length" in line for line in comments)
    assert any("weight_decay: 0.001" in line and "from confirm: the candidate short_run_best" in line for line in comments)
    report.write_results(report.load(finished.layout.root))
    assert finished.layout.recommended.read_text() == text


def test_reading_needs_no_torch(finished: report.Run) -> None:
    code = "import sys, hptune; run = hptune.load_run(sys.argv[1]); print(len(run.trials), 'torch' in sys.modules, 'altair' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(finished.layout.root)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(finished.records)), "False", "False"]
    assert hptune.load_run is report.load


CURVE = b"step,lr,momentum,train_loss,val_loss,metric\n1,0.1,0.9,1.0,,\n2,0.2,0.9,0.5,0.7,inf\n3,0.1,0.9,nan,0.6,0.9\n"


def curve_of(finished: report.Run, folder: Path, content: bytes) -> pd.DataFrame:
    run = replace(finished, layout=RunLayout(folder))
    run.layout.curves.mkdir(exist_ok=True)
    run.layout.curve("t").write_bytes(content)
    return run.curve("t")


def test_a_curve_has_numbers_only(finished: report.Run, tmp_path: Path) -> None:
    curve = curve_of(finished, tmp_path, CURVE)
    assert list(curve.dtypes) == [int, *[float] * 5]
    assert curve["metric"].tolist()[1:] == [float("inf"), 0.9]
    assert list(curve_of(finished, tmp_path, b"step,lr\n").columns) == ["step", "lr"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"\n\n\n", CURVE[:-3], CURVE[:20], b"\x00" * 200 + b"\n", b"\xff\xfe\x00\x01\n", b"\x89PNG\r\n\x1a\n\x00\n",
        b"<html>\n<p>404</p>\n</html>\n", CURVE.replace(b"0.5", b"x.5"), CURVE.replace(b"\n2,", b"\n,"), CURVE.replace(b"\n2,", b"\n2.5,"),
        CURVE.replace(b"\n2,", b" 2,"), CURVE.replace(b"\n2,", b"\n2,2,"), CURVE.replace(b"0.5", b'"0.5'), CURVE.partition(b"\n")[2],
        CURVE.replace(b"\n2,", b"\n" + b"9" * 40 + b","), b"step,lr\n1,2,3\n4,5,6\n",
    ],
)  # fmt: skip
def test_a_damaged_curve_is_said_to_be_so(finished: report.Run, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RunDirectoryError, match=r"the curve .*t\.csv cannot be read: .*; the trial's record in the journal.* unaffected"):
        curve_of(finished, tmp_path, content)


def test_whatever_happened_to_a_curve_numbers_or_one_message_come(finished: report.Run, tmp_path: Path) -> None:
    rng = random.Random(0)
    said, forms = [], set()
    for _ in range(600):
        content = bytearray(CURVE)
        for _ in range(rng.choice((1, 1, 5))):
            content[rng.randrange(len(content))] = rng.choice((rng.randrange(256), ord('"'), ord("\n"), 0))
        try:
            curve = curve_of(finished, tmp_path, bytes(content[: rng.choice((len(content), rng.randrange(len(content))))]))
        except RunDirectoryError as error:
            said.append(str(error).replace(str(tmp_path), ""))
        else:
            forms.update(map(str, curve.dtypes))
    assert max(map(len, said)) < 600
    assert forms == {"int64", "float64"}


DEEP = b'{"a": ' * 5000 + b"1" + b"}" * 5000
DAMAGES = {
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "zeros": bytes(500),
    "list": b"[1, 2]",
    "nan": b"NaN",
    "number": b"1e999",
    "digits": b"9" * 5000,
    "torn": b'{"versions": {"torch": "2',
    "deep object": DEEP,
    "quite deep object": b'{"a": ' * 700 + b"1" + b"}" * 700,
    "deep list": b"[" * 100_000,
    "closed deep list": b"[" * 3000 + b"]" * 3000,
    "odd values": b'{"cpu": [NaN, {"a": 1}], "invocations": [3, {"command": 5}, {"command": [null, {}]}], "": {"": "\\ud800\\u0000"}}',
    "byte-order mark": b'\xef\xbb\xbf{"seed": 1}',
    "page": b"<!DOCTYPE html><html></html>",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("small") / "run", only=["lr_range"])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["environment.json", "config.yaml"])
def test_a_damaged_file_beside_the_journal_hides_no_results(small: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    (folder / name).write_bytes(DAMAGES[damage])
    run = report.load(folder)
    assert run.records == report.load(small).records
    assert (run.loaded is None) == (name == "config.yaml")
    assert name != "config.yaml" or any(note.startswith("the config cannot be read here") for note in run.notes)
    report.write_results(run)
    assert "environment" in html.render(run, defaultdict(list))


@pytest.mark.parametrize("name", ["environment.json", "config.yaml"])
def test_a_file_beside_the_journal_that_cannot_be_read_hides_no_results(small: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    (folder / name).chmod(0)
    assert report.load(folder).records
    (folder / name).unlink()
    (folder / name).mkdir()
    run = report.load(folder)
    assert run.records
    assert (run.environment == {}) == (name == "environment.json")
    assert any("is a folder" in note for note in run.notes) == (name == "config.yaml")


def test_a_run_directory_that_may_not_be_searched_is_none(small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    folder.chmod(0)
    try:
        if os.access(folder, os.X_OK):
            pytest.skip("this user may search every folder")
        with pytest.raises(RunDirectoryError, match="is no run directory"):
            report.load(folder)
    finally:
        folder.chmod(0o700)


def test_a_notebook_shows_the_recommendation_and_what_was_concluded(finished: report.Run) -> None:
    shown = finished._repr_html_()
    for stage in finished.stages:
        assert stage.conclusion is not None
        assert escape(stage.conclusion.sentence) in shown
    assert ">weight decay</td>" in shown
    assert "<script" not in shown


def test_a_notebook_runs_nothing_of_a_hostile_run(tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)>"
    sweep_key(fabricate(tmp_path / "run", only=["lr_range"]), "model.args.kind", [attack, "plain"])
    shown = report.load(tmp_path / "run")._repr_html_()
    assert attack not in shown
    assert str(escape(attack)) in shown


def test_an_empty_run_shows_that_it_is(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run", stop_after=0)
    assert "Nothing was run yet" in report.load(folder)._repr_html_()


def test_charts_are_altair_objects_by_the_names_of_their_figures(finished: report.Run) -> None:
    charts = finished.charts
    assert {"lr_range", "weight_decay", "confirm"} <= set(charts)
    assert all(chart.to_dict(validate=False)["$schema"] for chart in charts.values())
