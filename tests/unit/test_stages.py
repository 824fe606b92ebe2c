"""The stages on a made-up training whose best settings are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from surfaces import START, Surface, go, knowledge, lrs

from hptune.analysis.candidates import Noise
from hptune.analysis.recommendation import recommend, transfer
from hptune.analysis.sampling import block_error
from hptune.stages import STAGES, Knowledge, stage_named
from hptune.stages.base import LONGER_REPETITIONS
from hptune.stages.batch_size import BatchSize, relative_speeds, smallest_saturated
from hptune.stages.confirm import Confirm
from hptune.stages.key_sweep import KeySweep
from hptune.stages.lr_range import LrRange, range_samples
from hptune.stages.momentum import Momentum
from hptune.stages.refine import Refine, Space, search_space
from hptune.stages.rounds import criterion, leading
from hptune.stages.weight_decay import WeightDecay, edge, halfway, timescale_epochs
from hptune.trial import CurveSummary, Hyperparameters, TrialRecord, TrialSpec

RANGE = {"min_lr": 1e-4, "max_lr": 10.0, "ramp": "exponential"}
DECAY = {"values": [1e-2, 1e-3, 1e-4, 0.0], "bisect": True}
MOMENTA = {"values": [0.99, 0.97, 0.95, 0.9], "minimum": 0.85}
SIZES = {"values": [32, 64, 128, 256], "compare": "samples"}


def diverged(spec: TrialSpec) -> TrialRecord:
    return TrialRecord(spec=spec, status="diverged", steps=1, samples=spec.hyperparameters.batch_size)


# --- knowledge -------------------------------------------------------------------------------------------------------------


def test_knowledge_survives_json() -> None:
    import json

    k = knowledge(
        settings=RANGE, sources=(("lr", "baseline"),), speeds=((32, 0.8), (64, 1.0)), history=("a",), noise=Noise(sum_squares=1.5, df=3)
    )
    assert Knowledge.from_json(json.loads(json.dumps(k.to_json()))) == k


def test_equal_time_gives_a_faster_batch_size_more_samples_at_the_same_cost() -> None:
    k = knowledge(speeds=((64, 1.0), (128, 1.5)))
    slow, fast = k.short_run(START), k.short_run(START.but(batch_size=128))
    assert slow.samples == 2 * 1280
    assert fast.samples == 3 * 1280
    assert k.cost(slow) == k.cost(fast) == 1.0


def test_full_runs_use_seeds_no_search_run_has_seen() -> None:
    k = knowledge(seeds=50)
    search = {k.short_run(START, repetition).seed for repetition in range(50)}
    assert not search & {k.full_run(START, repetition).seed for repetition in range(50)}


def test_repetitions_share_their_seed_whatever_the_hyperparameters() -> None:
    k = knowledge()
    assert k.short_run(START, 1).seed == k.short_run(START.but(lr=0.3, batch_size=32), 1).seed != k.short_run(START, 0).seed


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_found_by_name(name: str) -> None:
    assert stage_named(name).name == name


def test_any_other_name_is_a_key_sweep() -> None:
    assert isinstance(stage_named("model.args.dropout"), KeySweep)


# --- lr range --------------------------------------------------------------------------------------------------------------


def test_lr_range_ramps_on_every_seed_then_checks_around_the_suggestion() -> None:
    k = knowledge(settings=RANGE)
    done, rounds = go(LrRange(), k, Surface(lr=0.5))
    assert rounds[0] == 2
    ramps = done[:2]
    assert {r.spec.schedule.kind for r in ramps} == {"ramp"}
    assert {r.spec.repetition for r in ramps} == {0, 1}
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert 0.3 <= conclusion.chosen.lr <= 0.8
    assert {0.1} < lrs(done), "the start's own LR is among the candidates"
    assert conclusion.detail["suggested"] == pytest.approx(0.5, rel=0.25)
    assert len(conclusion.detail["ranges"]) == 2


def test_lr_range_goes_further_until_the_best_lr_lies_between_two_others() -> None:
    k = knowledge(settings={**RANGE, "max_lr": 0.01}, start=START.but(lr=0.001))
    done, _ = go(LrRange(), k, Surface(lr=0.8))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == pytest.approx(0.8), "eight times the textbook 0.1"
    assert max(lrs(done)) == pytest.approx(1.6)


def test_lr_range_goes_down_when_everything_it_checks_diverges() -> None:
    k = knowledge(settings=RANGE)
    done, _ = go(LrRange(), k, Surface(lr=0.001, diverges_above=0.009))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr <= 0.009


def test_lr_range_goes_down_even_beyond_its_allowance_since_nothing_else_is_worth_it() -> None:
    k = knowledge(settings=RANGE, allowance=2.5)
    done, _ = go(LrRange(), k, Surface(lr=0.1, diverges_above=0.009))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr <= 0.009


def test_lr_range_does_not_try_what_lies_above_an_lr_that_diverged() -> None:
    k = knowledge(settings=RANGE, start=START.but(lr=0.5), allowance=3.2)
    done, _ = go(LrRange(), k, Surface(lr=0.06, diverges_above=0.01))
    checked = {r.spec.hyperparameters.lr: r.usable for r in done if r.spec.schedule.kind != "ramp"}
    assert any(not usable for usable in checked.values())
    assert max(checked) < 0.1, "neither the start's own nor the textbook's"


def test_a_trial_that_ended_early_costs_what_it_took() -> None:
    k = knowledge(settings=RANGE)
    whole, broken = (Surface(diverges_above=limit)(k.short_run(START)) for limit in (3.0, 0.01))
    assert k.spent(whole) == 1.0
    assert k.spent(broken) == pytest.approx(5 * 64 / (2 * 1280))


def test_lr_range_says_so_when_nothing_trains() -> None:
    k = knowledge(settings=RANGE)
    done, _ = go(LrRange(), k, diverged)
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is None
    assert "diverged" in conclusion.sentence


def test_lr_range_takes_at_least_sixty_steps() -> None:
    k = knowledge(settings=RANGE, train_samples=128, short_epochs=1.0)
    assert {spec.steps for spec in LrRange().plan(k, [])} == {60}


def test_lr_range_with_an_allowance_of_one_run_still_ramps_once() -> None:
    k = knowledge(settings=RANGE, allowance=0.5)
    done, rounds = go(LrRange(), k, Surface(lr=0.5))
    assert rounds == [1]
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == pytest.approx(0.5, rel=0.25)
    assert "the budget paid for no check" in conclusion.sentence


def test_lr_range_checks_its_own_suggestion_first_where_the_budget_is_short() -> None:
    k = knowledge(settings=RANGE, allowance=3.6)
    done, _ = go(LrRange(), k, Surface(lr=0.5))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == pytest.approx(conclusion.detail["suggested"], rel=0.05)
    assert len(conclusion.rows) == 2
    assert "at the edge of what was tried" in conclusion.sentence


def test_a_stage_pays_nothing_for_what_earlier_ones_ran() -> None:
    k = knowledge(settings=MOMENTA, allowance=2.0, start=START)
    free = replace(k, history=(k.short_run(START).trial_id,))
    assert len(Momentum().plan(k, [])) == 2
    assert len(Momentum().plan(free, [])) == 3


# --- batch size ------------------------------------------------------------------------------------------------------------


def test_batch_size_checks_three_lrs_at_each_new_size_and_reseeds_the_best() -> None:
    k = knowledge(settings=SIZES, start=START.but(lr=0.2))
    done, rounds = go(BatchSize(), k, Surface(batch_size=128))
    assert rounds == [10, rounds[1]]
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.batch_size == 128
    assert conclusion.chosen.lr == pytest.approx(0.2 * 2**0.7, rel=0.05)
    assert [row.hyperparameters.batch_size for row in conclusion.rows].count(128) == 1, "one row a size"
    assert "equal samples" in conclusion.sentence


def test_batch_size_leaves_out_what_cannot_pay() -> None:
    seconds = [[32, 0.01], [64, 0.011], [128, 0.02], [256, 0.04], [512, math.inf]]
    k = knowledge(settings={"values": [32, 64, 128, 256, 512, 4096], "compare": "time", "seconds_per_step": seconds})
    done, _ = go(BatchSize(), k, Surface())
    assert {r.spec.hyperparameters.batch_size for r in done} == {32, 64, 128}
    notes = " ".join(BatchSize().conclude(k, done).notes)
    assert "batch size 512 does not fit in memory" in notes
    assert "4096 is larger than the training part (1280)" in notes
    assert "batch size 256 is no faster per sample than 128" in notes


def test_a_larger_batch_goes_on_when_the_loss_is_the_same() -> None:
    k = knowledge(settings={"values": [64, 128], "compare": "samples"}, start=START.but(lr=0.2))
    flat = Surface(batch_curvature=0.0, noise=0.0, seed_effect=0.0, lr=0.2)
    done, _ = go(BatchSize(), k, flat)
    chosen = BatchSize().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.batch_size == 128


def test_the_best_batch_size_gets_lrs_until_its_best_lies_between_two() -> None:
    k = knowledge(settings={"values": [64, 256], "compare": "samples"}, start=START.but(lr=0.05))
    done, _ = go(BatchSize(), k, Surface(lr=0.2, batch_size=256, batch_curvature=0.2))
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == pytest.approx(0.2 * 4**0.7, rel=0.1), "four times the scaled one"
    assert not any("outermost" in note for note in conclusion.notes)


@pytest.mark.parametrize(("best", "walked"), [(16, [64, 32, 16]), (32, [64, 32, 16]), (64, [64, 32, 128]), (256, [64, 32, 128, 256])])
def test_under_a_budget_sizes_are_seen_as_long_as_they_get_better_and_then_the_best_ones_lr_is_searched(
    best: int, walked: list[int]
) -> None:
    k = knowledge(settings={**SIZES, "values": [16, 32, 64, 128, 256]}, start=START.but(lr=0.1), allowance=8.0)
    done, _ = go(BatchSize(), k, Surface(lr=0.2, batch_size=best, batch_curvature=0.1, noise=0.0))
    sizes = [r.spec.hyperparameters.batch_size for r in done]
    assert sizes[: len(walked)] == walked
    assert sizes[len(walked) : len(walked) + 2] == [best, best]


def test_under_a_budget_an_lr_that_one_seed_survives_by_luck_does_not_go_on() -> None:
    lucky = Surface(lr=0.2, noise=0.0)

    def train(spec: TrialSpec) -> TrialRecord:
        record = lucky(spec)
        edge = spec.hyperparameters.lr >= 0.2 and spec.repetition > 0
        return replace(record, status="diverged", val_loss=math.nan) if edge else record

    k = knowledge(settings={"values": [64], "compare": "samples"}, start=START.but(lr=0.2), allowance=5.0)
    done, _ = go(BatchSize(), k, train)
    chosen = BatchSize().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.lr == 0.1
    assert k.short_run(chosen, 1).trial_id in {r.trial_id for r in done}, "it held on a second seed"


@pytest.mark.parametrize(("second", "chosen"), [(1.1, 0.2), (2.0, 0.1)])
def test_under_a_budget_an_lr_whose_seeds_disagree_is_compared_with_the_next_lower_one_on_both(second: float, chosen: float) -> None:
    plain = Surface(lr=0.2, noise=0.0, seed_effect=0.0)

    def train(spec: TrialSpec) -> TrialRecord:
        worse = second if spec.hyperparameters.lr >= 0.2 and spec.repetition > 0 else 1.0
        record = plain(spec)
        return replace(record, val_loss=worse * record.val_loss)

    k = knowledge(settings={"values": [64], "compare": "samples"}, start=START.but(lr=0.2), allowance=6.0)
    done, _ = go(BatchSize(), k, train)
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == chosen


@pytest.mark.parametrize(
    ("above", "below", "chosen"),
    [(math.nan, 0.31, 0.1), (0.7, 0.31, 0.1), (math.nan, 0.33, 0.2), (0.35, 0.31, 0.2), (math.nan, math.nan, 0.2)],
    ids=["next to a cliff", "next to ruin", "the lower one is worse", "no cliff", "nothing lower holds"],
)
def test_an_lr_next_to_a_cliff_gives_way_to_the_next_lower_one_if_that_is_as_good(above: float, below: float, chosen: float) -> None:
    losses = {0.1: below, 0.2: 0.3, 0.4: above}

    def train(spec: TrialSpec) -> TrialRecord:
        loss = losses.get(spec.hyperparameters.lr, math.nan)
        return replace(Surface()(spec), val_loss=loss, status="diverged" if math.isnan(loss) else "completed")

    k = knowledge(settings={"values": [64], "compare": "samples"}, start=START.but(lr=0.2), allowance=8.0)
    done, _ = go(BatchSize(), k, train)
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == chosen
    assert any(note.startswith("LR 0.1 goes on: 0.2, best on the first seed") for note in conclusion.notes) is (chosen == 0.1)


def test_batch_size_falls_back_to_lower_lrs_where_everything_diverges_whatever_the_budget() -> None:
    k = knowledge(settings=SIZES, start=START.but(lr=0.2), allowance=2.0)
    done, _ = go(BatchSize(), k, Surface(diverges_above=0.02))
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr <= 0.02


def test_batch_size_says_when_the_best_lr_is_the_outermost() -> None:
    k = knowledge(settings={"values": [64, 256], "compare": "samples"}, start=START.but(lr=0.004))
    done, _ = go(BatchSize(), k, Surface(lr=0.2, batch_size=256, batch_curvature=0.2))
    conclusion = BatchSize().conclude(k, done)
    assert any("outermost" in note for note in conclusion.notes)


def test_batch_size_without_any_usable_run() -> None:
    k = knowledge(settings=SIZES)
    done, _ = go(BatchSize(), k, diverged)
    conclusion = BatchSize().conclude(k, done)
    assert conclusion.chosen is None
    assert conclusion.sentence == "no batch size gave a usable loss: diverged"


@pytest.mark.parametrize(("larger_is_better", "size"), [(True, 128), (False, 32)])
def test_batch_size_can_rank_by_the_metric(larger_is_better: bool, size: int) -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        return replace(Surface(noise=0.0)(spec), metric=spec.hyperparameters.batch_size + spec.hyperparameters.lr)

    k = knowledge(settings={"values": [32, 64, 128], "compare": "samples"}, rank_by="metric", larger_is_better=larger_is_better)
    done, _ = go(BatchSize(), k, train)
    chosen = BatchSize().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.batch_size == size


def test_relative_speeds_ignore_small_differences_and_memory_failures() -> None:
    speeds = dict(relative_speeds({32: 0.010, 64: 0.011, 128: 0.0205, 256: math.inf, 1024: 0.02}, START))
    assert speeds == {32: 0.55, 64: 1.0, 128: 1.0, 1024: 4.0}


def test_smallest_saturated_is_where_throughput_stops_rising() -> None:
    assert smallest_saturated({32: 1.0, 64: 1.0, 128: 1.02, 256: 2.0}) == 128


# --- momentum --------------------------------------------------------------------------------------------------------------


def test_momentum_finds_the_best_and_falls_to_the_minimum() -> None:
    k = knowledge(settings=MOMENTA)
    done, _ = go(Momentum(), k, Surface(momentum=0.95, momentum_curvature=200.0))
    conclusion = Momentum().conclude(k, done)
    assert conclusion.chosen == START.but(momentum=0.95, momentum_min=0.85)
    assert {r.spec.hyperparameters.momentum_min for r in done} == {0.85}


def test_a_lower_momentum_goes_on_when_the_loss_is_the_same() -> None:
    k = knowledge(settings=MOMENTA)
    done, _ = go(Momentum(), k, Surface(momentum_curvature=0.0, noise=0.0, seed_effect=0.0))
    chosen = Momentum().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.momentum == 0.9


def test_momentum_below_the_minimum_stays_constant() -> None:
    k = knowledge(settings={"values": [0.9, 0.5], "minimum": 0.85})
    assert {(s.hyperparameters.momentum, s.hyperparameters.momentum_min) for s in Momentum().plan(k, [])} == {(0.9, 0.85), (0.5, 0.5)}


def test_candidates_far_behind_get_no_second_seed() -> None:
    k = knowledge(settings=MOMENTA)
    done, rounds = go(Momentum(), k, Surface(momentum_curvature=300.0, noise=0.001))
    assert rounds[0] == 4
    assert len(done) < 8, "0.99 is out of the race after one seed"


def test_momentum_without_any_usable_run() -> None:
    k = knowledge(settings=MOMENTA)
    done, _ = go(Momentum(), k, diverged)
    assert Momentum().conclude(k, done).chosen is None


def test_an_allowance_keeps_what_is_nearest_to_the_start() -> None:
    k = knowledge(settings=MOMENTA, allowance=2.0)
    done, _ = go(Momentum(), k, Surface())
    assert [r.spec.hyperparameters.momentum for r in done] == [0.9, 0.95]


# --- weight decay ----------------------------------------------------------------------------------------------------------


def test_weight_decay_bisects_around_the_best() -> None:
    k = knowledge(settings=DECAY)
    done, _ = go(WeightDecay(), k, Surface(weight_decay=5e-4, decay_curvature=0.3))
    tried = {r.spec.hyperparameters.weight_decay for r in done}
    assert tried >= {1e-2, 1e-3, 1e-4, 0.0, 3e-4}
    conclusion = WeightDecay().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.weight_decay in (3e-4, 1e-3)


@pytest.mark.parametrize(("best", "added"), [(0.1, {0.1, 1.0}), (1e-6, {1e-5, 1e-6})])
def test_weight_decay_extends_the_grid_at_its_edge(best: float, added: set[float]) -> None:
    k = knowledge(settings={"values": [1e-2, 1e-3, 1e-4], "bisect": False})
    done, _ = go(WeightDecay(), k, Surface(weight_decay=best, decay_curvature=0.3))
    assert {r.spec.hyperparameters.weight_decay for r in done} == {1e-2, 1e-3, 1e-4} | added


def test_weight_decay_says_when_it_ends_at_the_edge() -> None:
    k = knowledge(settings={"values": [1e-2, 1e-3], "bisect": False}, start=START.but(weight_decay=1e-2))
    done, _ = go(WeightDecay(), k, Surface(weight_decay=100.0, decay_curvature=0.1))
    assert any("at the edge" in note for note in WeightDecay().conclude(k, done).notes)


def test_zero_weight_decay_alone_can_win() -> None:
    k = knowledge(settings={"values": [1e-2, 0.0], "bisect": True}, start=START.but(weight_decay=0.0))
    done, _ = go(WeightDecay(), k, Surface(weight_decay=1e-7, decay_curvature=0.3, noise=0.0))
    conclusion = WeightDecay().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.weight_decay == 0.0
    assert dict(conclusion.rows[0].values)["timescale_epochs"] == "never"


def test_only_zero_has_no_edge() -> None:
    assert edge([0.0], 0.0) is None


def test_near_equal_weight_decays_give_the_middle_one() -> None:
    k = knowledge(settings={"values": [1e-2, 1e-3, 1e-4], "bisect": False})
    done, _ = go(WeightDecay(), k, Surface(decay_curvature=0.0, noise=0.0, seed_effect=0.0))
    chosen = WeightDecay().conclude(k, done).chosen
    tried = sorted(r.spec.hyperparameters.weight_decay for r in done)
    assert chosen is not None
    assert tried[0] < chosen.weight_decay < tried[-1]


def test_weight_decay_without_any_usable_run() -> None:
    k = knowledge(settings=DECAY)
    done, _ = go(WeightDecay(), k, diverged)
    assert WeightDecay().conclude(k, done).chosen is None


@pytest.mark.parametrize(
    ("values", "best", "between"),
    [([1e-4, 1e-3], 1e-3, [3e-4]), ([1e-4, 1e-3, 1e-2], 1e-3, [3e-4, 3e-3]), ([1e-4, 3e-4], 1e-4, []), ([0.0, 1e-4], 0.0, [])],
)
def test_halfway_bisects_the_exponent_to_one_figure(values: list[float], best: float, between: list[float]) -> None:
    assert halfway(values, best) == between


@pytest.mark.parametrize(("optimizer", "epochs"), [("sgd", 0.1 / (0.1 * 1e-3) / 20), ("adamw", 1 / (0.1 * 1e-3) / 20)])
def test_timescale_of_weight_decay(optimizer: str, epochs: float) -> None:
    assert timescale_epochs(knowledge(optimizer=optimizer), START.but(weight_decay=1e-3)) == pytest.approx(epochs)


# --- refine ----------------------------------------------------------------------------------------------------------------


class Fixed:
    """A sampler that proposes given LRs in turn."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates
        self.spaces: list[Space] = []

    def __call__(self, start, space, done, count, seed):  # type: ignore[no-untyped-def]
        self.spaces.append(space)
        own = [r for r in done if r.spec.repetition in (0, LONGER_REPETITIONS)][1:]
        return [start.but(lr=lr) for lr in self.rates[len(own) : len(own) + count]]


