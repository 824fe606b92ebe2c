"""Why the recommendation is what it is: one paragraph in plain words, made of the conclusions' numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from hptune.analysis.recommendation import Conclusion, Recommendation
from hptune.analysis.wording import format_number
from hptune.report.frames import is_number
from hptune.report.frames_confirm import baseline_loss, paired
from hptune.report.recommended import change, interval_text
from hptune.report.run import Run, StageResult
from hptune.report.titles import HYPERPARAMETERS, title_of


def why(run: Run) -> str:
    """What was done, what changes, what it gained on which data, and what could not be told; empty without a recommendation."""
    found = run.recommendation
    if found is None:
        return ""
    confirm = next((stage for stage in run.stages if stage.name == "confirm" and stage.counts), None)
    sentences = [
        _searched(run, confirm),
        _changes(found),
        *(_measured(confirm, confirm.conclusion, metric_name(run)) if confirm and confirm.conclusion else ()),
        _ties(run.conclusions),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def gain_range(recommendation: Recommendation) -> tuple[str, str]:
    """The change of the validation loss in per cent and its 95 % interval, in words; empty where there is none."""
    gain = recommendation.gain or {}
    ratio, low, high = (gain.get(key, math.nan) for key in ("ratio", "low", "high"))
    if not is_number(ratio):
        return "", ""
    known = is_number(low) and is_number(high)
    return change(ratio), interval_text(low, high) if known else "no interval can be given"


def _searched(run: Run, confirm: StageResult | None) -> str:
    short = [stage for stage in run.stages if stage.counts and stage.name != "confirm"]
    if not short:
        return ""
    trials = len({record.trial_id for stage in short for record in stage.records})
    text = f"{_count(trials, 'training')} compared settings step by step ({', '.join(title_of(stage.name).lower() for stage in short)})"
    if confirm is None or confirm.conclusion is None:
        return f"{text}; no training at full length has checked the outcome yet."
    seeds = max((row.seeds for row in confirm.conclusion.rows), default=0)
    return f"{text}; the outcome was then trained at full length beside the baseline, on {_count(seeds, 'seed')} that no step had seen."


def _changes(found: Recommendation) -> str:
    before, after = asdict(found.baseline), asdict(found.hyperparameters)
    changed = [
        f"{HYPERPARAMETERS[name]} from {format_number(before[name])} to {format_number(after[name])}"
        for name in after
        if after[name] != before[name]
    ]
    kept = [HYPERPARAMETERS[name] for name in after if after[name] == before[name]]
    if not changed:
        return "The baseline's settings all stay."
    return f"It takes {_listed(changed)}{f' and keeps {_listed(kept)}' if kept else ''}."


def _measured(stage: StageResult, conclusion: Conclusion, metric: str) -> list[str]:
    level, row = baseline_loss(conclusion), next((row for row in conclusion.rows if row.chosen), None)
    test, shorter = conclusion.detail.get("test") or {}, conclusion.detail.get("shorter") or ()
    sentences = []
    pairs = paired(stage, conclusion)
    if row is not None and level is not None and "gain" in conclusion.detail and pairs:
        lower = sum(mine.val_loss < other.val_loss for mine, other in pairs)
        sentences.append(
            f"Its validation loss was {format_number(row.val_loss)} against the baseline's {format_number(level)}, "
            f"lower on {lower} of {_count(len(pairs), 'seed')}."
        )
    if test:
        text = f"On the test part, which no choice has used, its loss was {format_number(test['recommended_loss'])}"
        text += f" against {format_number(test['baseline_loss'])}"
        if is_number(test["recommended_metric"]) and is_number(test["baseline_metric"]):
            text += f", its {metric} {test['recommended_metric']:.4g} against {test['baseline_metric']:.4g}"
        sentences.append(f"{text}.")
    enough = [share for share, loss in shorter if level is not None and loss <= level]
    if enough:
        sentences.append(f"Trained for only {100 * min(enough):.0f} % of the length, it already reached the baseline's level.")
    return sentences


def _ties(conclusions: Sequence[Conclusion]) -> str:
    """Stages whose choice is one of several that cannot be told apart."""
    tied = [c.stage for c in conclusions if sum(row.verdict in ("best", "tied") for row in c.rows) > 1]
    return f"Not told apart from the next best by what was measured: {_listed([title_of(s).lower() for s in tied])}." if tied else ""


def metric_name(run: Run) -> str:
    """The name of the metric, as far as it is known."""
    return run.loaded.experiment.metric.name or "metric" if run.loaded else "metric"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
