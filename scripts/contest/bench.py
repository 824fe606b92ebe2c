"""Where the searches of one job and repetition run: the same engine for all, and no trial twice.

A journal keeps every trial by its id, so that searches share what both ask for, and a bench that was stopped, or whose rules were
changed, trains only what is new.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from contest.jobs import Job
from hptune.analysis.recommendation import Longer
from hptune.config.loader import from_tree
from hptune.config.schema import Experiment
from hptune.engine.problem import open_problem
from hptune.engine.trainer import run_trial
from hptune.engine.workload import Problem
from hptune.errors import StageError
from hptune.executors.serial import SerialExecutor
from hptune.knowledge import Progress, stage_knowledge
from hptune.pipeline import run_stages
from hptune.running import Run
from hptune.stages import Knowledge
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec
from speed.results import geometric_mean

EVALUATED = 1 / 3  # what measuring a sample costs, in samples trained on
OUTCOME_SEEDS = (100, 101)  # repetitions at full length that no search has seen


class Bench:
    """One job at one repetition, open for searches. `chance`: the loss of knowing how often each target occurs, and nothing else."""

    def __init__(self, problem: Problem, tree: dict[str, Any], home: Path, journal: Journal, chance: float) -> None:
        self.problem, self.journal, self.chance = problem, journal, chance
        self._tree, self._home = tree, home

    @property
    def knowledge(self) -> Knowledge:
        """What a search knows at its start."""
        return stage_knowledge("lr_range", self.problem.experiment, self.problem.task, Progress(), settings={})

    @property
    def baseline(self) -> Hyperparameters:
        """The configuration of somebody who does not search."""
        return self.problem.experiment.baseline_hyperparameters()

    @property
    def unit(self) -> float:
        """The cost of a short run that is measured once, at its end; in training samples."""
        return self.knowledge.short_epochs * self.problem.task.train_samples + EVALUATED * self.problem.task.val_samples

    @property
    def longer(self) -> Longer:
        """The training at full length."""
        return self.knowledge.longer(self.knowledge.full_epochs / self.knowledge.short_epochs)

    def experiment(self, *, short_runs: float) -> Experiment:
        """The job's config with a budget for stages 1 to 5."""
        budget = {**self._tree["budget"], "search": short_runs}
        return from_tree({**self._tree, "budget": budget}, self._home).experiment

    def trial(self, spec: TrialSpec) -> TrialRecord:
        """The record of a trial, from the journal where it is there."""
        records = self.journal.state.records
        if spec.trial_id not in records:
            self.journal.append("trial", run_trial(self.problem, spec).record.to_json())
        return records[spec.trial_id]

    def stages(self, experiment: Experiment, names: Sequence[str]) -> Progress:
        """Run stages as `hptune run` does, up to one in which nothing trains."""
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(
                experiment=experiment,
                task=self.problem.task,
                executor=SerialExecutor(lambda item: run_trial(self.problem, item[1])),
                journal=self.journal,
                layout=RunLayout(Path(scratch)),
            )
            try:
                for _ in run_stages(run, names):
                    pass
            except StageError:
                pass  # what the stages before it found stands
            return run.progress

    def cost(self, records: Iterable[TrialRecord]) -> float:
        """Units of all different trials, each measured as often as it was."""
        different = {record.trial_id: record for record in records}
        return sum(self.cost_of(record, len(record.curve.step)) for record in different.values())

    def cost_of(self, record: TrialRecord, measurements: int) -> float:
        """Units of a trial that is measured so many times."""
        limit = record.spec.validation_limit
        measured = self.problem.task.val_samples if limit is None else limit
        return (record.samples + EVALUATED * measured * measurements) / self.unit

    def outcome(self, own: Hyperparameters) -> dict[str, float]:
        """What a configuration comes to at full length: geometric mean of the test loss over fresh seeds, mean of the metric.

        A training that diverges has the loss of chance.
        """
        records = [self.trial(self.knowledge.full_run(own, seed)) for seed in OUTCOME_SEEDS]
        losses = [r.test_loss if r.usable and math.isfinite(r.test_loss) else self.chance for r in records]
        metrics = [r.test_metric for r in records if r.usable]
        return {"loss": geometric_mean(losses), "metric": sum(metrics) / len(metrics) if metrics else math.nan}


@contextmanager
def open_bench(job: Job, repetition: int, folder: Path) -> Iterator[Bench]:
    """Open a job at a repetition; its data and its journal lie below `folder`."""
    home = folder / job.name / str(repetition)
    home.mkdir(parents=True, exist_ok=True)
    data = home / "data.npz"
    if not data.exists():
        job.write(repetition, data)
    with np.load(data) as held:
        chance = _chance(held["y_train"])
    tree = job.tree(repetition, data)
    problem = open_problem(from_tree(tree, home).experiment)
    with Journal(home / "journal.jsonl") as journal:
        yield Bench(problem, tree, home, journal, chance)


def _chance(y: Any) -> float:
    """Entropy of the classes, or variance of the values."""
    if not np.issubdtype(y.dtype, np.integer):
        return float(y.var())
    share = np.bincount(y) / len(y)
    return float(-sum(p * math.log(p) for p in share if p))