def test_refine_in_short_runs_makes_its_proposals_and_reseeds_the_good_ones() -> None:
    k = knowledge(settings={"trials": 6}, full_epochs=2.0)
    sampler = Fixed([0.2, 0.05, 0.15, 0.3, 0.25, 0.12])
    done, rounds = go(Refine(sampler), k, Surface(lr=0.2))
    assert rounds[:2] == [5, 2], "the start and four proposals, then two"
    conclusion = Refine().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr in (0.15, 0.2, 0.25)
    assert "a proposal goes on" in conclusion.sentence


def test_refine_keeps_the_start_where_nothing_beats_it() -> None:
    k = knowledge(settings={"trials": 2}, full_epochs=2.0)
    done, _ = go(Refine(Fixed([0.01, 0.9])), k, Surface(lr=0.1, noise=0.0))
    conclusion = Refine().conclude(k, done)
    assert conclusion.chosen == START
    assert "the current best stays" in conclusion.sentence


def test_refine_ends_when_the_sampler_only_repeats_itself() -> None:
    k = knowledge(settings={"trials": 3}, full_epochs=2.0)
    done, _ = go(Refine(Fixed([0.1, 0.1, 0.1])), k, Surface())
    assert lrs(done) == {0.1}


def test_refine_spends_its_allowance() -> None:
    k = knowledge(settings={"trials": 100}, allowance=9.0, full_epochs=2.0)
    done, _ = go(Refine(Fixed([0.1 + 0.01 * i for i in range(1, 50)])), k, Surface())
    assert sum(k.cost(r.spec) for r in done) <= 9.0
    assert len(lrs(done)) == 7


