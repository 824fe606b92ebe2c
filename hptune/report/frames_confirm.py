"""What the charts of the confirmation show, as plain data frames."""

from __future__ import annotations

import math

import pandas as pd

from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion
from hptune.report.frames import SEEDS, is_number
from hptune.report.run import StageResult
from hptune.trial import TrialRecord, is_result

VALIDATION, TEST = "validation part", "test part"
FULL = 0.99  # shares of the length above this are the full length


def gain_frame(conclusion: Conclusion) -> pd.DataFrame:
    """Losses over the baseline's, one row a part of the data: columns part, ratio, low, high, interval.

    `low` and `high` equal `ratio` where there is no interval; no rows unless losses are positive and another than the baseline won.
    """
    gain, test = conclusion.detail.get("gain") or {}, conclusion.detail.get("test") or {}
    ratio, low, high = (gain.get(key, math.nan) for key in ("ratio", "low", "high"))
    rows = []
    if is_number(ratio) and ratio > 0:
        known = is_number(low) and is_number(high) and low > 0
        interval = f"[{low:.3g}, {high:.3g}]" if known else "none can be given"
        low, high = (low, high) if known else (ratio, ratio)
        rows.append({"part": VALIDATION, "ratio": ratio, "low": low, "high": high, "interval": interval})
        mine, other = test.get("recommended_loss", math.nan), test.get("baseline_loss", math.nan)
        if mine > 0 and other > 0:
            rows.append({"part": TEST, "ratio": mine / other, "low": mine / other, "high": mine / other, "interval": "not computed"})
    return pd.DataFrame(rows, columns=["part", "ratio", "low", "high", "interval"])


def pair_frame(stage: StageResult, conclusion: Conclusion) -> pd.DataFrame:
    """One row a seed and part: columns part, seed, recommended, baseline (losses), ratio; the first `SEEDS` seeds."""
    rows = []
    for winner, baseline in paired(stage, conclusion)[:SEEDS]:
        for part, name in ((VALIDATION, "val_loss"), (TEST, "test_loss")):
            mine, other = getattr(winner, name), getattr(baseline, name)
            if is_result(mine) and is_result(other) and mine > 0 and other > 0:
                seed = str(winner.spec.repetition)
                rows.append({"part": part, "seed": seed, "recommended": mine, "baseline": other, "ratio": mine / other})
    return pd.DataFrame(rows, columns=["part", "seed", "recommended", "baseline", "ratio"])


def paired(stage: StageResult, conclusion: Conclusion) -> list[tuple[TrialRecord, TrialRecord]]:
    """What goes on and the baseline, trained on the same seeds: usable pairs, in the order of the seeds."""
    winner, baseline = (_by_seed(stage, row) for row in (_chosen(conclusion), baseline_row(conclusion)))
    return [(winner[seed], baseline[seed]) for seed in sorted(winner.keys() & baseline.keys())]


def shorter_frame(stage: StageResult, conclusion: Conclusion) -> pd.DataFrame:
    """Trainings of what goes on at full length and shorter: columns share (of the length), epochs, seed, val_loss.

    No rows where no shorter one is usable; the first `SEEDS` seeds of each length.
    """
    if "shorter" not in conclusion.detail:
        return pd.DataFrame()
    own = [record for record in stage.records if record.usable and record.spec.hyperparameters == conclusion.chosen]
    longest = max((record.spec.steps for record in own), default=1)
    rows = [
        {
            "share": round(record.spec.steps / longest, 2),
            "epochs": record.spec.samples / max(1, stage.knowledge.train_samples),
            "seed": str(record.spec.repetition),
            "val_loss": record.val_loss,
        }
        for record in sorted(own, key=lambda record: record.spec.repetition)
    ]
    frame = pd.DataFrame(rows, columns=["share", "epochs", "seed", "val_loss"]).groupby("share").head(SEEDS)
    return frame if (frame["share"] < FULL).any() else frame.iloc[:0]


def baseline_row(conclusion: Conclusion) -> Row | None:
    """The baseline among the candidates."""
    return next((row for row in conclusion.rows if dict(row.values).get("candidate") == "baseline"), None)


def baseline_loss(conclusion: Conclusion) -> float | None:
    """The baseline's adjusted mean loss; None where it has none."""
    row = baseline_row(conclusion)
    return row.val_loss if row is not None and math.isfinite(row.val_loss) else None


def _chosen(conclusion: Conclusion) -> Row | None:
    return next((row for row in conclusion.rows if row.chosen), None)


def _by_seed(stage: StageResult, row: Row | None) -> dict[int, TrialRecord]:
    trials = set(row.trials) if row is not None else set()
    return {record.spec.repetition: record for record in stage.records if record.trial_id in trials and record.usable}
