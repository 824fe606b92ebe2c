"""Trials: their identity, and their way through JSON."""

import json
import math
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hptune.schedules import Point, Schedule
from hptune.trial import (
    CalibrationRequest,
    CurveSummary,
    Hyperparameters,
    Numerics,
    StopRule,
    TrialRecord,
    TrialSpec,
    content_hash,
    derive_seed,
    hashed_content,
    is_result,
    known_fields,
)

POINT = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
SPEC = TrialSpec(task="t", hyperparameters=POINT, schedule=Schedule(), steps=100, seed=7, repetition=0, evaluate_at=(50, 100))

# One other value for every field, at every level.
CHANGES = {
    TrialSpec: {
        "task": "u",
        "steps": 101,
        "seed": 8,
        "repetition": 1,
        "evaluate_at": (100,),
        "validation_limit": 10,
        "test": True,
    },
    Hyperparameters: {"lr": 0.2, "batch_size": 65, "momentum": 0.91, "momentum_min": 0.8, "weight_decay": 0.0},
    Schedule: {
        "kind": "step",
        "shape": "torch",
        "warmup_fraction": 0.3,
        "lr_ratio": 25.0,
        "tail_fraction": 0.0,
        "tail_ratio": 10.0,
        "milestones": (0.5,),
        "gamma": 0.5,
        "min_lr": 1e-5,
        "points": (Point(0.5, lr=0.1),),
    },
    Numerics: {
        "device": "cuda",
        "device_model": "A",
        "precision": "bf16",
        "threads": 2,
        "channels_last": True,
        "micro_batch": 8,
        "compiled": True,
        "replicas": 2,
        "sync_batch_norm": True,
    },
    StopRule: {"factor": 2.0, "window": 5, "relative_to_best": True},
}
PARTS = {"hyperparameters": Hyperparameters, "schedule": Schedule, "numerics": Numerics, "stop": StopRule}


def changed_specs():
    for name, value in CHANGES[TrialSpec].items():
        yield replace(SPEC, **{name: value})
    for part, cls in PARTS.items():
        for name, value in CHANGES[cls].items():
            yield replace(SPEC, **{part: replace(getattr(SPEC, part), **{name: value})})


def test_the_table_of_changes_is_complete():
    assert {f.name for f in fields(TrialSpec)} == CHANGES[TrialSpec].keys() | PARTS.keys()
    for cls in PARTS.values():
        assert {f.name for f in fields(cls)} == set(CHANGES[cls])


def test_every_single_field_changes_the_id():
    specs = [SPEC, *changed_specs()]
    assert len({spec.trial_id for spec in specs}) == len(specs)


def test_the_id_is_a_function_of_content():
    twin = TrialSpec.from_json(json.loads(json.dumps(SPEC.to_json())))
    assert twin is not SPEC
    assert twin.trial_id == SPEC.trial_id
    assert len(SPEC.trial_id) == 16
    assert int(SPEC.trial_id, 16) >= 0


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return value


def test_the_id_does_not_depend_on_the_order_of_keys():
    content = hashed_content(SPEC)
    shuffled = reversed_keys(content)
    assert list(shuffled) != list(content)
    assert content_hash(shuffled) == SPEC.trial_id
    assert TrialSpec.from_json(reversed_keys(SPEC.to_json())).trial_id == SPEC.trial_id


def test_ids_are_those_of_earlier_versions():
    """What was journalled before some fields existed is found again while these have the value that means what was done then."""
    assert SPEC.trial_id == "0e1075750cb2566c"
    numerics = Numerics(device="cuda", device_model="NVIDIA H100", precision="bf16", channels_last=True, micro_batch=64, compiled=True)
    assert replace(SPEC, numerics=numerics).trial_id == "ff86d8790aacb266"
    assert content_hash(hashed_content(CalibrationRequest(hyperparameters=POINT, numerics=numerics))) == "dc5ea1572746e7b1"
    added = {f.name for f in fields(Numerics)} - hashed_content(Numerics()).keys()
    assert added == {"replicas", "sync_batch_norm"}


def test_what_was_added_later_counts_once_it_is_used():
    assert hashed_content(Numerics(replicas=2))["replicas"] == 2
    assert "sync_batch_norm" not in hashed_content(Numerics(replicas=2))


def test_replicas_share_a_batch():
    two = Numerics(replicas=2, micro_batch=16, sync_batch_norm=True)
    assert [two.share(size) for size in (1, 2, 31, 32)] == [1, 1, 16, 16]
    assert two.for_batch(32).micro_batch is None
    assert two.for_batch(33).micro_batch == 16
    assert two.on_one_device() == Numerics(micro_batch=16)