def test_refine_keeps_a_third_of_a_short_allowance_for_seeds_at_most() -> None:
    k = knowledge(settings={"trials": 100}, allowance=3.0)
    done, _ = go(Refine(Fixed([0.1 + 0.01 * i for i in range(1, 50)])), replace(k, history=(k.short_run(START).trial_id,)), Surface())
    assert len(lrs(done)) == 3, "the start, which cost nothing, and two proposals"


def test_refine_without_any_usable_run() -> None:
    k = knowledge(settings={"trials": 1})
    done, _ = go(Refine(Fixed([0.2])), k, diverged)
    assert Refine().conclude(k, done).chosen is None


def by_decay(losses: dict[float, float]) -> Callable[[TrialSpec], TrialRecord]:
    """A loss for each weight decay over that of the carried one, 1 where none is given; by their blocks none is shown to be better."""

    def train(spec: TrialSpec) -> TrialRecord:
        least = knowledge().longer(spec.samples / (2 * 1280)).decay(START)
        times = round(spec.hyperparameters.weight_decay / least, 1)
        loss, period = losses.get(times, 1.0), 1 if times < 2 else 2 if times < 4 else 4
        return replace(Surface()(spec), val_loss=loss, val_block_losses=tuple(loss + 0.5 * (-1) ** (i // period) for i in range(16)))

    return train


@pytest.mark.parametrize(("allowance", "times"), [(8.0, 3.0), (16.0, 1.0)], ids=["short of the full length", "at full length"])
def test_more_regularization_need_only_be_better_where_the_full_length_overfits_sooner(allowance: float, times: float) -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, allowance=allowance)
    done, _ = go(Refine(Fixed([])), k, by_decay({3.0: 0.98, 6.0: 0.99}))
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    length = Refine().conclude(k, done).detail["length"]
    assert chosen.weight_decay / k.longer(length).decay(START) == pytest.approx(times, rel=0.05)


@pytest.mark.parametrize(("more", "third"), [(0.9, (0.05, 6.0)), (1.1, (0.1, 0.33))], ids=["helps", "does not"])
def test_longer_runs_look_for_more_regularization_where_it_helps_and_for_less_where_not(more: float, third: tuple[float, float]) -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, allowance=8.0)
    done, rounds = go(Refine(Fixed([])), k, by_decay({3.0: more}))
    assert rounds == [2, 1]
    own, least = done[2].spec.hyperparameters, done[0].spec.hyperparameters.weight_decay
    assert (own.lr, pytest.approx(own.weight_decay / least, rel=0.05)) == third


@pytest.mark.parametrize(("others", "goes_on"), [(1, True), (11, False)], ids=["one other", "the best of eleven others"])
def test_the_best_of_many_longer_runs_has_to_be_better_by_more(others: int, goes_on: bool) -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, seeds=1)
    start = transfer(START, k.longer(5.0), frozenset({"weight_decay"}))[0]

    def trained(own: Hyperparameters, loss: float, sign: int) -> TrialRecord:
        blocks = tuple(loss + 0.1 * sign * (-1) ** i for i in range(16))  # a difference of two has a standard error of 0.052
        return replace(Surface()(k.run(own, epochs=10.0, repetition=LONGER_REPETITIONS)), val_loss=loss, val_block_losses=blocks)

    done = [trained(start, 1.0, 1), trained(start.but(momentum=0.95), 1 - 1.3 * 0.052, -1)]
    done += [trained(start.but(momentum=0.8 + 0.005 * i), 1.0, 1) for i in range(others - 1)]
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert (chosen.momentum == 0.95) is goes_on


