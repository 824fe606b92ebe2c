"""MLflow: a run for the search, with a nested run for every trial, in the store that MLFLOW_TRACKING_URI names (or MLflow's own choice).

Only its client is used: the functions on `mlflow` itself keep a current run for the whole process, which belongs to the user.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from hptune.analysis.recommendation import Conclusion
from hptune.report.run import Run
from hptune.report.trackers.tracker import files, findings, now, parameters, points, recommended, results
from hptune.trial import TrialRecord

EXPERIMENT = "hptune"  # where MLFLOW_EXPERIMENT_NAME says nothing
PARENT = "mlflow.parentRunId"
MOST_METRICS = 1000  # a call takes no more


class Mlflow:
    """`mlflow ui` shows it."""

    def __init__(self, _folder: Path, title: str, known: str) -> None:
        uri = mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        self._parent = self._again(known, uri) or self._client.create_run(self._experiment, run_name=title).info.run_id
        self.place = f"{uri} {self._parent}"

    def trial(self, stage: str, record: TrialRecord, value: Any) -> None:
        """A nested run: parameters, curve, results."""
        name = f"{stage} {record.trial_id[:8]}"
        tags = {PARENT: self._parent, "hptune.trial_id": record.trial_id, "hptune.status": record.status}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        own = [Param(key, str(value)) for key, value in parameters(stage, record, value).items()]
        moment = round(1000 * now())
        series = [Metric(key, value, moment, step) for step, values in points(record) for key, value in values.items()]
        series += [Metric(f"final_{key}", value, moment, record.steps) for key, value in results(record).items()]
        self._client.log_batch(run, params=own)
        for start in range(0, len(series), MOST_METRICS):
            self._client.log_batch(run, metrics=series[start : start + MOST_METRICS])
        if record.error:
            self._client.set_tag(run, "hptune.error", record.error)
        self._client.set_terminated(run, "FAILED" if record.status in ("failed", "out_of_memory") else "FINISHED")

    def conclusion(self, conclusion: Conclusion) -> None:
        """The stage's sentence, as a tag of the search."""
        self._client.set_tag(self._parent, f"hptune.{conclusion.stage}", conclusion.sentence)

    def result(self, run: Run) -> None:
        """Recommendation, report, tables and figures, with the search."""
        tags = [RunTag(f"hptune.{name}", sentence) for name, sentence in findings(run).items()]
        moment = round(1000 * now())
        metrics = [Metric(f"recommended_{name}", float(value), moment, 0) for name, value in recommended(run).items()]
        self._client.log_batch(self._parent, metrics=metrics, tags=tags)
        for path in files(run):
            self._client.log_artifact(self._parent, str(path))
        if run.layout.figures.is_dir():
            self._client.log_artifacts(self._parent, str(run.layout.figures), "figures")

    def close(self) -> None:
        """End the search's run; a continued one is taken up again."""
        self._client.set_terminated(self._parent)

    def _again(self, known: str, uri: str) -> str | None:
        """The run of an earlier command in the same store, running again; None where there is none."""
        before, _, run = known.rpartition(" ")
        if before != uri:
            return None
        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException:  # deleted meanwhile
            return None
        return run
