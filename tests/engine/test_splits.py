from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hptune.engine.splits import balanced_order, divide, draw
from hptune.errors import DataError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def split(samples, how="stratified", val=0.2, test=0.2, labels=None, groups=None, seed=0):
    return divide(samples, how=how, val=val, test=test, labels=labels, groups=groups, rng=rng(seed))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=6, max_size=80).map(np.array),
    how=st.sampled_from(["stratified", "random", "time"]),
    seed=st.integers(0, 5),
)
def test_parts_are_disjoint_complete_and_of_the_asked_size(labels, how, seed):
    parts = split(len(labels), how, labels=labels, seed=seed)
    every = np.concatenate([parts.train, parts.val, parts.test])
    assert sorted(every) == list(range(len(labels)))
    assert len(parts.val) == len(parts.test) == max(1, round(0.2 * len(labels)))


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=12, max_size=80).map(np.array), seed=st.integers(0, 5))
def test_a_stratified_split_leaves_every_class_in_training(labels, seed):
    parts = split(len(labels), labels=labels, seed=seed)
    assert set(labels[parts.train]) == set(labels)


def test_a_stratified_split_keeps_the_proportions():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    parts = split(100, labels=labels)
    assert np.bincount(labels[parts.val]).tolist() == [12, 6, 2]
    assert np.bincount(labels[parts.test]).tolist() == [12, 6, 2]


def test_the_seed_decides_the_split():
    labels = np.arange(50) % 5
    assert np.array_equal(split(50, labels=labels).val, split(50, labels=labels).val)
    assert not np.array_equal(split(50, labels=labels).val, split(50, labels=labels, seed=1).val)


def test_the_first_of_a_held_out_part_are_a_fair_subset():
    labels = np.repeat(np.arange(4), 100)
    first = labels[split(400, labels=labels).val[:20]]
    assert np.bincount(first).tolist() == [5, 5, 5, 5]


def test_a_class_of_one_sample_trains():
    labels = np.array([0] * 20 + [1])
    for seed in range(20):
        assert 20 in split(21, labels=labels, val=0.45, test=0.45, seed=seed).train


def test_in_time_validation_comes_last_and_the_test_part_after_it():
    parts = split(10, "time")
    assert (parts.train.tolist(), parts.val.tolist(), parts.test.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])


def test_groups_stay_whole():
    groups = np.array([f"patient {i // 4}" for i in range(80)])
    parts = split(80, "group", groups=groups)
    held = [set(groups[indices]) for indices in (parts.train, parts.val, parts.test)]
    assert [len(names) for names in held] == [12, 4, 4]
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]


def test_groups_of_very_different_size_leave_each_part_one():
    groups = np.repeat([1, 2, 3], [90, 5, 5])
    for seed in range(5):
        parts = split(100, "group", groups=groups, seed=seed)
        assert min(len(parts.train), len(parts.val), len(parts.test)) > 0


def test_parts_that_are_not_wanted_are_none():
    parts = split(10, val=None, test=0.0)
    assert parts.val is None
    assert parts.test is None
    assert len(parts.train) == 10


@pytest.mark.parametrize(("samples", "how", "groups"), [(2, "stratified", None), (2, "time", None), (4, "group", np.array([1, 1, 2, 2]))])
def test_too_few_samples_or_groups_are_refused(samples, how, groups):
    with pytest.raises(DataError, match=r"cannot be divided"):
        split(samples, how, groups=groups)


def test_a_limit_is_drawn_in_proportion_and_keeps_rare_classes():
    labels = np.repeat([0, 1, 2], [80, 19, 1])
    chosen = draw(100, 10, labels, rng())
    assert np.bincount(labels[chosen]).tolist() == [7, 2, 1]
    assert chosen.tolist() == sorted(chosen)


def test_a_limit_beyond_the_samples_takes_all():
    assert draw(5, 9, None, rng()).tolist() == [0, 1, 2, 3, 4]
    assert draw(5, None, None, rng()).tolist() == [0, 1, 2, 3, 4]


def test_a_balanced_order_is_a_permutation():
    labels = np.array([0, 0, 1, 2, 2, 2])
    assert sorted(balanced_order(labels, rng(), rare="first")) == list(range(6))