def test_of_longer_runs_that_are_as_good_the_least_change_goes_on() -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, allowance=8.0)
    done, _ = go(Refine(Fixed([])), k, by_decay({3.0: 0.98, 6.0: 0.975}))
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.lr == START.lr
    assert chosen.weight_decay == done[1].spec.hyperparameters.weight_decay


def test_longer_runs_do_not_repeat_the_seeds_of_the_short_ones() -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, seeds=3)
    done, _ = go(Refine(Fixed([])), k, Surface())
    assert min(r.spec.repetition for r in done) == LONGER_REPETITIONS
    seeds = {k.short_run(START, repetition).seed for repetition in range(3)}
    assert not seeds & {r.spec.seed for r in done}


def held_up_to(limit: float, *, seed: int) -> Callable[[TrialSpec], TrialRecord]:
    """Better the higher the LR and the less weight decay, but from `limit` on only on the seed given."""

    def train(spec: TrialSpec) -> TrialRecord:
        lr = spec.hyperparameters.lr
        loss = 0.3 / (1 + lr) + spec.hyperparameters.weight_decay if lr <= limit or spec.repetition == seed else 2.3
        return replace(Surface()(spec), val_loss=loss, val_block_losses=(loss,) * 16)

    return train


@pytest.mark.parametrize(("limit", "raised"), [(0.3, False), (3.0, True)])
def test_a_higher_lr_goes_on_in_longer_runs_only_if_it_holds_on_a_second_seed(limit: float, raised: bool) -> None:
    k = knowledge(settings={"trials": 3}, sources=SETTLED, start=START.but(lr=0.2), allowance=31.0)
    done, _ = go(Refine(Fixed([])), k, held_up_to(limit, seed=LONGER_REPETITIONS))
    assert [r.spec.hyperparameters.lr for r in done] == [0.2, 0.2, 0.2, 0.1, 0.4, 0.4], "the second seed comes as soon as it is the best"
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.lr == (0.4 if raised else 0.2)