def test_content_hash_is_the_sha256_of_canonical_json():
    assert content_hash({"b": [1, 2.5], "a": "é"}) == "123b424b7606d08d"  # of {"a":"é","b":[1,2.5]}


@pytest.mark.parametrize("spec", [SPEC, *changed_specs()], ids=lambda spec: spec.trial_id)
def test_specs_survive_json(spec):
    assert TrialSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


numbers = st.floats(allow_nan=True, allow_infinity=True)
series = st.lists(numbers, max_size=4).map(tuple)
records = st.builds(
    TrialRecord,
    spec=st.sampled_from([SPEC, *changed_specs()]),
    status=st.sampled_from(["completed", "diverged", "out_of_memory", "failed"]),
    val_loss=numbers,
    metric=numbers,
    train_loss=numbers,
    val_block_losses=series,
    test_block_losses=series,
    curve=st.builds(CurveSummary, step=st.lists(st.integers(1, 99), max_size=4).map(tuple), lr=series, val_loss=series),
    seconds=st.floats(0, 1e9),
    worker=st.integers(0, 2**22),
    error=st.none() | st.text(),
)


def test_a_record_of_before_there_were_blocks_of_the_validation_part_can_be_read():
    old = TrialRecord(spec=SPEC, status="completed", val_loss=0.5).to_json()
    del old["val_block_losses"]
    assert TrialRecord.from_json(old).val_block_losses == ()


@given(records)
def test_records_survive_json(record):
    back = TrialRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert repr(back) == repr(record)  # unlike ==, repr holds NaN equal to NaN
    assert back.trial_id == record.trial_id == record.to_json()["trial_id"]
    assert repr(record.to_json()) == repr({"trial_id": record.trial_id, **asdict(record)})


def test_fields_of_a_later_version_are_ignored():
    data = {**TrialRecord(spec=SPEC, status="completed").to_json(), "energy": 3.0}
    data["curve"] = {**data["curve"], "gradient_noise": [1.0]}
    data["spec"] = {**data["spec"], "priority": 1}
    for part in PARTS:
        data["spec"][part] = {**data["spec"][part], "unheard_of": None}
    assert TrialRecord.from_json(data).spec == SPEC
    assert known_fields(StopRule, {"factor": 1.0, "unheard_of": 2}) == {"factor": 1.0}


def test_a_schedule_without_milestones_is_read():
    data = SPEC.to_json()
    del data["schedule"]["milestones"]
    assert TrialSpec.from_json(data).schedule.milestones == ()


def test_the_cost_of_a_trial_is_its_samples():
    assert SPEC.samples == 6400


@pytest.mark.parametrize(
    ("status", "val_loss", "usable"),
    [("completed", 0.5, True), ("completed", math.nan, False), ("completed", math.inf, False), ("diverged", 0.5, False)],
)
def test_only_completed_finite_trials_can_be_ranked(status, val_loss, usable):
    assert TrialRecord(spec=SPEC, status=status, val_loss=val_loss).usable is usable


def test_speed_needs_a_measured_time():
    assert TrialRecord(spec=SPEC, status="completed", samples=600, seconds=3.0).samples_per_second == 200
    assert TrialRecord(spec=SPEC, status="completed", samples=600).samples_per_second == 0.0


def test_changed_hyperparameters_keep_the_momentum_bounds_in_order():
    assert POINT.but(momentum=0.8) == replace(POINT, momentum=0.8, momentum_min=0.8)
    assert POINT.but(momentum=0.99) == replace(POINT, momentum=0.99)
    assert POINT.but(lr=1.0).lr == 1.0


def test_seeds_are_shared_by_candidates_and_differ_between_repetitions():
    seeds = {derive_seed(seed, repetition) for seed in range(20) for repetition in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(0, 0) == 713683445


def test_to_json_holds_everything():
    record = TrialRecord(spec=SPEC, status="completed")
    assert set(record.to_json()) == {"trial_id", *(f.name for f in fields(TrialRecord))}


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (0.0, True),
        (-3e38, True),
        (5e-324, True),
        (1e100, True),
        (1.1e100, False),
        (-1e200, False),
        (math.inf, False),
        (-math.inf, False),
        (math.nan, False),
    ],
)
def test_a_result_is_a_number_that_can_be_squared(value: float, counts: bool) -> None:
    assert is_result(value) is counts
    assert TrialRecord(spec=SPEC, status="completed", val_loss=value).usable is counts
    assert not TrialRecord(spec=SPEC, status="diverged", val_loss=value).usable
