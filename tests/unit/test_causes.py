"""What sweeps show to be wrong: made by hand, and recorded from trainings whose truth other seeds tell."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from hptune.analysis.candidates import Candidate
from hptune.analysis.causes import findings
from hptune.analysis.ranking import rank
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

OWN = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-3)
Losses = dict[int, tuple[float, float]]
"""Training and validation loss of each seed."""


def candidate(own: Hyperparameters, losses: Losses, *, diverged: bool = False) -> Candidate:
    records = []
    for seed, (train, val) in losses.items():
        spec = TrialSpec(
            task="task", hyperparameters=own, schedule=Schedule(), steps=60, seed=seed, repetition=seed, evaluate_at=(60,)
        )  # fmt: skip
        broken = diverged or not math.isfinite(val)
        records.append(TrialRecord(spec=spec, status="diverged" if broken else "completed", train_loss=train, val_loss=val, steps=60))
    return Candidate(values=(("lr", own.lr), ("weight_decay", own.weight_decay)), hyperparameters=own, records=tuple(records))


def seeds(train: float, val: float) -> Losses:
    return {seed: (train, val * (1 + 0.01 * seed)) for seed in range(3)}


def said(*candidates: Candidate) -> list[str]:
    ranking = rank(candidates)
    assert ranking.best is not None
    return [finding.sentence for finding in findings(ranking, ranking.best)]


def test_an_lr_is_too_small_or_too_large_beside_the_one_that_goes_on() -> None:
    small, smaller, large = (candidate(OWN.but(lr=lr), seeds(0.3, 0.3)) for lr in (0.02, 0.01, 0.4))
    assert said(candidate(OWN, seeds(0.1, 0.2)), smaller, small, large) == [
        "LR too small: 0.02 left a validation loss of 0.303, 0.1 left a validation loss of 0.202",
        "LR too large: 0.4 left a validation loss of 0.303, 0.1 left a validation loss of 0.202",
    ]


def test_an_lr_that_diverged_is_too_large() -> None:
    broken = candidate(OWN.but(lr=0.4), seeds(math.nan, math.nan), diverged=True)
    assert said(candidate(OWN, seeds(0.1, 0.2)), broken) == ["LR too large: 0.4 diverged, 0.1 left a validation loss of 0.202"]


def test_an_lr_that_diverged_below_the_one_that_goes_on_is_not_too_small() -> None:
    broken = candidate(OWN.but(lr=0.02), seeds(math.nan, math.nan), diverged=True)
    assert said(candidate(OWN, seeds(0.1, 0.2)), broken) == []


def test_weight_decay_is_judged_by_both_losses() -> None:
    weak = candidate(OWN.but(weight_decay=0.0), seeds(0.05, 0.3))
    strong = candidate(OWN.but(weight_decay=0.1), seeds(0.6, 0.35))
    assert said(candidate(OWN, seeds(0.1, 0.2)), weak, strong) == [
        "regularization too weak: weight decay 0 left a validation loss of 0.303 and a training loss of 0.05, "
        "0.001 left a validation loss of 0.202 and 0.1",
        "regularization too strong: weight decay 0.1 left a validation loss of 0.353 and a training loss of 0.6, "
        "0.001 left a validation loss of 0.202 and 0.1",
    ]  # fmt: skip
    neither = candidate(OWN.but(weight_decay=0.0), seeds(0.3, 0.3))
    found = said(candidate(OWN, seeds(0.1, 0.2)), neither, strong)
    assert [sentence.split(":")[0] for sentence in found] == ["regularization too strong"], (
        "less of it and yet a worse fit is something else"
    )


def test_nothing_is_said_of_what_is_not_told_apart_or_differs_in_more_than_one_value() -> None:
    alike = [candidate(OWN.but(lr=lr), {s: (0.1, 0.2 + 0.01 * ((s + i) % 3)) for s in range(3)}) for i, lr in enumerate((0.1, 0.02, 0.4))]
    assert said(*alike) == []
    assert said(candidate(OWN, {0: (0.1, 0.2)}), candidate(OWN.but(lr=0.02), {0: (0.1, 0.5)})) == [], "one seed: no claim"
    both = [candidate(replace(OWN, lr=lr, batch_size=32), seeds(0.3, 0.3)) for lr in (0.02, 0.4)]
    assert said(candidate(OWN, seeds(0.1, 0.2)), *both) == []


def recorded_sweeps() -> dict[str, dict[Hyperparameters, Losses]]:
    sweeps: dict[str, dict[Hyperparameters, Losses]] = defaultdict(lambda: defaultdict(dict))
    with (Path(__file__).parent / "data" / "sweeps.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            own = replace(OWN, **{{"lr": "lr", "decay": "weight_decay"}[row["knob"]]: float(row["value"])})
            sweeps[row["case"]][own][int(row["seed"])] = (float(row["train_loss"]), float(row["val_loss"]))
    return sweeps


def mean_log(losses: Losses, which: int) -> float:
    return fmean(math.log(pair[which]) if math.isfinite(pair[which]) else 5.0 for seed, pair in losses.items() if seed >= 20)


@pytest.mark.parametrize("first", [0, 3, 6])
def test_what_three_seeds_of_a_sweep_show_six_others_confirm_nine_times_in_ten(first: int) -> None:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for sweep in recorded_sweeps().values():
        few = [candidate(own, {s: losses[s] for s in range(first, first + 3)}) for own, losses in sweep.items()]
        ranking = rank(few)
        assert ranking.best is not None
        chosen = ranking.best.hyperparameters
        for found in findings(ranking, ranking.best):
            value = float(found.sentence.split(":")[1].removeprefix(" weight decay").split()[0])
            own = replace(chosen, **{"lr" if found.cause.startswith("LR") else "weight_decay": value})
            train, val = (mean_log(sweep[own], i) - mean_log(sweep[chosen], i) for i in (0, 1))
            fits = {"regularization too weak": train < 0, "regularization too strong": train > 0}.get(found.cause, True)
            (right if val > 0 and fits else wrong)[found.cause] += 1
    assert right.keys() == {"LR too small", "LR too large", "regularization too weak", "regularization too strong"}
    assert right.total() >= 9 * wrong.total()
    assert right.total() >= 9, "most of the six sweeps show something on both sides"


@pytest.mark.parametrize("train", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("of_chosen", [False, True])
def test_a_training_loss_that_is_no_number_says_nothing_of_regularization(train: float, of_chosen: bool) -> None:
    weak = candidate(OWN.but(weight_decay=0.0), seeds(0.05 if of_chosen else train, 0.3))
    strong = candidate(OWN.but(weight_decay=0.1), seeds(0.6 if of_chosen else train, 0.35))
    assert said(candidate(OWN, seeds(train if of_chosen else 0.1, 0.2)), weak, strong) == []