def test_a_higher_lr_whose_seeds_disagree_gets_no_third_one_where_the_start_diverged() -> None:
    k = knowledge(settings={"trials": 3}, sources=SETTLED, start=START.but(lr=0.2), allowance=100.0)
    start = Refine().plan(k, [])[0].hyperparameters
    runs = [
        k.run(h, epochs=10.0, repetition=LONGER_REPETITIONS + i) for h, i in ((start, 0), (start.but(lr=0.4), 0), (start.but(lr=0.4), 1))
    ]
    done = [replace(Surface()(spec), val_loss=loss) for spec, loss in zip(runs, (math.nan, 0.3, 0.9), strict=True)]
    assert start.but(lr=0.4) not in {spec.hyperparameters for spec in Refine().plan(k, done)}


def test_refine_lowers_the_lr_where_all_longer_runs_diverge() -> None:
    k = knowledge(settings={"trials": 3}, sources=SETTLED, start=START.but(lr=0.4))
    done, _ = go(Refine(Fixed([])), k, Surface(diverges_above=0.05))
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.lr <= 0.05


SETTLED = (("lr", "lr_range"), ("weight_decay", "weight_decay"))


def test_refine_spends_what_is_left_on_longer_runs_around_the_transferred_best() -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, start=START.but(lr=0.4))
    done, rounds = go(Refine(Fixed([])), k, Surface(noise=0.0))
    assert rounds[0] == 4
    assert {r.spec.samples for r in done} == {5 * 2 * 1280}
    tried = [(r.spec.hyperparameters.lr, r.spec.hyperparameters.weight_decay) for r in done[:4]]
    assert tried == [(0.4, 1.2e-3), (0.4, 3.6e-3), (0.2, 2.4e-3), (0.8, 6e-4)], "LRs at the same timescale of weight decay"


@pytest.mark.parametrize(("allowance", "times", "runs"), [(26.0, 5.0, 5), (23.0, 4.51, 5), (18.0, 4.41, 4), (16.0, 5.0, 3), (8.0, 2.61, 3)])
def test_refine_runs_as_long_as_its_allowance_pays_for_three(allowance: float, times: float, runs: int) -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, allowance=allowance, seeds=1)
    done, _ = go(Refine(Fixed([])), k, Surface())
    assert Refine().conclude(k, done).detail["length"] == times
    assert len(done) == runs
    assert sum(k.cost(r.spec) for r in done) <= allowance


@pytest.mark.parametrize("changes", [{"allowance": 5.0}, {"settings": {"trials": 2}}, {"full_epochs": 3.0}], ids=str)
def test_refine_stays_with_short_runs_where_longer_ones_are_not_worth_it(changes: dict[str, object]) -> None:
    k = knowledge(**{"settings": {"trials": 4}, **changes})
    done, _ = go(Refine(Fixed([0.2, 0.3])), k, Surface())
    assert {r.spec.samples for r in done} == {2 * 1280}
    assert Refine().conclude(k, done).detail["length"] == 1.0


