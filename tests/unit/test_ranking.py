"""Ranking: adjusted means, pooled noise, intervals, verdicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from hptune.analysis.candidates import Candidate, Noise
from hptune.analysis.quantiles import student, studentized_range
from hptune.analysis.race import in_race, leader
from hptune.analysis.ranking import Ranking, disagreement, rank
from hptune.schedules import Schedule
from hptune.trial import CurveSummary, Hyperparameters, Status, TrialRecord, TrialSpec

START = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
KNOWN = Noise(sum_squares=10 * 0.01**2, df=10)  # a deviation of 1 % of the loss
NAN = math.nan


def record(lr: float, repetition: int, loss: float, *, status: Status = "completed", metric: float = NAN, **changes: object) -> TrialRecord:
    spec = TrialSpec(
        task="task",
        hyperparameters=START.but(lr=lr),
        schedule=Schedule(),
        steps=10,
        seed=repetition,
        repetition=repetition,
        evaluate_at=(10,),
    )
    plain = TrialRecord(spec=spec, status=status, val_loss=loss, train_loss=loss / 2, metric=metric, steps=10, samples=640, seconds=2.0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def candidate(lr: float, losses: Sequence[float] | Mapping[int, float], metrics: Sequence[float] | None = None) -> Candidate:
    """Losses by repetition; NaN stands for a diverged trial."""
    by_seed = dict(losses) if isinstance(losses, Mapping) else dict(enumerate(losses))
    of = dict(enumerate(metrics or ()))
    records = [
        record(lr, seed, loss, status="diverged" if math.isnan(loss) else "completed", metric=of.get(seed, NAN))
        for seed, loss in by_seed.items()
    ]
    return Candidate(values=(("lr", lr),), hyperparameters=START.but(lr=lr), records=tuple(records))


def rates(ranking: Ranking) -> list[float]:
    return [row.hyperparameters.lr for row in ranking.rows]


def verdicts(ranking: Ranking) -> list[str]:
    return [row.verdict for row in ranking.rows]


# --- noise -----------------------------------------------------------------------------------------------------------------


def test_noise_pools_by_adding_squares_and_degrees_of_freedom() -> None:
    pooled = Noise(sum_squares=1.0, df=2) + Noise(sum_squares=3.0, df=2)
    assert pooled == Noise(sum_squares=4.0, df=4)
    assert pooled.sd == 1.0
    assert math.isnan(Noise().sd)


def test_noise_is_what_candidate_and_seed_effects_leave() -> None:
    # log losses: candidate effects 0 and 0.1, seed effects 0 and 0.5, and an interaction of ±0.01.
    ranking = rank([candidate(0.1, [math.exp(0.01), math.exp(0.49)]), candidate(0.2, [math.exp(0.09), math.exp(0.61)])])
    assert ranking.noise.df == 1
    assert ranking.noise.sum_squares == pytest.approx(4 * 0.01**2)


def test_a_seed_that_is_worse_for_all_adds_no_noise() -> None:
    ranking = rank([candidate(0.1, [1.0, 5.0]), candidate(0.2, [1.1, 5.5]), candidate(0.3, [1.2, 6.0])])
    assert ranking.noise.df == 2
    assert ranking.noise.sum_squares == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("odd", [[9.0, 2.5], [NAN, 1.0]])
def test_far_off_and_diverged_rows_take_no_part_in_the_noise(odd: list[float]) -> None:
    near = [candidate(0.1, [1.0, 1.1]), candidate(0.2, [1.05, 1.12])]
    alone, beside = rank(near).noise, rank([*near, candidate(5.0, odd)]).noise
    assert beside.df == alone.df
    assert beside.sum_squares == pytest.approx(alone.sum_squares, rel=1e-5)


def test_a_winner_with_none_near_it_is_compared_in_pairs_with_what_is_far_off() -> None:
    """The paired t-test of the logs: seven times lower, give or take a third, on five seeds."""
    far, best = [2.1, 1.6, 2.4, 1.9, 2.0], [0.20, 0.31, 0.35, 0.22, 0.30]
    ranking = rank([candidate(0.01, far), candidate(0.2, best)])
    test = scipy.stats.ttest_rel(np.log(best), np.log(far)).confidence_interval(0.95)
    found = ranking.compare(*ranking.rows)
    assert (found.low, found.high) == pytest.approx((math.exp(test.low), math.exp(test.high)))
    assert found.better
    assert verdicts(ranking) == ["best", "worse"]
    assert ranking.noise.df == 0  # what is near the best has shown none that later stages could use


def test_one_lucky_seed_in_pairs_with_what_is_far_off_shows_nothing() -> None:
    ranking = rank([candidate(0.01, [2.0, 2.0, 2.0, 2.0]), candidate(0.2, [1.9, 2.1, 1.95, 0.001])])
    assert verdicts(ranking) == ["best", "tied"]


@pytest.mark.parametrize("prior", [Noise(), KNOWN])
def test_the_leader_is_the_first_row(prior: Noise) -> None:
    candidates = [candidate(0.3, [NAN, 0.1]), candidate(0.1, [0.31, 0.29]), candidate(0.2, [0.30, 0.27]), candidate(0.01, [0.9, 0.8])]
    first, found = rank(candidates, prior=prior).rows[0], leader(candidates, prior=prior)
    assert found is not None
    assert found.hyperparameters == first.hyperparameters == START.but(lr=0.2)
    expected = (first.val_loss, first.val_loss_low, first.val_loss_high)
    assert (found.val_loss, found.val_loss_low, found.val_loss_high) == pytest.approx(expected, nan_ok=True)


def test_without_a_usable_loss_nobody_leads() -> None:
    assert leader([candidate(0.3, [NAN])]) is None


# --- order and values ------------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_loss_with_what_is_not_finite_last() -> None:
    ranking = rank([candidate(9.0, [NAN]), candidate(0.3, [0.5]), candidate(0.1, [0.3]), candidate(8.0, [math.inf]), candidate(0.2, [0.4])])
    assert rates(ranking) == [0.1, 0.2, 0.3, 9.0, 8.0]
    assert verdicts(ranking) == ["best", "tied", "tied", "diverged", "diverged"]
    assert [row.val_loss for row in ranking.rows[:3]] == pytest.approx([0.3, 0.4, 0.5])
    assert all(math.isnan(row.val_loss) for row in ranking.rows[3:])


def test_loss_is_the_geometric_mean_adjusted_for_the_seeds_a_candidate_lacks() -> None:
    ranking = rank([candidate(0.1, [1.0, 4.0]), candidate(0.2, [1.5, 6.0]), candidate(0.3, [1.2])])
    assert rates(ranking) == [0.1, 0.3, 0.2]
    assert [row.val_loss for row in ranking.rows] == pytest.approx([2.0, 2.4, 3.0])


def test_equal_losses_stay_in_the_order_given() -> None:
    assert rates(rank([candidate(lr, [0.3, 0.6]) for lr in (0.3, 0.1, 0.2)])) == [0.3, 0.1, 0.2]


def test_differences_of_rounding_are_none_even_without_noise() -> None:
    ranking = rank([candidate(0.1, [0.3, 0.6]), candidate(0.2, [0.3 * (1 + 1e-13), 0.6])], prior=Noise(df=10))
    assert verdicts(ranking) == ["best", "tied"]


def test_nothing_usable_has_no_best() -> None:
    ranking = rank([candidate(0.1, [NAN])])
    assert ranking.best is None
    assert ranking.near_equal() == ()
    assert rank([]).rows == ()


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (("completed", "failed"), "failed"),
        (("failed", "out_of_memory"), "out_of_memory"),
        (("out_of_memory", "diverged", "failed"), "diverged"),
        ((), "failed"),
    ],
)
def test_the_worst_status_of_any_trial_is_the_verdict(statuses: tuple[Status, ...], verdict: str) -> None:
    records = tuple(record(0.2, i, 0.3, status=status) for i, status in enumerate(statuses))
    broken = Candidate(values=(), hyperparameters=START, records=records)
    row = rank([candidate(0.1, [0.4]), broken]).rows[1]
    assert row.verdict == verdict
    assert math.isnan(row.val_loss)
    assert row.seeds == statuses.count("completed")


def test_a_row_carries_means_and_totals_of_its_trials() -> None:
    first = record(0.1, 0, 0.4, metric=0.8, steps=10, samples=640, seconds=2.0)
    second = record(0.1, 1, 0.4, metric=0.9, steps=11, samples=704, seconds=6.0)
    row = rank([Candidate(values=(("lr", 0.1),), hyperparameters=START, records=(first, second))]).rows[0]
    assert (row.seeds, row.steps, row.samples, row.seconds) == (2, 10, 672, 8.0)
    assert row.samples_per_second == pytest.approx(1344 / 8)
    assert row.metric == pytest.approx(0.85)
    assert row.train_loss == pytest.approx(0.2)
    assert row.trials == (first.trial_id, second.trial_id)


def test_a_row_carries_the_clue_of_its_curves() -> None:
    falling = CurveSummary(step=(3, 6, 9), train_loss=(2.3, 2.2, 2.2), val_loss=(2.3, 2.2, 2.2))
    made = Candidate(values=(), hyperparameters=START, records=(record(0.1, 0, 2.2, curve=falling),))
    assert rank([made]).rows[0].clue == "underfitting"


def test_no_time_measured_no_throughput() -> None:
    made = Candidate(values=(), hyperparameters=START, records=(record(0.1, 0, 0.4, seconds=0.0),))
    assert math.isnan(rank([made]).rows[0].samples_per_second)


# --- intervals and claims --------------------------------------------------------------------------------------------------


def test_intervals_are_students_with_the_pooled_deviation() -> None:
    row = rank([candidate(0.1, [0.5, 0.5])], prior=KNOWN).rows[0]
    half = student(0.975, 10) * 0.01 / math.sqrt(2)
    assert row.val_loss_low == pytest.approx(0.5 * math.exp(-half))
    assert row.val_loss_high == pytest.approx(0.5 * math.exp(half))


@pytest.mark.parametrize(("df", "claims"), [(2, False), (3, True)])
def test_below_three_degrees_of_freedom_nothing_is_claimed(df: int, claims: bool) -> None:
    ranking = rank([candidate(0.1, [0.5]), candidate(0.2, [0.9])], prior=Noise(sum_squares=df * 1e-6, df=df))
    assert verdicts(ranking) == ["best", "worse" if claims else "tied"]
    assert math.isfinite(ranking.rows[0].val_loss_low) is claims
    assert ranking.compare(*ranking.rows).claim is claims


@pytest.mark.parametrize(("factor", "verdict"), [(0.99, "tied"), (1.01, "worse")])
def test_worse_needs_the_simultaneous_difference_of_tukey_and_kramer(factor: float, verdict: str) -> None:
    least = studentized_range(0.95, 3, 10) * 0.01 * math.sqrt(2 / 2)
    losses = [0.5, 0.5 * math.exp(factor * least), 0.5]
    ranking = rank([candidate(0.1 * (i + 1), [loss]) for i, loss in enumerate(losses)], prior=KNOWN)
    assert verdicts(ranking) == ["best", "tied", verdict]


def test_a_comparison_is_a_ratio_of_losses_with_its_simultaneous_interval() -> None:
    ranking = rank([candidate(0.1, [0.4]), candidate(0.2, [0.5])], prior=KNOWN)
    found = ranking.compare(ranking.rows[0], ranking.rows[1])
    margin = studentized_range(0.95, 2, 10) * 0.01
    assert found.ratio == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 * math.exp(-margin), 0.8 * math.exp(margin)))
    assert (found.claim, found.better) == (True, True)
    other = ranking.compare(ranking.rows[1], ranking.rows[0])
    assert (other.claim, other.better) == (True, False)
    assert other.ratio == pytest.approx(1.25)


def test_without_common_seeds_nothing_is_claimed_however_large_the_difference() -> None:
    ranking = rank([candidate(0.1, {0: 0.5}), candidate(0.2, {7: 0.9})], prior=KNOWN)
    assert verdicts(ranking) == ["best", "tied"]
    found = ranking.compare(*ranking.rows)
    assert not found.claim
    assert math.isnan(found.low)
    assert not ranking.within_standard_error(ranking.rows[1]), "where the error is not known, 1 % decides"


def test_a_row_without_a_loss_compares_with_nothing() -> None:
    ranking = rank([candidate(0.1, [0.5]), candidate(9.0, [NAN])], prior=KNOWN)
    found = ranking.compare(*ranking.rows)
    assert math.isnan(found.ratio)
    assert not found.claim
    assert not ranking.within_standard_error(ranking.rows[1])


# --- choosing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "loss", "near", "within"),
    [
        (KNOWN, 0.503, True, True),  # half a standard error, 0.6 %
        (KNOWN, 0.506, False, True),  # within the error of 1.4 %, beyond 1 %
        (Noise(sum_squares=10 * 0.001**2, df=10), 0.503, False, False),  # within 1 %, beyond the error of 0.14 %
        (Noise(), 0.503, True, True),  # the error is not known: 1 % decides
        (Noise(), 0.506, False, False),
    ],
)
def test_a_safer_candidate_may_cost_one_standard_error_and_one_per_cent(prior: Noise, loss: float, near: bool, within: bool) -> None:
    ranking = rank([candidate(0.1, [0.5]), candidate(0.2, [loss])], prior=prior)
    assert [row.hyperparameters.lr for row in ranking.near_equal()] == [0.1, 0.2][: 1 + near]
    assert ranking.within_standard_error(ranking.rows[1]) is within
    assert ranking.within_standard_error(ranking.rows[0])


def test_choosing_marks_one_row_alone() -> None:
    ranking = rank([candidate(0.1, [0.5]), candidate(0.2, [0.6]), candidate(0.3, [0.7])])
    again = ranking.choose(ranking.rows[1]).choose(ranking.rows[2])
    assert [row.chosen for row in again.rows] == [False, False, True]
    assert not any(row.chosen for row in ranking.rows)


# --- losses that are not positive, and the metric ---------------------------------------------------------------------------


def test_losses_that_are_not_positive_are_compared_as_they_are() -> None:
    made = [candidate(0.1, [-2.0, -1.0, -1.51]), candidate(0.2, [0.5, 1.5, 1.02]), candidate(0.3, [-1.99, -1.01, -1.5])]
    ranking = rank(made, prior=Noise(sum_squares=1e6, df=1000))
    assert ranking.best is not None
    assert ranking.best.val_loss == pytest.approx(-4.51 / 3)
    assert ranking.best.val_loss_low < -4.51 / 3 < ranking.best.val_loss_high
    assert verdicts(ranking) == ["best", "tied", "worse"], "the prior is of log loss and does not count here"
    assert ranking.noise == Noise()
    assert ranking.pooled.df == 4
    found = ranking.compare(ranking.rows[0], ranking.rows[2])
    assert found.better
    assert math.isnan(found.ratio)
    assert len(ranking.near_equal()) == 2


def test_losses_of_zero_are_equal() -> None:
    ranking = rank([candidate(0.1, [0.0, 0.0]), candidate(0.2, [0.0, 0.0])])
    assert verdicts(ranking) == ["best", "tied"]
    assert len(ranking.near_equal()) == 2


@pytest.mark.parametrize(("larger", "order"), [(True, [0.3, 0.1, 0.2]), (False, [0.2, 0.1, 0.3])])
def test_ranking_by_the_metric_orders_and_judges_by_it(larger: bool, order: list[float]) -> None:
    made = [
        candidate(0.1, [0.3, 0.3, 0.3], [0.90, 0.92, 0.91]),
        candidate(0.2, [0.2, 0.2, 0.2], [0.40, 0.42, 0.41]),
        candidate(0.3, [0.4, 0.4, 0.4], [0.92, 0.93, 0.93]),
    ]
    ranking = rank(made, prior=Noise(sum_squares=1e6, df=1000), by_metric=True, larger_is_better=larger)
    assert rates(ranking) == order
    assert verdicts(ranking)[0] == "best"
    assert {row.hyperparameters.lr: row.verdict for row in ranking.rows}[order[-1]] == "worse"
    assert ranking.pooled.df == 4
    assert ranking.compare(ranking.rows[0], ranking.rows[-1]).better


def test_ranking_by_the_metric_a_choice_must_be_near_in_metric_and_loss() -> None:
    made = [candidate(0.1, [0.30], [0.90]), candidate(0.2, [0.30], [0.895]), candidate(0.3, [0.35], [0.899]), candidate(0.4, [0.30], [0.7])]
    assert [row.hyperparameters.lr for row in rank(made, by_metric=True).near_equal()] == [0.1, 0.2]


def test_without_the_metric_that_is_ranked_by_a_trial_counts_as_failed() -> None:
    ranking = rank([candidate(0.1, [0.3], [0.9]), candidate(0.2, [0.2])], by_metric=True)
    assert verdicts(ranking) == ["best", "failed"]


def test_the_metric_is_empty_where_there_is_none() -> None:
    ranking = rank([candidate(0.1, [0.3]), candidate(0.2, [0.4], [0.9])])
    assert [row.metric for row in ranking.rows] == pytest.approx([NAN, 0.9], nan_ok=True)


def test_loss_and_metric_that_disagree_are_pointed_out() -> None:
    made = [candidate(0.1, [0.3], [0.90]), candidate(0.2, [0.4], [0.95])]
    expected = (
        "the loss is lowest at lr 0.1 (loss 0.3, metric 0.9), the metric best at lr 0.2 (loss 0.4, metric 0.95); the ranking goes by the "
    )
    assert disagreement(rank(made)) == expected + "loss"
    assert disagreement(rank(made, by_metric=True)) == expected + "metric"
    assert disagreement(rank(made, larger_is_better=False)) is None


def test_near_equal_candidates_disagree_only_by_chance() -> None:
    made = [candidate(0.1, [0.300], [0.90]), candidate(0.2, [0.301], [0.95])]
    assert disagreement(rank(made)) is None


@pytest.mark.parametrize("metrics", [((0.9,), (0.9,)), ((0.9,), (0.9 + 1e-12,)), (None, None)])
def test_equal_or_missing_metrics_disagree_with_nothing(metrics: tuple[Sequence[float] | None, Sequence[float] | None]) -> None:
    assert disagreement(rank([candidate(0.1, [0.3], metrics[0]), candidate(0.2, [0.4], metrics[1])])) is None


# --- the race --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "losses", "racing"),
    [
        (Noise(sum_squares=1000 * 0.01**2, df=1000), [1.0, 1.04, 1.057], (0, 1, 2)),  # 4 · 1 % · √2 of log loss: 5.8 %
        (Noise(sum_squares=1000 * 0.01**2, df=1000), [1.0, 1.04, 1.06], (0, 1)),
        (Noise(sum_squares=3 * 0.01**2, df=3), [1.0, 1.1, 1.2], (0, 1)),  # with few degrees of freedom, what 99.5 % rule out: 14 %
        (Noise(sum_squares=10 * 0.001**2, df=10), [1.06, 1.04, 1.0], (1, 2)),  # 5 % however small the noise
        (Noise(), [1.9, 1.0, 2.1], (0, 1)),  # noise not known: a factor of two
        (KNOWN, [NAN, 1.0], (1,)),
        (KNOWN, [NAN], ()),
        (Noise(), [-1.0, 50.0], (0, 1)),  # neither log loss nor noise: anything
    ],
)
def test_the_race_keeps_what_the_noise_does_not_rule_out(prior: Noise, losses: list[float], racing: tuple[int, ...]) -> None:
    assert in_race([candidate(0.1 * (i + 1), [loss]) for i, loss in enumerate(losses)], prior=prior) == racing


def test_the_race_of_losses_that_are_not_positive_goes_by_their_own_noise() -> None:
    made = [candidate(0.1, [-1.0, -1.1, -1.0]), candidate(0.2, [-1.0, -1.0, -1.1]), candidate(0.3, [3.0, 3.1, 3.0])]
    assert in_race(made) == (0, 1)


# --- numbers that are none ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [NAN, math.inf, -math.inf, 1e160, -1e160])
@pytest.mark.parametrize("larger", [True, False])
def test_a_metric_that_is_no_number_never_wins(odd: float, larger: bool) -> None:
    made = [candidate(0.1, [0.1, 0.1], [odd, odd]), candidate(0.2, [0.1, 0.1], [0.9, odd]), candidate(0.3, [0.9, 0.9], [0.5, 0.5])]
    ranking = rank(made, by_metric=True, larger_is_better=larger)
    assert rates(ranking) == [0.3, 0.1, 0.2]
    assert verdicts(ranking) == ["best", "failed", "failed"]
    assert [row.hyperparameters.lr for row in ranking.near_equal()] == [0.3]
    by_loss = rank(made, larger_is_better=larger)
    assert [row.metric for row in by_loss.rows] == pytest.approx([NAN, NAN, 0.5], nan_ok=True)


@pytest.mark.parametrize("odd", [NAN, math.inf, -math.inf, -1e160])
def test_a_loss_that_is_no_number_never_wins_whatever_the_status(odd: float) -> None:
    broken = Candidate(values=(("lr", 9.0),), hyperparameters=START.but(lr=9.0), records=(record(9.0, 0, odd),))
    ranking = rank([broken, candidate(0.1, [0.9])])
    assert rates(ranking) == [0.1, 9.0]
    assert verdicts(ranking) == ["best", "diverged"]


def test_losses_orders_of_magnitude_apart_have_intervals_that_are_numbers() -> None:
    made = [candidate(0.1, [1e-300]), candidate(0.2, [1e90])]
    ranking = rank(made, prior=Noise(sum_squares=4 * 600**2, df=4))
    assert ranking.rows[0].val_loss_high == pytest.approx(sys.float_info.max)
    assert ranking.rows[0].val_loss_low == 0.0
    assert math.isfinite(ranking.compare(*ranking.rows).high)
