"""How often the ranking claims what is not so, and how often it finds what is: simulated sweeps with fixed seeds.

Each sweep draws log loss = candidate + common-seed effect (ten times the noise) + noise, and is judged by `rank` itself. A rate
of 5 % is asserted as at most 5 % plus two binomial standard deviations of 2,000 sweeps: 6 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest

from hptune.analysis.candidates import Candidate, Noise
from hptune.analysis.race import in_race
from hptune.analysis.ranking import Ranking, rank
from hptune.schedules import Schedule
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec

SWEEPS = 2000
FEWER = 1000
SD = 0.02
ALLOWED = 0.05 + 2 * math.sqrt(0.05 * 0.95 / SWEEPS)
SIZES = [(2, 2), (4, 2), (8, 2), (2, 3), (4, 3), (8, 3), (2, 5), (4, 5), (8, 5)]  # candidates, seeds


class Known(TrialSpec):
    """A spec that does not hash itself anew each time: sixty thousand trials are made here."""

    @property
    def trial_id(self) -> str:
        return f"{self.hyperparameters.lr} {self.repetition}"


@cache
def spec(candidate: int, seed: int) -> Known:
    h = Hyperparameters(lr=candidate + 1.0, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
    return Known(task="", hyperparameters=h, schedule=Schedule(), steps=1, seed=seed, repetition=seed, evaluate_at=(1,))


def made(log_loss: np.ndarray, ran: np.ndarray | None = None) -> list[Candidate]:
    """Candidates from log losses of shape (candidates, seeds); `ran` says which trials there are."""
    losses = np.exp(log_loss).tolist()
    return [
        Candidate(
            values=(),
            hyperparameters=spec(i, 0).hyperparameters,
            records=tuple(
                TrialRecord(spec=spec(i, j), status="completed", val_loss=loss) for j, loss in enumerate(row) if ran is None or ran[i, j]
            ),
        )
        for i, row in enumerate(losses)
    ]


def sweeps(
    candidates: int, seeds: int, effects: Sequence[float] = (), rng_seed: int = 0, count: int = SWEEPS
) -> Iterator[tuple[np.ndarray, Noise]]:
    """Log losses, and noise as an earlier stage of six degrees of freedom would have left it where there are two seeds."""
    rng = np.random.default_rng([candidates, seeds, rng_seed])
    effect = np.zeros((candidates, 1))
    effect[: len(effects), 0] = effects
    for _ in range(count):
        common = rng.normal(0, 10 * SD, (1, seeds))
        noise = rng.normal(0, SD, (candidates, seeds))
        df = 6 if seeds == 2 else 0
        yield effect + common + noise, Noise(sum_squares=float(SD**2 * rng.chisquare(df)) if df else 0.0, df=df)


def position(ranking: Ranking, candidate: int) -> int:
    return next(i for i, row in enumerate(ranking.rows) if row.hyperparameters.lr == candidate + 1.0)


@pytest.mark.parametrize(("candidates", "seeds"), SIZES)
def test_of_equal_candidates_one_is_called_worse_in_at_most_one_sweep_in_twenty(candidates: int, seeds: int) -> None:
    called = sum(any(row.verdict == "worse" for row in rank(made(y), prior=prior).rows) for y, prior in sweeps(candidates, seeds))
    assert called / SWEEPS <= ALLOWED


@pytest.mark.parametrize("candidates", [4, 8])
def test_a_second_seed_for_those_in_the_race_alone_does_not_raise_the_rate(candidates: int) -> None:
    called = 0
    for y, prior in sweeps(candidates, 2, rng_seed=1):
        ran = np.ones(y.shape, dtype=bool)
        ran[:, 1] = False
        ran[list(in_race(made(y, ran), prior=prior)), 1] = True
        called += any(row.verdict == "worse" for row in rank(made(y, ran), prior=prior).rows)
    assert called / SWEEPS <= ALLOWED


def test_a_baseline_equal_to_the_finalists_is_called_beaten_in_at_most_one_sweep_in_twenty() -> None:
    called = 0
    for y, prior in sweeps(4, 5, rng_seed=2):
        ranking = rank(made(y), prior=prior)
        called += ranking.compare(ranking.rows[0], ranking.rows[position(ranking, 0)]).better
    assert called / SWEEPS <= ALLOWED


@pytest.mark.parametrize(("candidates", "seeds"), [(4, 2), (4, 5)])
def test_intervals_of_the_loss_cover_it_nineteen_times_in_twenty(candidates: int, seeds: int) -> None:
    rng, covered = np.random.default_rng(3), 0
    for _ in range(SWEEPS):
        common = rng.normal(0, 10 * SD, (1, seeds))
        truth = math.exp(float(common.mean()))
        prior = Noise(sum_squares=float(SD**2 * rng.chisquare(6)), df=6)
        ranking = rank(made(common + rng.normal(0, SD, (candidates, seeds))), prior=prior)
        row = ranking.rows[position(ranking, 0)]
        covered += row.val_loss_low <= truth <= row.val_loss_high
    assert abs(covered / SWEEPS - 0.95) <= 3 * math.sqrt(0.05 * 0.95 / SWEEPS)


@pytest.mark.parametrize(
    ("seeds", "deviations", "power"),
    [(2, 1, 0.12), (2, 2, 0.37), (3, 1, 0.11), (3, 2, 0.40), (5, 1, 0.24), (5, 2, 0.76)],
)
def test_power_to_call_the_one_worse_candidate_of_four_worse(seeds: int, deviations: float, power: float) -> None:
    """`deviations` of one trial; two seeds have the noise of an earlier stage, three and five their own alone."""
    called = 0
    for y, prior in sweeps(4, seeds, [deviations * SD], rng_seed=4, count=FEWER):
        ranking = rank(made(y), prior=prior)
        called += ranking.rows[position(ranking, 0)].verdict == "worse"
    assert called / FEWER == pytest.approx(power, abs=0.05)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_best_of_four_by_one_deviation_is_chosen_in_two_sweeps_of_three(seeds: int) -> None:
    best = sum(position(rank(made(y)), 0) == 0 for y, _ in sweeps(4, seeds, [-SD], rng_seed=5, count=FEWER))
    assert best / FEWER >= 2 / 3