def test_refine_proposes_more_where_longer_runs_are_many() -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, allowance=50.0)
    sampler = Fixed([0.0, 0.0, 0.0, 0.0, 0.11, 0.12, 0.13])
    done, _ = go(Refine(sampler), k, Surface())
    assert sampler.spaces
    assert {0.11, 0.12, 0.13} <= lrs(done)
    assert sum(k.cost(r.spec) for r in done) <= 50.0


@pytest.mark.parametrize(
    ("spread", "stays"), [(0.0, False), (0.5, True)], ids=["every block agrees", "other samples could say the opposite"]
)
def test_longer_runs_replace_the_current_best_beyond_the_noise_of_the_validation_part(spread: float, stays: bool) -> None:
    k = knowledge(settings={"trials": 5}, sources=SETTLED, seeds=1)

    def train(spec: TrialSpec) -> TrialRecord:
        better = spec.hyperparameters.weight_decay < 2e-3
        loss = 0.9 if better else 1.0
        blocks = tuple(loss + (spread if better else 0.0) * (-1) ** i for i in range(16))
        return replace(Surface()(spec), val_loss=loss, val_block_losses=blocks)

    done, _ = go(Refine(Fixed([])), k, train)
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert (chosen.weight_decay == 5e-3) is stays


def test_longer_runs_ranked_by_the_metric_are_not_judged_by_blocks_of_the_loss() -> None:
    k = knowledge(settings={"trials": 5}, sources=SETTLED, seeds=1, rank_by="metric")

    def train(spec: TrialSpec) -> TrialRecord:
        better = spec.hyperparameters.weight_decay < 2e-3
        loss, metric = (1.1, 0.9) if better else (1.0, 0.5)
        return replace(Surface()(spec), val_loss=loss, metric=metric, val_block_losses=(loss,) * 16)

    done, _ = go(Refine(Fixed([])), k, train)
    chosen = Refine().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.weight_decay == 1.7e-3


def test_longer_runs_claim_nothing_from_the_noise_of_short_ones() -> None:
    k = knowledge(settings={"trials": 4}, sources=SETTLED, seeds=1, noise=Noise(sum_squares=1e-6, df=50))
    done, _ = go(Refine(Fixed([])), k, Surface())
    assert {row.verdict for row in Refine().conclude(k, done).rows} == {"best", "tied"}


def test_search_space_is_a_box_around_the_start() -> None:
    space = search_space(
        knowledge(start=START.but(momentum=0.995, weight_decay=0.0), speeds=((32, 1.0), (64, 1.0), (128, 1.0), (256, 1.0)))
    )
    assert space.lr == (0.025, 0.4)
    assert space.weight_decay == (1e-6, 1e-4)
    assert space.slack == pytest.approx((0.005, 0.01))
    assert space.batch_sizes == (32, 64, 128)


# --- confirm ---------------------------------------------------------------------------------------------------------------

BETTER = START.but(lr=0.2, weight_decay=1e-3)


def confirm_settings(*finalists: tuple[str, object], seeds: int = 5) -> dict[str, object]:
    return {"seeds": seeds, "finalists": [[name, asdict(h)] for name, h in finalists]}  # type: ignore[call-overload]


def test_confirm_shows_a_better_candidate_to_be_better() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER)))
    done, rounds = go(Confirm(), k, Surface(noise=0.01))
    assert rounds == [10, 10], "five seeds of two, then the winner at half and a quarter"
    conclusion = Confirm().conclude(k, done)
    assert conclusion.chosen == BETTER
    assert conclusion.detail["better"] is True
    assert conclusion.detail["gain"]["high"] < 1
    assert [share for share, _ in conclusion.detail["shorter"]] == [0.5, 0.25]
    assert conclusion.detail["test"]["difference"] < 0
    assert conclusion.detail["test"]["sampling_error"] > 0
    assert "better than the baseline" in conclusion.sentence
    assert any(note.startswith("trained shorter") for note in conclusion.notes)
    assert any(note.startswith("on the test part") for note in conclusion.notes)


@pytest.mark.parametrize(("fewest", "shown"), [(60, [0.5]), (150, [])], ids=["a quarter diverges", "both diverge"])
def test_shorter_trainings_that_diverge_are_not_spoken_of(fewest: int, shown: list[float]) -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.001)(spec)
        return record if spec.steps > fewest else replace(record, status="diverged", val_loss=math.nan)

    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER)))
    done, _ = go(Confirm(), k, train)
    conclusion = Confirm().conclude(k, done)
    assert conclusion.chosen == BETTER
    assert [share for share, _ in conclusion.detail["shorter"]] == shown
    assert any(note.startswith("trained shorter") for note in conclusion.notes) is bool(shown)


def test_confirm_claims_nothing_from_one_seed() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER), seeds=1))
    done, _ = go(Confirm(), k, Surface(noise=0.0, seed_effect=0.0))
    conclusion = Confirm().conclude(k, done)
    assert conclusion.detail.get("better") is False
    assert "is not shown" in conclusion.sentence or "the baseline stays" in conclusion.sentence


def test_the_baseline_wins_within_the_noise() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", START.but(lr=0.1001))))
    done, rounds = go(Confirm(), k, Surface(lr=0.1, noise=0.02))
    conclusion = Confirm().conclude(k, done)
    if conclusion.chosen == START:
        assert "the baseline stays" in conclusion.sentence
        assert rounds == [10]
    assert conclusion.detail["better"] is False


def test_the_baseline_wins_when_it_is_best() -> None:
    k = knowledge(settings=confirm_settings(("baseline", BETTER), ("recommended", START)))
    done, rounds = go(Confirm(), k, Surface(noise=0.001))
    conclusion = Confirm().conclude(k, done)
    assert conclusion.chosen == BETTER
    assert rounds == [10]
    assert conclusion.detail == {"winner": "baseline", "better": False}


def test_a_diverged_baseline_is_no_reason_to_stop() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START.but(lr=5.0)), ("recommended", START)))
    done, _ = go(Confirm(), k, Surface())
    conclusion = Confirm().conclude(k, done)
    assert conclusion.chosen == START
    assert "the baseline gave no usable loss" in conclusion.sentence


def test_confirm_without_any_usable_run() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START)))
    done, _ = go(Confirm(), k, diverged)
    assert Confirm().conclude(k, done).chosen is None


