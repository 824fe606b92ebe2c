"""recommended.yaml: a complete config with the recommended hyper-parameters and, as comments, the evidence."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from hptune.analysis.recommendation import Recommendation
from hptune.analysis.wording import format_number
from hptune.config.loader import LoadedConfig, dump_config, with_value
from hptune.config.schema import folder_name
from hptune.errors import InputError
from hptune.report.run import Run
from hptune.store.layout import write_atomic

SUFFIX = "-recommended"
OF_A_TRIAL = {"threads", "micro_batch", "compile", "devices_per_trial", "sync_batch_norm"}
"""Keys of the executor's section that change how a trial's numbers are rounded."""


def recommended_config_text(loaded: LoadedConfig, recommendation: Recommendation, destination: Path) -> str:
    """Return the config to be written in the directory `destination`; the same for the same results, whenever it is made.

    It has a name of its own, so that what is run from it does not land in the directory of the search, and names no executor:
    where the search ran changes nothing. What belongs to its trials' numerics stays.
    """
    executor = loaded.experiment.executor.model_dump(include=OF_A_TRIAL)
    return dump_config(
        with_value(loaded, "executor", executor),
        destination,
        name=recommended_name(loaded.experiment.name),
        hyperparameters=recommendation.hyperparameters,
        epochs=recommendation.epochs,
        comments=comments(recommendation),
    )


def recommended_name(name: str) -> str:
    """Return the name of the recommended config of the run `name`: a folder's name, too."""
    return folder_name(name.removesuffix(SUFFIX), room=len(SUFFIX)) + SUFFIX


def write_recommended(run: Run) -> None:
    """Write `recommended.yaml` where there is a recommendation and the config could be read."""
    if run.recommendation is not None and run.loaded is not None:
        text = recommended_config_text(run.loaded, run.recommendation, run.layout.root)
        write_atomic(run.layout.recommended, text)


def require_recommendation(run: Run) -> tuple[LoadedConfig, Recommendation]:
    """Return what an export needs. Raises InputError that names the command which makes it."""
    if run.loaded is None:
        raise InputError(f"{run.layout.root}: {run.notes[0]}")
    if run.recommendation is None:
        raise InputError(f"{run.layout.root} has no recommendation yet: no stage is finished; hptune run {run.layout.config} makes one")
    return run.loaded, run.recommendation


def comments(recommendation: Recommendation) -> list[str]:
    """The evidence: what it was shown to do, where each value came from, and the sentence of each stage."""
    baseline, recommended = asdict(recommendation.baseline), asdict(recommendation.hyperparameters)
    values = [
        f"  {name}: {format_number(recommended[name])} (baseline {format_number(baseline[name])}) from {source}"
        for name, source in recommendation.sources
    ]
    return [
        "Recommended by hptune. Train with it: hptune train recommended.yaml",
        verdict(recommendation),
        *values,
        *(f"- {sentence}" for sentence in recommendation.evidence),
        *(f"- {offer.sentence}" for offer in recommendation.offers),
    ]


def verdict(recommendation: Recommendation) -> str:
    """One sentence: whether full-length trainings compared it with the baseline, and what they showed."""
    if not recommendation.confirmed:
        return "Not confirmed: the stage confirm would compare it with the baseline at full length."
    if recommendation.hyperparameters == recommendation.baseline:
        return "Full-length trainings found nothing better than the baseline: it stays."
    if recommendation.gain is None:
        return "At full length the baseline gave no usable loss; this one did."
    measured = gain_text(recommendation)
    if recommendation.better:
        return f"Better than the baseline at full length: {measured}."
    return f"That it is better than the baseline at full length is not shown{f': {measured}' if measured else ''}."


def gain_text(recommendation: Recommendation) -> str:
    """The measured change of the validation loss with its interval; empty where there is none."""
    gain = recommendation.gain or {}
    ratio, low, high = (gain.get(key, math.nan) for key in ("ratio", "low", "high"))
    if not math.isfinite(ratio):
        return ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"validation loss {change(ratio)}, no interval can be given"
    return f"validation loss {change(ratio)}, {interval_text(low, high)}"


def interval_text(low: float, high: float) -> str:
    """The 95 % interval of a ratio of losses as changes in per cent, the smaller gain first."""
    first, last = change(high), change(low)
    words = first.split()[-1]
    return f"95 % interval {first.removesuffix(f' % {words}') if last.endswith(words) else first} to {last}"


def change(ratio: float) -> str:
    """A ratio of losses as a change in per cent."""
    return f"{abs(1 - ratio):.1%} {'lower' if ratio <= 1 else 'higher'}".replace("%", " %")
