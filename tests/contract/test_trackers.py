"""Trackers: each takes a run whole and once, and none of them can harm one."""

import json
import threading
from functools import partial
from pathlib import Path

import pytest
from outside import hptune

from hptune import report
from hptune.config.loader import from_tree
from hptune.report import load
from hptune.report.trackers import CLASSES, Tracking, opener, require
from hptune.report.trackers.tracker import parameters, points, results
from hptune.session import open_session

TOOLS = ["tensorboard", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mlflow sqlite:///", "mlflow file://", "wandb"))]


class Told:
    """A tracker that keeps what it is told."""

    place = "here"

    def __init__(self):
        self.log, self.values = [], []

    def trial(self, stage, record, value):
        self.log.append((stage, record.trial_id))
        self.values.append(value)

    def conclusion(self, conclusion):
        self.log.append(conclusion.stage)

    def result(self, run):
        self.log.append(run.name)

    def close(self):
        self.log.append("closed")


class Failing(Told):
    def trial(self, stage, record, value):
        raise ConnectionError("the server is gone")


class Hanging(Told):
    release = threading.Event()

    def trial(self, stage, record, value):
        self.release.wait()


@pytest.fixture(scope="module")
def run(tiny_run):
    return report.load(tiny_run / "runs/tiny")


def tell(tracking, run, *, patience=60.0):
    for stage in run.stages:
        for record in stage.records:
            tracking.trial(stage.name, record)
        tracking.conclusion(stage.conclusion)
    tracking.result(run)
    tracking.close(patience)
    return tracking.remarks()


def tracking_of(folder, **trackers):
    return Tracking(trackers, lambda name: folder / name, "tiny", find=lambda name: lambda *_: trackers[name])


def test_everything_is_told_once_and_in_order(tmp_path, run):
    first, again = Told(), Told()
    assert tell(tracking_of(tmp_path, a=first), run) == []
    assert first.log[-2:] == ["tiny", "closed"]
    stage = run.stages[0]
    own = len({record.trial_id for record in stage.records})
    assert first.log[:own] == [(stage.name, trial) for trial in dict.fromkeys(record.trial_id for record in stage.records)]
    assert first.log[own] == stage.name
    tell(tracking_of(tmp_path, a=again), run)
    assert again.log == ["tiny", "closed"]


def test_another_place_is_told_everything(tmp_path, run):
    tell(tracking_of(tmp_path, a=Told()), run)
    elsewhere = Told()
    elsewhere.place = "there"
    tell(tracking_of(tmp_path, a=elsewhere), run)
    assert len(elsewhere.log) > 2


def test_one_that_fails_is_named_and_the_others_go_on(tmp_path, run):
    whole = Told()
    (remark,) = tell(tracking_of(tmp_path, bad=Failing(), good=whole), run)
    assert "bad" in remark
    assert "the server is gone" in remark
    assert whole.log[-1] == "closed"


def test_what_one_that_failed_has_not_got_is_sent_by_the_next_command(tmp_path, run):
    tell(tracking_of(tmp_path, a=Failing()), run)
    later = Told()
    tell(tracking_of(tmp_path, a=later), run)
    assert {entry[1] for entry in later.log if isinstance(entry, tuple)} == {r.trial_id for stage in run.stages for r in stage.records}


def test_one_that_cannot_be_opened_is_named(tmp_path, run):
    def refuse(*_):
        raise OSError("no such place")

    tracking = Tracking(["a"], lambda name: tmp_path / name, "tiny", find=lambda _: refuse)
    (remark,) = tell(tracking, run)
    assert "no such place" in remark


def test_one_that_hangs_is_left_behind(tmp_path, run):
    try:
        (remark,) = tell(tracking_of(tmp_path, slow=Hanging()), run, patience=0.2)
    finally:
        Hanging.release.set()
    assert "slow has not taken everything" in remark


def test_a_line_cut_off_in_the_ledger_is_told_again(tmp_path, run):
    tell(tracking_of(tmp_path, a=Told()), run)
    ledger = tmp_path / "a" / "sent.txt"
    ledger.write_bytes(ledger.read_bytes()[:-5])
    later, last = Told(), Told()
    tell(tracking_of(tmp_path, a=later), run)
    assert len(later.log) == 3
    tell(tracking_of(tmp_path, a=last), run)
    assert last.log == ["tiny", "closed"]


@pytest.mark.filterwarnings("ignore")  # of the tools themselves
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_gets_trials_curves_parameters_and_the_report(tool, tmp_path, run, monkeypatch):
    """The real tool, in local files; told twice, as by two commands."""
    name, _, store = tool.partition(" ")
    pytest.importorskip(name, reason=f"{name} is not installed: it comes with hptune[{name}]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store}{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert tell(Tracking([name], lambda tool: tmp_path / "tracking" / tool, run.name), run) == []
    read = {"tensorboard": from_tensorboard, "mlflow": from_mlflow, "wandb": from_wandb}[name](tmp_path)
    stages = {r.trial_id: stage.name for stage in reversed(run.stages) for r in stage.records}
    records = {r.trial_id: r for stage in run.stages for r in stage.records}
    assert sorted(read["trials"]) == sorted(records)
    for trial, record in records.items():
        found = read["trials"][trial]
        assert found["parameters"] == {key: str(value) for key, value in parameters(stages[trial], record, None).items()}
        assert found["results"] == pytest.approx(results(record))
        curve = [(step, values["val_loss"]) for step, values in points(record) if "val_loss" in values]
        assert found["val_loss"] == [(step, pytest.approx(value)) for step, value in curve]
    assert run.conclusions[-1].sentence in read["said"]
    assert read["files"] >= {"report.html", "recommended.yaml"} or name == "tensorboard"


def told_by(told, monkeypatch, folder, work, **blocks):
    """Do `work` in a session whose one tracker is `told`."""
    monkeypatch.setattr("hptune.session.Tracking", partial(Tracking, find=lambda _: lambda *_: told))
    tree = {
        "data": {"name": "digits", "limit": 200}, "model": {"name": "mlp", "args": {"hidden": [8]}}, "device": "cpu",
        "budget": {"epochs": 1, "search_epochs": 1}, "seeds": 1, "tracking": ["tensorboard"], **blocks,
    }  # fmt: skip
    with open_session(from_tree(tree, folder), run_dir=folder / "run") as session:
        work(session)


def test_trials_of_a_key_sweep_come_with_its_values_also_by_a_later_command(tmp_path, monkeypatch):
    def sweep(session):
        list(session.sweep("model.args.dropout", [0.0, 0.25]))

    first, later = Told(), Told()
    told_by(first, monkeypatch, tmp_path, sweep)
    assert sorted(first.values) == [0.0, 0.25]
    (tmp_path / "run/tracking/tensorboard/sent.txt").unlink()
    told_by(later, monkeypatch, tmp_path, lambda session: None)
    assert sorted(later.values) == [0.0, 0.25]
    record = load(tmp_path / "run").records[0]
    assert parameters("model.args.dropout", record, 0.25)["model.args.dropout"] == 0.25


def test_a_full_training_is_told_of_also_where_it_was_done_before(tmp_path, monkeypatch):
    first, later = Told(), Told()
    told_by(first, monkeypatch, tmp_path, lambda session: session.train())
    (tmp_path / "run/tracking/tensorboard/sent.txt").unlink()
    told_by(later, monkeypatch, tmp_path, lambda session: session.trained())
    assert first.log == later.log == [("train", load(tmp_path / "run").records[0].trial_id), "closed"]


def from_tensorboard(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    trials = {}
    for path in (folder / "tracking/tensorboard").glob("*/*"):
        events = EventAccumulator(str(path)).Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        held = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        tags = events.Tags()["scalars"]
        trials[path.name] = {
            "parameters": {name: as_text(value.string_value or value.number_value, name) for name, value in held.items()},
            "results": {tag[6:]: events.Scalars(tag)[0].value for tag in tags if tag.startswith("final/")},
            "val_loss": [(point.step, point.value) for point in events.Scalars("val_loss")] if "val_loss" in tags else [],
        }
    whole = EventAccumulator(str(folder / "tracking/tensorboard")).Reload()
    said = [whole.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in whole.Tags()["tensors"]]
    return {"trials": trials, "said": "\n".join(said), "files": set()}


def from_mlflow(_: Path):
    from mlflow import MlflowClient

    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("hptune").experiment_id])
    (search,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == search.info.run_id]
    trials = {
        run.data.tags["hptune.trial_id"]: {
            "parameters": run.data.params,
            "results": {key[6:]: value for key, value in run.data.metrics.items() if key.startswith("final_")},
            "val_loss": [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "val_loss")],
        }
        for run in nested
    }
    assert len(trials) == len(nested)
    assert search.info.status == "FINISHED"
    return {
        "trials": trials,
        "said": "\n".join(search.data.tags.values()),
        "files": {entry.path for entry in client.list_artifacts(search.info.run_id)},
    }


