"""A run as its directory tells it: its stages, trials, curves and recommendation."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hptune.analysis.recommendation import Conclusion, Recommendation
from hptune.config.loader import LoadedConfig
from hptune.errors import InputError, RunDirectoryError, said_by
from hptune.stages import STAGES, Knowledge
from hptune.store.layout import RunLayout
from hptune.trial import Task, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

    from hptune.report.charts import Chart

State = Literal["empty", "unfinished", "failed", "finished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """One stage: what it knew, the `records` there are of its `planned` trials (in plan order), and what they show.

    `conclusion` is None before the first trial. A stage is `finished` once the run concluded from all planned trials; it `counts`
    toward the recommendation when it is finished, belongs to the run's current task, and the config still has it.
    """

    name: str
    knowledge: Knowledge
    planned: int
    records: tuple[TrialRecord, ...]
    conclusion: Conclusion | None
    finished: bool
    counts: bool

    @property
    def state(self) -> State:
        """`failed` where it finished without anything usable."""
        if not self.finished or self.conclusion is None:
            return "unfinished"
        return "failed" if self.conclusion.chosen is None else "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything a run directory holds, read once; `hptune.run` and `hptune.load_run` return it. A notebook shows its summary.

    `config_text` is config.yaml as it stands; `loaded` its validated form, None where it cannot be read on this machine (`notes` says
    why). `records`: every trial of the journal, `train`'s own included. `notes`: sentences on what a reader should know. `recommendation`:
    what the finished stages add up to, None before the first; its `hyperparameters` are for the full length.

    >>> import hptune
    >>> run = hptune.load_run("runs/tiny")
    >>> run.name, run.state, [stage.name for stage in run.stages]
    ('tiny', 'finished', ['lr_range', 'weight_decay'])
    >>> run.recommendation.confirmed
    False
    """

    name: str
    layout: RunLayout
    config_text: str
    loaded: LoadedConfig | None
    environment: Mapping[str, Any]
    task: Task | None
    stages: tuple[StageResult, ...]
    records: tuple[TrialRecord, ...]
    recommendation: Recommendation | None
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """`unfinished` while a planned trial is missing or a stage has not concluded; `failed` where a stage found nothing usable."""
        states = [stage.state for stage in self.stages]
        if not self.records:
            return "empty"
        for state in ("failed", "unfinished"):
            if state in states:
                return state
        return "finished"

    @property
    def conclusions(self) -> tuple[Conclusion, ...]:
        """The conclusions the recommendation rests on."""
        return tuple(stage.conclusion for stage in self.stages if stage.counts and stage.conclusion is not None)

    @property
    def ahead(self) -> tuple[str, ...]:
        """Stages of the config after the latest one begun; what a budget passed over lies before it.

        >>> import hptune
        >>> hptune.load_run("runs/tiny").ahead
        ('refine', 'confirm')
        """
        begun = max((STAGES.index(stage.name) for stage in self.stages if stage.name in STAGES), default=-1)
        return tuple(name for name in missing_stages(self.stages, self.loaded) if STAGES.index(name) > begun)

    @property
    def charts(self) -> dict[str, Chart]:
        """The report's charts by the names of their figures, e.g. `weight_decay`, as altair objects: they draw themselves in a notebook.

        >>> import hptune
        >>> charts = hptune.load_run("runs/tiny").charts
        >>> "weight_decay" in charts
        True
        >>> charts["weight_decay"].save("decay.html")
        """
        from hptune.report.charts import make_figures

        return {figure.name: figure.chart for figures in make_figures(self).values() for figure in figures}

    def _repr_html_(self) -> str:
        """What a notebook shows of a run."""
        from hptune.report.html import summary

        return summary(self)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, in journal order: `trial_id`, its stage, hyper-parameters, losses, metric, cost and status.

        >>> import hptune
        >>> trials = hptune.load_run("runs/tiny").trials
        >>> set(trials["status"]) <= {"completed", "diverged"}
        True
        >>> bool(trials["val_loss"].min() < 2.3)  # chance is log 10
        True
        """
        import pandas as pd

        from hptune.report.tables import TRIAL_COLUMNS, trial_rows

        return pd.DataFrame(trial_rows(self), columns=list(TRIAL_COLUMNS))

    def stage(self, name: str) -> StageResult:
        """Return the stage called `name` (a sweep: its config key). Raises InputError where the run has none of that name.

        >>> import hptune
        >>> hptune.load_run("runs/tiny").stage("weight_decay").conclusion.sentence  # doctest: +ELLIPSIS
        'weight decay ...'
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages) or "none yet"
        raise InputError(f"{self.layout.root} has no stage {name!r}; its stages: {known}")

    def table(self, stage: str) -> pd.DataFrame:
        """Return the ranked table of `stage`, columns as in `tables/<stage>.csv`, the best row first. Raises InputError as `stage` does.

        >>> import hptune
        >>> table = hptune.load_run("runs/tiny").table("weight_decay")
        >>> int(table["rank"].iloc[0]), table["verdict"].iloc[0]
        (1, 'best')
        """
        import pandas as pd

        from hptune.report.tables import stage_columns, stage_rows

        conclusion = self.stage(stage).conclusion
        return pd.DataFrame(stage_rows(conclusion), columns=list(stage_columns(conclusion)))

    def curve(self, trial_id: str) -> pd.DataFrame:
        """Return the per-step series of a trial, NaN where nothing was measured.

        Columns: `step` (steps done), `lr`, `momentum`, `train_loss`, `val_loss`, `metric` and what else the trainer measured.
        Raises InputError where the run has no such curve, RunDirectoryError where its file is damaged.

        >>> import hptune
        >>> run = hptune.load_run("runs/tiny")
        >>> curve = run.curve(run.trials["trial_id"].iloc[-1])
        >>> int(curve["step"].iloc[-1]) == run.records[-1].steps
        True
        """
        path = self.layout.curve(trial_id)
        if not path.is_file():
            raise InputError(f"{self.layout.root} has no curve of a trial {trial_id!r}: `trials` lists the ids")
        return _read_curve(path)


def missing_stages(stages: Sequence[StageResult], loaded: LoadedConfig | None) -> tuple[str, ...]:
    """Stages that the config has and `stages` have not."""
    planned = {stage.name for stage in stages}
    return tuple(name for name in STAGES if loaded is not None and getattr(loaded.experiment.stages, name) and name not in planned)


def _read_curve(path: Path) -> pd.DataFrame:
    """The curve in a file that was written whole: integers in `step`, floats elsewhere, the last line complete."""
    import pandas as pd

    kinds: defaultdict[str, type] = defaultdict(lambda: float, step=int)
    try:
        content = path.read_text(encoding="utf-8")
        if not content.endswith("\n"):
            raise ValueError("its last line is cut off" if content else "it is empty")
        curve = pd.read_csv(io.StringIO(content), dtype=kinds)
        if "step" not in curve or not isinstance(curve.index, pd.RangeIndex):  # pandas takes what is in excess of the header for an index
            raise ValueError("it has no column step, or rows longer than its header")
        return curve.astype({name: float for name in curve.columns if name != "step"})  # without rows they are not yet
    except Exception as error:  # damaged bytes can make pandas fail anywhere
        reason = f"the curve {path} cannot be read: {said_by(error)}"
        raise RunDirectoryError(f"{reason}; the trial's record in the journal, and all that rests on it, is unaffected") from error