def test_losses_that_are_not_positive_give_no_ratio_and_no_metric_is_no_obstacle() -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.001)(spec)
        return replace(record, val_loss=record.val_loss - 1, test_loss=record.test_loss - 1, test_metric=math.nan)

    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER)))
    done, _ = go(Confirm(), k, train)
    conclusion = Confirm().conclude(k, done)
    assert conclusion.chosen == BETTER
    assert "ratio" not in conclusion.sentence
    assert conclusion.detail["better"] is True
    assert not any("metric" in note for note in conclusion.notes)


def test_confirm_without_a_test_part_says_nothing_of_it() -> None:
    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER)), test_samples=0)
    done, _ = go(Confirm(), k, Surface(noise=0.001))
    conclusion = Confirm().conclude(k, done)
    assert conclusion.detail["test"] is None
    assert not any("test part" in note for note in conclusion.notes)


def test_confirm_says_when_no_shorter_training_reaches_the_baseline() -> None:
    def slow(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.001)(spec)
        return record if spec.steps == 200 else replace(record, val_loss=record.val_loss * 9)

    k = knowledge(settings=confirm_settings(("baseline", START), ("recommended", BETTER)))
    done, _ = go(Confirm(), k, slow)
    assert any("no shorter length tried" in note for note in Confirm().conclude(k, done).notes)


@pytest.mark.parametrize(("blocks", "error"), [([[1.0, 3.0]], 1.0), ([[1.0, 3.0], [3.0, 1.0]], 0.0)])
def test_block_error_is_the_error_of_the_mean_over_blocks(blocks: list[list[float]], error: float) -> None:
    assert block_error(blocks) == pytest.approx(error)


def test_block_error_needs_two_blocks() -> None:
    assert math.isnan(block_error([[1.0]]))


# --- any other key ---------------------------------------------------------------------------------------------------------


def variants(values: list[float]) -> list[dict[str, object]]:
    k = knowledge()
    return [
        {
            "value": value,
            "task": f"width {value}",
            "train_samples": k.train_samples,
            "hyperparameters": asdict(START),
            "schedule": asdict(k.schedule),
            "numerics": asdict(k.numerics),
        }
        for value in values
    ]


def test_any_other_key_is_ranked_the_same_way() -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.0)(spec)
        return replace(record, val_loss=record.val_loss * float(spec.task.removeprefix("width ")))

    k = knowledge(settings={"variants": variants([1.3, 1.0, 1.1])})
    stage = KeySweep("model.args.width")
    done, _ = go(stage, k, train)
    conclusion = stage.conclude(k, done)
    assert [dict(row.values)["width"] for row in conclusion.rows] == [1.0, 1.1, 1.3]
    assert conclusion.detail == {"key": "model.args.width", "value": 1.0}
    assert "width 1 goes on" in conclusion.sentence


@pytest.mark.parametrize(("own", "shown"), [(1.3, True), (1.0, False), (7.0, False)], ids=["worse", "the best", "not tried"])
def test_any_other_key_is_offered_where_it_is_better_than_the_configs_own(own: float, shown: bool) -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.001)(spec)
        return replace(record, val_loss=record.val_loss * float(spec.task.removeprefix("width ")))

    k = knowledge(task=f"width {own}", settings={"variants": variants([1.3, 1.0, 1.1])}, seeds=3)
    stage = KeySweep("model.args.width")
    conclusion = stage.conclude(k, go(stage, k, train)[0])
    assert ("own" in conclusion.detail) is shown
    assert ("better than the config's own 1.3" in conclusion.sentence) is shown
    assert "; the 2 others shown to be worse" in conclusion.sentence
    found = recommend([conclusion], baseline=START, to=knowledge().longer(5.0), epochs={0: 10.0})
    assert found is None, "a sweep alone recommends nothing"
    lr = replace(conclusion, stage="lr_range", detail={})
    found = recommend([lr, conclusion], baseline=START, to=knowledge().longer(5.0), epochs={0: 10.0})
    assert found is not None
    assert [(offer.key, offer.value) for offer in found.offers] == ([("model.args.width", 1.0)] if shown else [])
    assert all("--set model.args.width=1.0" in offer.sentence for offer in found.offers)


def test_any_other_key_without_any_usable_run() -> None:
    k = knowledge(settings={"variants": variants([1.0])})
    done, _ = go(KeySweep("x"), k, diverged)
    assert KeySweep("x").conclude(k, done).chosen is None


# --- what all share --------------------------------------------------------------------------------------------------------


def test_failed_trials_are_named_in_the_notes() -> None:
    def train(spec: TrialSpec) -> TrialRecord:
        if spec.hyperparameters.momentum == 0.99:
            return TrialRecord(spec=spec, status="failed", error="boom at mine.py:3")
        return Surface()(spec)

    k = knowledge(settings=MOMENTA)
    done, _ = go(Momentum(), k, train)
    assert any("boom at mine.py:3" in note for note in Momentum().conclude(k, done).notes)


@pytest.mark.parametrize("repetition", [0, LONGER_REPETITIONS])
def test_the_best_so_far_is_no_ramp_and_as_sure_as_its_own_length_makes_it(repetition: int) -> None:
    k = knowledge(settings=RANGE, noise=Noise(sum_squares=10 * 0.01**2, df=10))
    ramps = [replace(Surface()(spec), val_loss=1e-9) for spec in LrRange().plan(k, [])]
    runs = [Surface()(k.short_run(START.but(lr=lr), repetition)) for lr in (0.05, 0.1)]
    found = leading(k, [*ramps, *runs])
    assert found is not None
    best = min(runs, key=lambda record: record.val_loss)
    assert found.val_loss == pytest.approx(best.val_loss)
    assert math.isnan(found.val_loss_low) is (repetition > 0)


def test_seeds_come_in_complete_rounds_or_not_at_all() -> None:
    k = knowledge(settings={"values": [0.9, 0.95], "minimum": 0.85}, allowance=3.0)
    done, rounds = go(Momentum(), k, Surface(momentum_curvature=0.0))
    assert rounds == [2], "one more run would fit, a round of two does not"
    assert len(done) == 2