def from_wandb(folder: Path):
    from wandb.proto import wandb_internal_pb2

    trials, said, files = {}, [], set()
    for path in (folder / "tracking/wandb").rglob("*.wandb"):
        records = [wandb_internal_pb2.Record.FromString(data) for data in leveldb_records(path.read_bytes())]
        (own,) = (record.run for record in records if record.HasField("run"))
        summary = as_dict(item for record in records for item in record.summary.update)
        history = [as_dict(record.history.item) for record in records if record.HasField("history")]
        files |= {entry.path for record in records for entry in record.artifact.manifest.contents}
        files |= {entry.path for record in records for entry in record.request.log_artifact.artifact.manifest.contents}
        if own.job_type == "search":
            said += map(str, summary.values())
            continue
        _, _, trial = own.run_id.rpartition("-")
        assert trial not in trials
        trials[trial] = {
            "parameters": {key: str(value) for key, value in as_dict(own.config.update).items() if not key.startswith("_")},
            "results": {key[6:]: summary[key] for key in summary if key.startswith("final/")},
            "val_loss": [(row["_step"], row["val_loss"]) for row in history if "val_loss" in row],
        }
    return {"trials": trials, "said": "\n".join(said), "files": files}


def as_dict(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def leveldb_records(content: bytes):
    """The records of a file in LevelDB's log format, as wandb writes it: after 7 bytes of its own, blocks of 32 KiB with their pieces."""
    at, pieces = 7, b""
    while at + 7 <= len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


def as_text(value, name):
    """TensorBoard keeps every number as a float."""
    return str(int(value)) if name in ("batch_size", "steps", "repetition") else str(value)


def test_a_run_goes_on_without_its_tracker(tmp_path, tiny_run):
    """A file stands where TensorBoard's folder should be: the tables are those of the run without a tracker."""
    (tmp_path / "c.yaml").write_text((tiny_run / "c.yaml").read_text() + "tracking: [tensorboard]\n")
    tracking = tmp_path / "runs/tiny/tracking"
    tracking.mkdir(parents=True)
    (tracking / "tensorboard").write_text("in the way")
    shown, _ = hptune(tmp_path, "lr-range", "c.yaml")
    assert "tracking by tensorboard ended" in shown
    table = "tables/lr_range.csv"
    kept = [line.rsplit(",", 2)[0] for line in (tmp_path / "runs/tiny" / table).read_text().splitlines()]
    assert kept == [line.rsplit(",", 2)[0] for line in (tiny_run / "runs/tiny" / table).read_text().splitlines()]


def test_a_package_that_is_missing_is_said_before_anything_is_run(monkeypatch):
    monkeypatch.setitem(CLASSES, "no_such_tracker", "Nothing")
    with pytest.raises(Exception, match=r"pip install 'hptune\[no_such_tracker\]'"):
        require(["no_such_tracker"])


def test_every_tracker_of_the_config_has_a_class():
    from hptune.config.schema import Experiment

    schema = Experiment.model_json_schema()["properties"]["tracking"]["items"]["enum"]
    assert set(schema) == set(CLASSES)
    for name in schema:
        assert callable(opener(name))
