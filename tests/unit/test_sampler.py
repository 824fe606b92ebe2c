"""The optuna adapter: reproducible, inside its box, taught by earlier records."""

from __future__ import annotations

from dataclasses import replace

from surfaces import START, Surface, knowledge

from hptune.sampler import TpeSampler
from hptune.stages.refine import Space, search_space
from hptune.trial import TrialRecord

BOX = Space(lr=(0.025, 0.4), weight_decay=(1e-5, 1e-3), slack=(0.05, 0.2), batch_sizes=(32, 64, 128))


def history(count: int = 12) -> list[TrialRecord]:
    k = knowledge()
    return [Surface(lr=0.2)(k.short_run(START.but(lr=round(0.03 * 1.24**i, 4), weight_decay=1e-4))) for i in range(count)]


def test_the_same_records_give_the_same_proposals_in_any_order() -> None:
    records = history()
    first = TpeSampler(records)(START, BOX, [], 4, seed=1)
    assert first == TpeSampler(reversed(records))(START, BOX, [], 4, seed=1)
    assert first != TpeSampler(records)(START, BOX, [], 4, seed=2)


def test_proposals_stay_in_the_box() -> None:
    for h in TpeSampler(history())(START, BOX, [], 24, seed=0):
        assert 0.025 <= h.lr <= 0.4
        assert 1e-5 <= h.weight_decay <= 1e-3
        assert 0.8 <= h.momentum <= 0.95
        assert h.momentum_min == min(0.85, h.momentum)
        assert h.batch_size in (32, 64, 128)


def test_what_the_box_fixes_stays_as_it_is() -> None:
    fixed = Space(lr=(0.05, 0.2), weight_decay=(1e-4, 1e-4), slack=(0.1, 0.1), batch_sizes=(64,))
    for h in TpeSampler([])(START, fixed, [], 8, seed=0):
        assert h.but(lr=START.lr) == START


def test_records_move_the_proposals_towards_what_was_good() -> None:
    k = knowledge()
    poor, good = START.but(lr=0.03), START.but(lr=0.3)
    seen = [Surface(lr=0.3)(k.short_run(h.but(lr=h.lr * (1 + 0.02 * i)))) for i in range(10) for h in (poor, good)]
    proposals = TpeSampler(seen)(START, BOX, [], 16, seed=3)
    assert sum(h.lr > 0.1 for h in proposals) > 12


def test_ramps_failures_and_points_outside_the_box_teach_nothing() -> None:
    k = knowledge()
    outside = Surface()(k.short_run(START.but(lr=2.0)))
    failed = TrialRecord(spec=k.short_run(START), status="failed")
    assert TpeSampler([outside, failed])(START, BOX, [], 4, seed=0) == TpeSampler([])(START, BOX, [], 4, seed=0)


def test_what_shorter_runs_showed_counts_at_its_length_and_whatever_its_weight_decay() -> None:
    k = knowledge()
    short = [Surface(lr=0.3)(k.short_run(START.but(lr=0.3 * (1 + 0.02 * i), weight_decay=1e-7))) for i in range(10)]
    short += [Surface(lr=0.3)(k.short_run(START.but(lr=0.03 * (1 + 0.02 * i), weight_decay=1e-7))) for i in range(10)]
    longer = [replace(Surface()(k.run(START, epochs=10.0, repetition=0)), val_loss=0.01)]
    proposals = TpeSampler(short)(START, BOX, longer, 16, seed=3)
    assert sum(h.lr > 0.1 for h in proposals) > 12, "far above the longer run's loss, and yet the higher LRs are seen to be the better ones"


def test_the_space_of_a_stage_can_be_sampled() -> None:
    k = knowledge()
    assert len(TpeSampler([])(START, search_space(k), history(4), 2, seed=0)) == 2