def test_a_curve_of_a_ramp_that_ends_early_still_concludes() -> None:
    def cut(spec: TrialSpec) -> TrialRecord:
        record = Surface()(spec)
        if spec.schedule.kind == "ramp":
            short = CurveSummary(**{name: getattr(record.curve, name)[:2] for name in ("step", "lr", "train_loss", "val_loss", "metric")})
            return replace(record, status="diverged", curve=short)
        return record

    k = knowledge(settings=RANGE)
    done, _ = go(LrRange(), k, cut)
    assert LrRange().conclude(k, done).chosen is not None


@pytest.mark.parametrize(("trained", "samples"), [(10_000_000, 1000), (64 * 100, 200), (64 * 10, 100)])
def test_measuring_stays_a_part_of_a_ramps_cost(trained: int, samples: int) -> None:
    assert range_samples(trained) == samples


# --- numbers that are none -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("larger", [True, False])
def test_a_metric_that_is_no_number_is_the_worst_there_is(metric: float, larger: bool) -> None:
    k = knowledge(rank_by="metric", larger_is_better=larger)
    record = Surface()(k.short_run(START))
    assert criterion(k, replace(record, metric=metric)) == math.inf
    assert criterion(k, record) == (-record.metric if larger else record.metric)
    assert criterion(knowledge(), replace(record, metric=metric)) == record.val_loss


def without_metric_at(*lrs: float) -> Callable[[TrialSpec], TrialRecord]:
    """Runs at these LRs end without a metric; elsewhere a lower loss is a better metric."""

    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(noise=0.0)(spec)
        return replace(record, metric=math.nan) if spec.hyperparameters.lr in lrs else record

    return train


def test_lr_range_does_not_go_on_from_an_lr_without_a_metric() -> None:
    k = knowledge(settings=RANGE, rank_by="metric")
    done, _ = go(LrRange(), k, without_metric_at(START.lr))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is not None
    assert conclusion.chosen.lr == pytest.approx(0.2, rel=0.25)
    assert min(lrs(done)) == START.lr < conclusion.chosen.lr < max(lrs(done)), "no metric is no divergence: higher ones are tried"
    assert (
        f"{sum(math.isnan(r.metric) for r in done)} of {len(done)} trials ended without a finite metric: they cannot win"
        in conclusion.notes
    )


def test_batch_size_looks_around_the_best_that_has_a_metric() -> None:
    k = knowledge(settings=SIZES, rank_by="metric")
    done, _ = go(BatchSize(), k, without_metric_at(START.lr))
    chosen = BatchSize().conclude(k, done).chosen
    assert chosen is not None
    assert chosen.lr != START.lr
    around = [record.spec.hyperparameters for record in done if record.spec.hyperparameters.batch_size == START.batch_size]
    assert {h.lr for h in around} == {START.lr}, "its neighbours are not worth a run"


def test_where_nothing_has_a_metric_the_sentence_says_so() -> None:
    k = knowledge(settings=RANGE, rank_by="metric")
    done, _ = go(LrRange(), k, lambda spec: replace(Surface()(spec), metric=math.inf))
    conclusion = LrRange().conclude(k, done)
    assert conclusion.chosen is None
    assert conclusion.sentence.startswith("no LR checked in short runs gave a usable metric: completed without a finite metric; ")


def test_where_everything_diverged_the_sentence_says_why() -> None:
    k = knowledge(settings=RANGE)
    done, _ = go(LrRange(), k, lambda spec: replace(diverged(spec), error="the training loss was nan at step 1"))
    sentence = LrRange().conclude(k, done).sentence
    assert "gave a usable loss: diverged (the training loss was nan at step 1); lower stages.lr_range.min_lr" in sentence


@pytest.mark.parametrize(
    ("metrics", "noted"), [((0.9, math.nan), True), ((0.9, math.inf), True), ((math.nan, math.nan), False), ((0.9, 0.8), False)]
)
def test_trials_without_a_metric_are_pointed_out_unless_none_was_asked_for(metrics: tuple[float, float], noted: bool) -> None:
    k = knowledge(settings=MOMENTA)
    runs = [Surface()(k.short_run(START.but(momentum=value))) for value in (0.9, 0.95)]
    done = [replace(record, metric=metric) for record, metric in zip(runs, metrics, strict=True)]
    notes = Momentum().conclude(k, done).notes
    assert ("1 of 2 trials ended without a finite metric" in notes) is noted


@pytest.mark.parametrize("odd", [math.nan, math.inf, 1e308])
def test_no_gain_on_the_test_part_is_told_from_losses_that_are_none(odd: float) -> None:
    k = knowledge(settings={"seeds": 3, "finalists": [("baseline", asdict(START)), ("better", asdict(START.but(lr=0.2)))]})

    def train(spec: TrialSpec) -> TrialRecord:
        record = Surface(lr=0.2, noise=0.001)(spec)
        return replace(record, test_loss=odd) if spec.repetition % 2 else record

    conclusion = Confirm().conclude(k, go(Confirm(), k, train)[0])
    assert conclusion.detail["winner"] == "better"
    assert conclusion.detail["test"] is None


def test_the_sampling_error_of_losses_too_large_to_square_is_infinite() -> None:
    assert block_error([[1e308, -1e308]]) == math.inf


@pytest.mark.parametrize("lost", [{"metric": math.nan}, {"val_loss": math.inf}, {"status": "diverged"}])
def test_refine_never_chooses_what_has_many_seeds_and_no_result(lost: dict[str, object]) -> None:
    k = knowledge(settings={"trials": 2}, rank_by="metric", seeds=3)
    often = [Surface()(k.short_run(START, repetition)) for repetition in range(3)]
    once = [Surface()(k.short_run(START.but(lr=lr))) for lr in (0.05, 0.2)]
    conclusion = Refine().conclude(k, [replace(often[0], **lost), *often[1:], *once])  # type: ignore[arg-type]
    assert conclusion.chosen in [record.spec.hyperparameters for record in once]
    assert "nan" not in conclusion.sentence


def test_finalists_that_diverged_on_one_seed_are_not_said_to_have_no_metric() -> None:
    k = knowledge(settings={"seeds": 2, "finalists": [("baseline", asdict(START)), ("better", asdict(START.but(lr=0.2)))]})
    done, _ = go(Confirm(), k, lambda spec: diverged(spec) if spec.repetition % 2 else replace(Surface()(spec), metric=math.nan))
    assert Confirm().conclude(k, done).sentence == "no finalist gave a usable loss: completed, diverged"
