"""What `scripts/bench_search` makes of its rows, and which of a study's trials a budget buys."""

import math

import numpy as np
import pytest

from contest.chart import draw, points
from contest.compare import Row
from contest.jobs import JOBS
from contest.searches import Tried, read
from contest.verdicts import by_job, overall, targets
from hptune.analysis.recommendation import Longer
from hptune.config.loader import from_tree
from hptune.trial import Hyperparameters

OWN = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-5)


def row(search, loss, *, job="a", repetition=0, budget=8, times=1, held_out=True):
    own = {"job": job, "held_out": held_out, "repetition": repetition, "search": search, "budget": budget, "times": times}
    return Row(**own, cost=8.0, own={}, loss=loss, metric=0.5)


def rows_with(ratios):
    """TPE's loss is 1, hptune's as given, by job, one a repetition."""
    return [
        found
        for job, values in ratios.items()
        for repetition, value in enumerate(values)
        for found in (
            row("hptune", value, job=job, repetition=repetition),
            row("tpe", 1.0, job=job, repetition=repetition),
            row("baseline", 2.0, job=job, repetition=repetition),
        )
    ]


def against(table, search):
    return next(entry for entry in table if entry["against"] == search)


def test_jobs_weigh_the_same_however_many_repetitions_they_have() -> None:
    found = against(overall(rows_with({"a": [0.5] * 4, "b": [2.0]})), "tpe")
    assert found["ratio"] == pytest.approx(1.0)
    assert found["better/equal/worse"] == "4/0/1"


def test_the_interval_holds_the_ratio_and_narrows_to_it_where_nothing_varies() -> None:
    same = against(overall(rows_with({"a": [0.8] * 5})), "tpe")
    assert (same["low"], same["high"]) == (pytest.approx(0.8), pytest.approx(0.8))
    varied = against(overall(rows_with({"a": [0.6, 0.7, 0.8, 0.9, 1.0]})), "tpe")
    assert varied["low"] < varied["ratio"] < varied["high"]


def test_excess_is_counted_from_the_lowest_loss_of_the_same_repetition() -> None:
    rows = [row("hptune", 1.1), row("tpe", 1.4), row("baseline", 1.0)]
    assert against(overall(rows), "tpe")["excess ratio"] == pytest.approx(0.25)


def test_development_jobs_decide_no_target() -> None:
    rows = [row("hptune", 0.5, held_out=False), row("tpe", 1.0, held_out=False), row("baseline", 1.0, held_out=False)]
    assert not [t for t in targets(rows, overall(rows)) if "tpe" in t.what]
    held_out = rows_with({"a": [0.5, 0.5]})
    wanted = [t for t in targets(held_out, overall(held_out)) if t.what.startswith("hptune / tpe")]
    assert [(t.wanted, t.met) for t in wanted] == [("<= 0.86", True), ("<= 0.95", True)]


def test_a_job_on_which_the_baseline_is_better_is_named() -> None:
    rows = rows_with({"a": [0.5, 0.5], "b": [3.0, 3.1]})
    worst = targets(rows, overall(rows))[-1]
    assert "(b)" in worst.what
    assert worst.met is False
    assert [entry["/ baseline"] for entry in by_job(rows)] == [pytest.approx(0.25), pytest.approx(math.sqrt(3.0 * 3.1) / 2)]


def test_searches_with_a_confirmation_are_held_against_hptune_with_one() -> None:
    rows = [*rows_with({"a": [0.9]}), row("hptune, confirmed", 0.5, job="a"), row("tpe, confirmed", 1.0, job="a")]
    table = overall(rows)
    assert against(table, "tpe")["ratio"] == pytest.approx(0.9)
    assert against(table, "tpe, confirmed")["ratio"] == pytest.approx(0.5)
    assert "hptune, confirmed" not in {entry["against"] for entry in table}


def test_the_picture_shows_each_search_over_the_baseline_at_what_it_cost(tmp_path) -> None:
    rows = rows_with({"a": [0.5] * 3, "b": [2.0]})
    assert {(p["search"], p["half"], p["cost"]): p["ratio"] for p in points(rows)} == {
        ("hptune", "held out", 8.0): pytest.approx(0.5),
        ("tpe", "held out", 8.0): pytest.approx(0.5),
    }
    draw(rows, tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_of_a_study_are_the_candidates_of_its_confirmation() -> None:
    tried = [Tried(own=OWN.but(lr=lr), loss=loss, cost=1.0) for lr, loss in ((0.1, 3.0), (0.2, 2.0), (0.3, 1.0), (0.2, 2.0), (0.4, 0.5))]
    assert [own.lr for own in read(tried, 4.0).candidates] == [0.3, 0.2, 0.1]


def test_a_budget_buys_the_leading_trials_of_a_study() -> None:
    tried = [Tried(own=OWN.but(lr=lr), loss=loss, cost=1.0) for lr, loss in ((0.1, 3.0), (0.2, 2.0), (0.3, 1.0))]
    assert read(tried, 2.0).own.lr == 0.2
    assert read(tried, 2.4).cost == 2.0
    assert read(tried, 0.1).own.lr == 0.1
    assert read(tried, 99).own.lr == 0.3


def test_a_transfer_raises_the_weight_decay() -> None:
    to = Longer(ratio=5.0, samples=64_000, optimizer="sgd")
    assert read([Tried(own=OWN, loss=1.0, cost=1.0)], 1.0, carried=to).own == OWN.but(weight_decay=1e-3)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_is_a_valid_config(job, tmp_path) -> None:
    experiment = from_tree(job.tree(3, tmp_path / "data.npz"), tmp_path).experiment
    assert experiment.budget.short_epochs == job.epochs / 5
    assert experiment.seed == 3


def test_repetitions_draw_other_parts_of_the_size_asked_for(tmp_path) -> None:
    job = next(job for job in JOBS if job.name == "digits-noisy")
    for repetition in (0, 1):
        job.write(repetition, tmp_path / f"{repetition}.npz")
    first, second = (np.load(tmp_path / f"{repetition}.npz") for repetition in (0, 1))
    assert [len(first[f"x_{part}"]) for part in ("train", "val", "test")] == [job.train, job.val, job.test]
    assert not np.array_equal(first["x_train"], second["x_train"])


def test_noise_is_in_the_labels_that_the_search_sees_alone(tmp_path) -> None:
    noisy = next(job for job in JOBS if job.name == "digits-noisy")
    noisy.write(0, tmp_path / "noisy.npz")
    x, y = noisy.pool()
    labels = {sample.tobytes(): label for sample, label in zip(x, y, strict=True)}
    with np.load(tmp_path / "noisy.npz") as held:
        wrong = {
            part: np.mean([labels[s.tobytes()] != t for s, t in zip(held[f"x_{part}"], held[f"y_{part}"], strict=True)])
            for part in ("train", "val", "test")
        }
    assert 0.2 < wrong["train"] < 0.34  # a tenth of the replaced ones keep their label
    assert wrong["val"] > 0.15
    assert wrong["test"] == 0
