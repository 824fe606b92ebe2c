"""Optuna: a script that rebuilds a study from all trials and queues the recommendation."""

from __future__ import annotations

import math
from dataclasses import asdict
from pprint import pformat
from typing import Any

from hptune.report.export_settings import Settings
from hptune.report.run import Run
from hptune.report.tables import Cell, trial_rows

NAMES = ("lr", "batch_size", "momentum", "momentum_min", "weight_decay")

SCRIPT = """\
{comment}
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

DISTRIBUTIONS = {{
{distributions}}}
RECOMMENDED = {recommended}

# state, validation loss, parameters, notes
TRIALS = {trials}


def make_study(name={name!r}, **keywords):
    \"\"\"A study that knows all trials of the search; its next trial is the recommendation.\"\"\"
    study = optuna.create_study(study_name=name, direction="minimize", **keywords)
    for state, value, parameters, notes in TRIALS:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state], value=value, params=parameters, distributions=DISTRIBUTIONS, user_attrs=notes
            )
        )
    study.enqueue_trial(RECOMMENDED)
    return study


if __name__ == "__main__":
    study = make_study()
    print(f"{{len(TRIALS)}} trials, best validation loss {{study.best_value:.4g}} at {{study.best_params}}")
"""


def optuna(run: Run, settings: Settings) -> str:
    """Return the script; trials of other tasks (a sweep of a model key, say) and LR range tests are no points of this space."""
    recommended = asdict(settings.hyperparameters)
    task = next(stage.knowledge.task for stage in run.stages if stage.counts)
    rows = [
        row
        for record, row in zip(run.records, trial_rows(run), strict=True)
        if record.spec.task == task and record.spec.schedule.kind != "ramp"
    ]
    points = [{name: row[name] for name in NAMES} for row in rows]
    notes = [
        "Short and full-length trials are in one study: their losses are comparable only at equal `steps`.",
        "Diverged trials are PRUNED: they tell a sampler to stay away.",
    ]
    return SCRIPT.format(
        comment=settings.comment(*notes),
        name=run.name,
        distributions="".join(f"    {name!r}: {_distribution(name, [p[name] for p in (*points, recommended)])},\n" for name in NAMES),
        recommended=pformat(recommended, width=120, sort_dicts=False),
        trials=pformat([_trial(row, point) for row, point in zip(rows, points, strict=True)], width=160, sort_dicts=False),
    )


def _distribution(name: str, values: list[Any]) -> str:
    """The range that was tried; a logarithmic scale where no value is zero."""
    if name == "batch_size":
        return f"CategoricalDistribution({sorted(set(values))!r})"
    low, high = float(min(values)), float(max(values))
    log = name in ("lr", "weight_decay") and low > 0
    return f"FloatDistribution({low!r}, {high!r}{', log=True' if log else ''})"


def _trial(row: dict[str, Cell], point: dict[str, Cell]) -> tuple[str, Cell, dict[str, Cell], dict[str, Cell]]:
    loss = row["val_loss"]
    usable = row["status"] == "completed" and isinstance(loss, float) and math.isfinite(loss)
    state = "COMPLETE" if usable else "PRUNED" if row["status"] == "diverged" else "FAIL"
    kept = ("trial_id", "stage", "repetition", "steps", "samples", "metric", "test_loss", "seconds", "status")
    return state, loss if usable else None, point, {name: row[name] for name in kept if _finite(row[name])}


def _finite(value: Cell) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
