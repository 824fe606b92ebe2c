"""Runs side by side: what differs in their settings, what each cost, recommends and showed. Pure text and plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hptune.cli import words
from hptune.cli.results import differing_keys
from hptune.cli.tables import GAP, Column, Table
from hptune.config.dump import as_written
from hptune.report.versus import Versus, incomparable, versus
from hptune.trial import is_result

if TYPE_CHECKING:
    from hptune.report.run import Run

LABELS = 22  # characters of the first column, at least; longer keys wrap
NARROWEST = 12  # characters of a run's column, at least; longer cells wrap
ABSENT = "–"
NOT_A_SETTING = ("name",)  # a run's name says where it lies


def comparison_document(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the terminal shows of the comparison: `settings` by dotted key, one value a run in the order of `runs`."""
    return {
        "runs": [_run_document(run) for run in runs],
        "settings": {key: [_value(run, key) for run in runs] for key in differing_settings(runs)},
        "differences": [_difference(versus(runs[0], run)) for run in runs[1:]],
        "notes": comparison_notes(runs),
    }


def comparison_tables(runs: Sequence[Run], width: int) -> list[tuple[str, Table]]:
    """Headings and tables, a column a run; where `width` does not hold all runs, they stand in several tables, none left out."""
    together = max(1, (width - LABELS) // (NARROWEST + GAP))
    titles, documents, settings = run_titles(runs), [_run_document(run) for run in runs], differing_settings(runs)
    tables = []
    for heading, rows in (
        ("settings that differ", [(key, *(_setting(run, key) for run in runs)) for key in settings]),
        ("results", _result_rows(documents)),
    ):
        for first in range(0, len(runs), together):
            shown = slice(first, first + together)
            cells = tuple((row[0], *row[1:][shown]) for row in rows)
            columns = (Column(title="", prose=True, narrowest=LABELS), *map(_column, titles[shown]))
            marked = frozenset(i for i, row in enumerate(rows) if heading == "results" and len(set(row[1:])) > 1 and row[0] in _FOUND)
            tables.append((heading if first == 0 else "", Table(columns=columns, rows=cells, marked=marked)))
    return tables


def comparison_notes(runs: Sequence[Run]) -> list[str]:
    """What a reader should know before comparing: settings that cannot be read, and losses that are not of the same thing."""
    titles = run_titles(runs)
    notes = [f"{title}: its config cannot be read here, so that its settings are not compared" for title in _unreadable(runs, titles)]
    for title, run in zip(titles[1:], runs[1:], strict=True):
        note = incomparable(runs[0].task, run.task)
        if note:
            notes.append(f"{titles[0]} and {title}: {note}")
    return notes


def differences(runs: Sequence[Run]) -> list[str]:
    """A sentence for each run after the first: whether its recommendation is better or worse than the first one's beyond noise."""
    titles = run_titles(runs)
    return [f"{title} against {titles[0]}: {_verdict(versus(runs[0], run))}" for title, run in zip(titles[1:], runs[1:], strict=True)]


def _verdict(found: Versus) -> str:
    if found.why_not:
        return f"which recommendation is better cannot be said: {found.why_not}"
    if found.same:
        return "the same recommendation"
    comparison = found.comparison
    text = f"{words.number(comparison.ratio)} times the loss" if math.isfinite(comparison.ratio) else ""
    interval = _interval(comparison.low, comparison.high)
    text = f"{text} [{interval}]" if text and interval else text
    claim = "the recommendation is better" if comparison.better else "the recommendation is worse"
    said = f"{claim} beyond noise" if comparison.claim else "a difference between the recommendations is not shown"
    return f"{text}, {words.count(found.seeds, 'shared seed')}: {said}" if text else f"{said}, {words.count(found.seeds, 'shared seed')}"


def _difference(found: Versus) -> dict[str, Any]:
    """As in the sentence: None where nothing can be said, `why_not` then says why."""
    comparison = found.comparison
    said = {"same": found.same, "claim": comparison.claim, "better": comparison.better, "seeds": found.seeds}
    numbers = {"ratio": comparison.ratio, "low": comparison.low, "high": comparison.high}
    return {"why_not": found.why_not or None, **(dict.fromkeys(said) if found.why_not else said), **numbers}


def run_titles(runs: Sequence[Run]) -> list[str]:
    """The name of each run's directory; where two have the same, the paths as they were given."""
    names = [run.layout.root.name or str(run.layout.root) for run in runs]
    return names if len(set(names)) == len(names) else [str(run.layout.root) for run in runs]


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Dotted config keys of which not all runs whose config can be read have the same value."""
    settings = [run.loaded.experiment.model_dump() for run in runs if run.loaded is not None]
    found = dict.fromkeys(key for other in settings[1:] for key in differing_keys(settings[0], other))
    whole = [f"{key}." for key in found]  # a block that one run lacks holds whatever else differs in it
    return [key for key in found if key not in NOT_A_SETTING and not any(key.startswith(block) for block in whole)]


def _column(title: str) -> Column:
    return Column(title=title, prose=True, narrowest=NARROWEST)


def _unreadable(runs: Sequence[Run], titles: Sequence[str]) -> list[str]:
    return [title for title, run in zip(titles, runs, strict=True) if run.loaded is None]


def _settings(run: Run) -> Mapping[str, Any]:
    """The config with `${VAR}` as it was written: what a variable holds may be a secret."""
    written: Mapping[str, Any] = as_written(run.loaded.experiment.model_dump(), run.loaded.tree) if run.loaded is not None else {}
    return written


def _value(run: Run, key: str) -> Any:
    """The value at a dotted key; None where the run has none there."""
    value: Any = _settings(run)
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _setting(run: Run, key: str) -> str:
    value = _value(run, key)
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _run_document(run: Run) -> dict[str, Any]:
    """One run: state, cost of all its trials, recommendation, gain over its own baseline, and the losses that confirm saw."""
    found = run.recommendation
    return {
        "run_dir": str(run.layout.root),
        "name": run.name,
        "state": run.state,
        "trials": len(run.records),
        "samples": sum(record.samples for record in run.records),
        "seconds": sum(record.seconds for record in run.records),
        "recommendation": {**asdict(found.hyperparameters), "epochs": found.epochs} if found else None,
        "confirmed": found is not None and found.confirmed,
        "better": found.better if found else None,
        "gain": dict(found.gain) if found and found.gain else None,
        "confirm": _confirmed_losses(run),
        "notes": list(run.notes),
    }


def _confirmed_losses(run: Run) -> dict[str, Any] | None:
    """The row of confirm's table that is recommended, with its mean loss and metric on the test part where there is one."""
    stage = next((stage for stage in run.stages if stage.name == "confirm" and stage.counts and stage.conclusion is not None), None)
    row = next((row for row in stage.conclusion.rows if row.chosen), None) if stage and stage.conclusion else None
    if stage is None or row is None:
        return None
    records = [record for record in stage.records if record.trial_id in row.trials and record.usable]
    return {
        "candidate": str(dict(row.values).get("candidate", "")),
        **{name: getattr(row, name) for name in ("val_loss", "val_loss_low", "val_loss_high", "metric", "train_loss", "seeds")},
        "test_loss": _mean([record.test_loss for record in records]),
        "test_metric": _mean([record.test_metric for record in records]),
    }


def _mean(values: Sequence[float]) -> float:
    """The mean; NaN where one of the values is no result, or there is none."""
    return sum(values) / len(values) if values and all(map(is_result, values)) else math.nan


_FOUND = (*words.LABELS.values(), "epochs")


def _result_rows(documents: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Label and one cell a run; rows that no run has anything to say in are left out."""
    columns = [_result_cells(document) for document in documents]
    return [(label, *(cells[label] or ABSENT for cells in columns)) for label in columns[0] if any(cells[label] for cells in columns)]


def _result_cells(document: Mapping[str, Any]) -> dict[str, str]:
    found, gain, seen = (document[key] or {} for key in ("recommendation", "gain", "confirm"))
    return {
        "state": document["state"],
        "trials": f"{document['trials']:,}",
        "samples": f"{document['samples']:,}",
        "time of its trials": words.duration(document["seconds"]),
        **{label: words.number(found.get(name)) for name, label in words.LABELS.items()},
        "epochs": words.number(found.get("epochs")),
        "confirmed": "yes" if document["confirmed"] else "no",
        "better than baseline": _claim(document),
        "loss / own baseline's": words.number(gain.get("ratio")),
        "95 % of the ratio": _interval(gain.get("low"), gain.get("high")),
        "val loss": words.number(seen.get("val_loss")),
        "95 % of val loss": _interval(seen.get("val_loss_low"), seen.get("val_loss_high")),
        "metric": words.number(seen.get("metric")),
        "test loss": words.number(seen.get("test_loss")),
        "test metric": words.number(seen.get("test_metric")),
    }


def _claim(document: Mapping[str, Any]) -> str:
    if not document["confirmed"] or document["better"] is None:
        return ""
    if document["better"]:
        return "yes"
    return "not shown" if document["gain"] else "baseline stays"


def _interval(low: float | None, high: float | None) -> str:
    ends = words.number(low), words.number(high)
    return f"{ends[0]} to {ends[1]}" if all(ends) else ""


def given_twice(paths: Sequence[Path]) -> Path | None:
    """A run directory that stands twice among `paths`, however it is written."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            return path
        seen.add(path.resolve())
    return None
