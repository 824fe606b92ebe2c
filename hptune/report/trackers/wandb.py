"""Weights & Biases: a run for the search and one for every trial, in one group. Without an API key it writes offline, for `wandb sync`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import wandb

from hptune.analysis.recommendation import Conclusion
from hptune.report.run import Run
from hptune.report.trackers.tracker import files, findings, parameters, points, recommended, results
from hptune.trial import TrialRecord

PROJECT = "hptune"  # where WANDB_PROJECT says nothing


class Wandb:
    """What it writes before sending it lies in the run directory."""

    def __init__(self, folder: Path, title: str, known: str) -> None:
        self._folder, self._title = folder, title
        self._project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")  # online, it would ask for a key
        before, _, group = known.rpartition(" ")
        self._group = group if before == self._project else f"{title}-{secrets.token_hex(3)}"
        self.place = f"{self._project} {self._group}"
        self._search = self._begin(self._group, title, "search", {})

    def trial(self, stage: str, record: TrialRecord, value: Any) -> None:
        """A run: parameters, curve, results."""
        run = self._begin(f"{self._group}-{record.trial_id}", f"{stage} {record.trial_id[:8]}", stage, parameters(stage, record, value))
        for step, values in points(record):
            run.log(values, step=step)
        run.summary.update({f"final/{name}": value for name, value in results(record).items()})  # beside the curve's last point
        run.summary.update({"status": record.status, "error": record.error})
        run.finish(exit_code=1 if record.status in ("failed", "out_of_memory") else 0)

    def conclusion(self, conclusion: Conclusion) -> None:
        """The stage's sentence, in the summary of the search."""
        self._search.summary.update({conclusion.stage: conclusion.sentence})

    def result(self, run: Run) -> None:
        """Recommendation and files, with the search."""
        self._search.summary.update({**findings(run), "recommended": dict(recommended(run))})
        artifact = wandb.Artifact(f"{self._group}-report", type="report")
        for path in [*files(run), *sorted(run.layout.figures.glob("*.png"))]:
            artifact.add_file(str(path), name=str(path.relative_to(run.layout.root)))
        self._search.log_artifact(artifact)

    def close(self) -> None:
        """End the search's run; a continued one is taken up again."""
        self._search.finish()

    def _begin(self, own: str, name: str, kind: str, config: dict[str, Any]) -> wandb.Run:
        return wandb.init(
            project=self._project, group=self._group, job_type=kind, name=name, id=own, resume="allow", config=config,
            dir=self._folder, mode=self._mode, reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )  # fmt: skip
