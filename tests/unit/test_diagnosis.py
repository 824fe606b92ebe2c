"""Clues from the curves of trials: made by hand, and recorded from trainings made to show each."""

from __future__ import annotations

import math

import pytest
from recorded import recorded

from hptune.analysis.diagnosis import clue, summarize_clues
from hptune.schedules import Schedule
from hptune.trial import CurveSummary, Hyperparameters, Status, TrialRecord, TrialSpec

SPEC = TrialSpec(
    task="task",
    hyperparameters=Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4),
    schedule=Schedule(),
    steps=60,
    seed=0,
    repetition=0,
    evaluate_at=(60,),
)
LEARNED = (2.0, 0.8, 0.2, 0.1, 0.05, 0.03)
OVER = ((1.2, 1.0, 1.1, 1.3, 1.5, 1.6), (1.5, 0.9, 0.7, 0.4, 0.2, 0.1))
UNDER = ((0.9, 0.6, 0.5, 0.4, 0.35, 0.3), (1.8, 0.7, 0.6, 0.5, 0.4, 0.3))
LEVEL = ((0.9, 0.4, 0.3, 0.21, 0.2, 0.2), LEARNED)


def trial(val: tuple[float, ...], train: tuple[float, ...], status: Status = "completed") -> TrialRecord:
    step = tuple(10 * (i + 1) for i in range(len(val)))
    return TrialRecord(spec=SPEC, status=status, steps=60, curve=CurveSummary(step=step, val_loss=val, train_loss=train))


@pytest.mark.parametrize(
    ("val", "train", "word", "sentence"),
    [
        (*OVER, "overfitting", "validation loss rose from 1 to 1.6 while training loss fell from 0.9 to 0.1"),
        (*UNDER, "underfitting", "validation loss still fell from 0.4 to 0.3 over the last third beside a training loss of 0.3"),
        ((2.3, 2.3, 2.29), (2.3, 2.3, 2.29), "underfitting", "training loss hardly moved, from 2.3 to 2.29"),
        (*LEVEL, "balanced", "validation loss went from 0.21 to 0.2 over the last third, training loss to 0.03"),
        ((1.5, 0.3, 0.25, 0.2, 0.16, 0.14), LEARNED, "balanced", None),  # the fall of annealing, far above training loss
        ((1.0, 0.7, 0.5, 0.4, 0.4, 0.4), (1.5, 1.0, 0.7, 0.5, 0.4, 0.4), "balanced", None),  # no gap, but level
        ((1.0, 0.5, 2.0, 0.6, 0.3, 0.2), LEARNED, "unstable", "validation loss went from 1 to 2 in mid-run, and to 0.2 at the end"),
        (
            (1.0, 0.9, 2.0, 2.0, 1.9, 1.9),
            (2.0, 0.9, 0.99, 0.9, 0.9, 0.9),
            "unstable",
            "validation loss went from 1 to 2 in mid-run, and to 1.9 at the end",
        ),
        ((0.9, 0.4, 0.3, 0.21, 0.2, 0.2), (2.0, 0.3, 0.45, 0.2, 0.1, 0.05), "balanced", None),  # a rise far below the beginning
        ((1.8, 1.5, 1.9, 2.0, 1.9, 1.9), (2.3, 1.8, 1.9, 2.2, 2.0, 1.9), "unstable", "training loss went back from 1.8 to 2.2"),
        ((1.0, 0.5, 0.6), (1.0, 0.3, 0.34), "unstable", "validation loss rose from 0.5 to 0.6, and training loss rose from 0.3 to 0.34"),
        ((1.0, math.nan, 0.5), (1.0, 0.9, 0.8), "unstable", "a loss was not finite in mid-run"),
    ],
)
def test_clues(val: tuple[float, ...], train: tuple[float, ...], word: str, sentence: str | None) -> None:
    found = clue(trial(val, train))
    assert found is not None
    assert found.word == word
    assert sentence is None or found.sentence == sentence


def test_a_rise_in_mid_run_that_is_the_start_of_overfitting_is_no_spike() -> None:
    found = clue(trial((1.0, 1.2, 1.6, 2.2, 2.5, 2.6), (1.5, 0.9, 0.5, 0.2, 0.05, 0.02)))
    assert found is not None
    assert found.word == "overfitting"


def test_a_diverged_trial_is_unstable() -> None:
    found = clue(trial((), (), "diverged"))
    assert found is not None
    assert (found.word, found.sentence) == ("unstable", "training diverged after 60 steps")


@pytest.mark.parametrize(
    "record",
    [trial((1.0, 0.9), (1.0, 0.9)), trial((1.0, 0.9, -0.1), (1.0, 0.9, 0.8)), trial(*OVER, "out_of_memory"), trial(*OVER, "failed")],
)
def test_no_clue_without_enough_points_positive_losses_and_a_whole_run(record: TrialRecord) -> None:
    assert clue(record) is None


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([trial(*OVER), trial(*LEVEL), trial(*LEVEL)], "balanced"),
        ([trial(*LEVEL), trial(*UNDER)], "underfitting"),
        ([trial(*UNDER), trial(*OVER), trial(*LEVEL)], "overfitting"),
        ([trial((1.0,), (1.0,)), trial(*OVER)], "overfitting"),
        ([trial((1.0,), (1.0,))], ""),
        ([], ""),
    ],
)
def test_the_majority_speaks_and_ties_go_to_the_more_serious(records: list[TrialRecord], word: str) -> None:
    assert summarize_clues(records) == word


def test_recorded_trainings_made_to_show_a_word_are_told_nine_times_in_ten() -> None:
    runs = recorded("runs")
    found = {key: clue(TrialRecord(spec=SPEC, status="completed", curve=curve)) for key, curve in runs.items()}
    right = [key for key, value in found.items() if value is not None and key[0].startswith(value.word)]
    assert len(runs) == 40
    assert len(right) >= 0.9 * len(runs)
    assert {case.split("_", maxsplit=1)[0] for case, _ in right} == {"balanced", "underfitting", "overfitting", "unstable"}
