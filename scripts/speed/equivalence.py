"""Whether two numerics train to the same loss: paired trainings and two one-sided t-tests."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hptune.config.loader import from_tree
from hptune.engine.problem import open_problem
from hptune.engine.trainer import run_trial
from hptune.engine.workload import Problem
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, Numerics, TrialSpec, derive_seed
from speed.options import Options
from speed.processes import isolated
from speed.results import Comparison, Target

PAIRS, QUICK_PAIRS = 30, 6
MARGIN = 0.02  # of the final validation loss
ALPHA = 0.05
EPOCHS = 3


def compare(options: Options) -> Comparison:
    """fp32 against bf16, the same seeds; and fp32 in the two memory formats."""
    began = time.perf_counter()
    pairs = QUICK_PAIRS if options.quick else PAIRS
    rows = isolated(both, pairs)
    # A test that does not show equivalence has not shown a difference either.
    targets = tuple(
        Target(what=row["numerics"], wanted=f"within {MARGIN:.0%}", measured=row["loss ratio"], met=row["equivalent"] or None)
        for row in rows
    )
    return Comparison(
        name="equivalence",
        title="Equivalence of numerics",
        rows=tuple(rows),
        targets=targets,
        notes=(
            f"{pairs} pairs of trainings with common seeds, small_cnn on digits, {EPOCHS} epochs; ratio of final losses with the "
            f"{1 - 2 * ALPHA:.0%} interval of its mean; equivalent where two one-sided t-tests at {ALPHA:g} put it within {MARGIN:.0%}",
            "not equivalent means not shown to be: more pairs narrow the interval",
        ),
        seconds=time.perf_counter() - began,
    )


def both(pairs: int) -> list[dict[str, Any]]:
    problem = open_problem(from_tree({"data": {"name": "digits"}, "model": {"name": "small_cnn"}, "device": "cpu"}, Path.cwd()).experiment)
    fp32 = replace(problem.task.numerics, precision="fp32", channels_last=False)
    others = {
        "fp32 : bf16 channels-last": replace(fp32, precision="bf16", channels_last=True),
        "fp32 : fp32 channels-last": replace(fp32, channels_last=True),
    }
    return [{"numerics": name, **equivalence(problem, fp32, other, pairs=pairs)} for name, other in others.items()]


def equivalence(problem: Problem, first: Numerics, second: Numerics, *, pairs: int, margin: float = MARGIN) -> dict[str, Any]:
    """Train `pairs` times under each numerics; return the ratio second / first of final validation losses and its test.

    A training that does not complete under one of them counts as a difference no test can excuse.
    """
    losses = [(_final_loss(problem, first, k), _final_loss(problem, second, k)) for k in range(pairs)]
    if not all(math.isfinite(loss) for pair in losses for loss in pair):
        return {"loss ratio": "a training diverged", "p": 1.0, "pairs": pairs, "equivalent": False}
    ratio, low, high, p = two_one_sided([math.log(b / a) for a, b in losses], margin)
    return {"loss ratio": f"{ratio:.4f} [{low:.4f}, {high:.4f}]", "p": p, "pairs": pairs, "equivalent": p < ALPHA}


def two_one_sided(differences: Sequence[float], margin: float) -> tuple[float, float, float, float]:
    """Test differences of log losses against ±log(1 + `margin`); return ratio, its interval's ends, and the larger p."""
    values, bound = np.asarray(differences), math.log1p(margin)
    mean, freedom = float(values.mean()), len(values) - 1
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return math.exp(mean), math.exp(mean), math.exp(mean), 0.0 if abs(mean) < bound else 1.0
    half = float(stats.t.ppf(1 - ALPHA, freedom)) * error
    p = max(float(stats.t.sf((bound + mean) / error, freedom)), float(stats.t.sf((bound - mean) / error, freedom)))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half), p


def _final_loss(problem: Problem, numerics: Numerics, repetition: int) -> float:
    own = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
    steps = EPOCHS * (problem.task.train_samples // own.batch_size)
    spec = TrialSpec(
        task=problem.task.task_id,
        hyperparameters=own,
        schedule=Schedule(),
        steps=steps,
        seed=derive_seed(0, repetition),
        repetition=repetition,
        evaluate_at=(steps,),
        numerics=numerics,
    )
    record = run_trial(problem, spec).record
    return record.val_loss if record.status == "completed" else math.nan
