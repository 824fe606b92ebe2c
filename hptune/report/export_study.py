"""Optuna: a script that rebuilds a study from all trials and queues the recommendation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from hptune.report.export_settings import Settings
from hptune.report.run import Run
from hptune.report.tables import Cell, trial_rows
from hptune.stages.key_sweep import swept_values
from hptune.stages.rounds import contender

NAMES = ("lr", "batch_size", "momentum", "momentum_min", "weight_decay")
NOTES = ("trial_id", "stage", "repetition", "steps", "samples", "val_loss", "metric", "test_loss", "seconds", "status")

SCRIPT = '''\
{comment}
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

DISTRIBUTIONS = {{
{distributions}}}
RECOMMENDED = {recommended}

NAMES = {names!r}
NOTES = {notes!r}
# state, {value}, parameters (NAMES), those of key sweeps, notes (NOTES)
TRIALS = [
{trials}]


def make_study(name={name!r}, **keywords):
    """A study that knows all trials of the search; its next trial is the recommendation."""
    study = optuna.create_study(study_name=name, direction={direction!r}, **keywords)
    trials = []
    for state, value, values, swept, notes in TRIALS:
        parameters = {{**dict(zip(NAMES, values)), **swept}}
        trials.append(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                value=value,
                params=parameters,
                distributions={{parameter: DISTRIBUTIONS[parameter] for parameter in parameters}},
                user_attrs={{note: found for note, found in zip(NOTES, notes) if found is not None}},
            )
        )
    study.add_trials(trials)
    study.enqueue_trial(RECOMMENDED)
    return study


if __name__ == "__main__":
    study = make_study()
    print(f"{{len(TRIALS)}} trials of the search")
    if any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials):
        print(f"Best {value}: {{study.best_value:.4g}} at {{study.best_params}}")
    print(f"The next trial is the recommendation: {{RECOMMENDED}}")
'''


def optuna(run: Run, settings: Settings) -> str:
    """Return the script. Points of this space are the trials of the run's task under its schedule and those of its key sweeps.

    A value that only a key sweep moved is a parameter of that sweep's trials alone. LR range tests are no trainings, and trials from
    before the config was changed are of another problem.
    """
    knowledge = next(stage.knowledge for stage in run.stages if stage.counts)
    swept = _swept_values(run)
    rows = list(zip(run.records, trial_rows(run), strict=True))
    ours = [
        (swept.get(record.trial_id, {}), row)
        for record, row in rows
        if record.trial_id in swept or (record.spec.task == knowledge.task and record.spec.schedule == settings.schedule)
    ]
    left_out = len(rows) - len(ours)
    recommended = asdict(settings.hyperparameters)
    by_metric, larger = knowledge.rank_by == "metric", knowledge.larger_is_better
    value = "metric" if by_metric else "validation loss"
    notes = [
        "`python FILE` makes the study in memory and shows its best; make_study(storage=...) keeps it "
        "(a JournalStorage takes thousands of trials in seconds, SQLite in minutes). FILE must not be named optuna.py.",
        "Short and full-length trials are in one study: their values are comparable only at equal `steps`.",
        "Diverged trials are PRUNED: they tell a sampler to stay away.",
        *([f"{left_out} trials are left out: LR range tests, and what was run before the config was changed."] if left_out else []),
    ]
    choices = {key: [extra[key] for extra, _ in ours if key in extra] for key in dict.fromkeys(key for extra, _ in ours for key in extra)}
    space = {name: _distribution(name, [*(row[name] for _, row in ours), recommended[name]]) for name in NAMES}
    space |= {key: _categorical(list(dict.fromkeys(values))) for key, values in choices.items()}
    return SCRIPT.format(
        comment=settings.comment(*notes),
        name=run.name,
        names=NAMES,
        notes=NOTES,
        value=value,
        direction="maximize" if by_metric and larger else "minimize",
        distributions="".join(f"    {name!r}: {text},\n" for name, text in space.items()),
        recommended=repr(recommended),
        trials="".join(f"    {_trial(row, extra, 'metric' if by_metric else 'val_loss')!r},\n" for extra, row in ours),
    )


def _swept_values(run: Run) -> dict[str, dict[str, Any]]:
    """Of each trial of a key sweep that counts, the key and its value; a list or a block, which Optuna cannot hold, as JSON."""
    found: dict[str, dict[str, Any]] = {}
    for stage in run.stages:
        values = swept_values(stage.knowledge) if stage.counts and stage.name.rpartition(".")[2] not in NAMES else {}
        for record in stage.records if values else ():
            value = values[contender(record.spec)]
            kept = value if isinstance(value, str | int | float | None) else json.dumps(value)
            found.setdefault(record.trial_id, {})[stage.name] = kept
    return found


def _distribution(name: str, values: list[Any]) -> str:
    """The range that was tried; a logarithmic scale where no value is zero."""
    if name == "batch_size":
        return _categorical(sorted(set(values)))
    low, high = float(min(values)), float(max(values))
    log = name in ("lr", "weight_decay") and low > 0
    return f"FloatDistribution({low!r}, {high!r}{', log=True' if log else ''})"


def _categorical(choices: list[Any]) -> str:
    return f"CategoricalDistribution({choices!r})"


def _trial(row: dict[str, Cell], swept: dict[str, Any], column: str) -> tuple[Any, ...]:
    value = row[column]
    usable = row["status"] == "completed" and isinstance(value, float) and math.isfinite(value)
    state = "COMPLETE" if usable else "PRUNED" if row["status"] == "diverged" else "FAIL"
    notes = tuple(row[name] if _finite(row[name]) else None for name in NOTES)
    return state, value if usable else None, tuple(row[name] for name in NAMES), swept, notes


def _finite(value: Cell) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
