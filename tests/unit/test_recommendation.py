"""From conclusions to what is recommended, and where each value came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from surfaces import START

from hptune.analysis.recommendation import Conclusion, Longer, carry, finalists, recommend, settle, transfer
from hptune.trial import Hyperparameters

ALL = frozenset({"lr", "batch_size", "momentum", "momentum_min", "weight_decay"})
TO = Longer(ratio=5.0, samples=64_000, optimizer="sgd")
"""A thousand steps at the start's batch size: at LR 0.4 and momentum 0.9, weight decay 2.5e-4 forgets over all of it."""


def concluded(stage: str, **changes: object) -> Conclusion:
    return Conclusion(stage=stage, sentence=f"{stage} said so", chosen=START.but(**changes))


def test_without_conclusions_the_baseline_stays() -> None:
    h, sources = settle([], START)
    assert h == START
    assert set(sources.values()) == {"baseline"}


def test_each_stage_settles_its_own_values_in_the_order_of_the_method() -> None:
    conclusions = [
        concluded("weight_decay", weight_decay=1e-3),
        concluded("lr_range", lr=0.4),
        concluded("batch_size", batch_size=128, lr=0.6),
    ]
    h, sources = settle(conclusions, START)
    assert h == START.but(lr=0.6, batch_size=128, weight_decay=1e-3)
    assert sources == {
        "lr": "batch_size",
        "batch_size": "batch_size",
        "momentum": "baseline",
        "momentum_min": "baseline",
        "weight_decay": "weight_decay",
    }


def test_refine_is_named_only_for_what_it_moved() -> None:
    _, sources = settle([concluded("lr_range"), concluded("refine", weight_decay=3e-4)], START)
    assert sources["lr"] == "lr_range"
    assert sources["weight_decay"] == "refine"
    assert sources["momentum"] == "baseline"


def test_a_stage_that_found_nothing_settles_nothing() -> None:
    assert settle([Conclusion(stage="lr_range", sentence="")], START)[0] == START


def test_transfer_keeps_the_lr_and_raises_weight_decay_until_it_forgets_over_the_whole_training() -> None:
    carried, reasons = transfer(START.but(lr=0.4), TO, ALL)
    assert carried == START.but(lr=0.4, weight_decay=2.5e-4)
    assert reasons == {
        "weight_decay": "1e-04 in short runs, which do not see overfitting; raised to 2.5e-04, whose timescale is as long as the training"
    }


@pytest.mark.parametrize(
    ("changes", "to", "decay"),
    [
        ({"momentum": 0.95}, TO, 5e-4),
        ({"batch_size": 128}, TO, 2e-3),
        ({"batch_size": 128}, replace(TO, speeds=((128, 2.0),)), 1e-3),
        ({}, replace(TO, optimizer="adamw"), 1e-2),
        ({}, TO.at(2.5), 2e-3),
    ],
    ids=["momentum", "batch size", "speed", "adamw", "length"],
)
def test_the_timescale_counts_steps_at_the_peak_lr(changes: dict[str, float], to: Longer, decay: float) -> None:
    assert to.decay(START.but(**{"momentum_min": 0.8, **changes})) == pytest.approx(decay)


def test_an_offer_by_the_metric_has_no_ratio_of_losses() -> None:
    nan = float("nan")
    detail = {"key": "model.args.batch_norm", "value": True, "own": False, "gain": {"ratio": nan, "low": nan, "high": nan}}
    found = recommended(concluded("lr_range"), replace(concluded("model.args.batch_norm"), detail=detail))
    assert [offer.sentence for offer in found.offers] == [
        "model.args.batch_norm True did better than False in short runs; not part of the recommendation: "
        "--set model.args.batch_norm=true searches and trains with it"
    ]


@pytest.mark.parametrize(
    ("to", "settled", "decay"),
    [(TO, frozenset(), 1e-4), (TO.at(1.0), ALL, 1e-4), (TO, ALL, 1e-2)],
    ids=["nothing searched", "same length", "enough weight decay"],
)
def test_transfer_leaves_alone(to: Longer, settled: frozenset[str], decay: float) -> None:
    assert transfer(START.but(weight_decay=decay), to, settled) == (START.but(weight_decay=decay), {})


def test_finalists_differ_and_the_baseline_is_among_them() -> None:
    recommended = START.but(lr=0.25)
    found = finalists(recommended, START.but(lr=0.4), START, [recommended, START.but(lr=0.3)], 4, least_decay=1e-3)
    assert [name for name, _ in found] == ["baseline", "recommended", "regularized", "short_run_best", "runner_up_2"]
    assert dict(found)["regularized"].weight_decay == 3e-4
    assert len({h for _, h in found}) == 5
    free = finalists(START.but(weight_decay=0.0), START, START, [], 4, least_decay=1e-3)
    assert dict(free)["regularized"].weight_decay == 1e-3


def test_as_many_finalists_as_asked_for() -> None:
    assert [name for name, _ in finalists(START.but(lr=0.2), START.but(lr=0.3), START, [], 1, least_decay=1e-3)] == [
        "baseline",
        "recommended",
    ]


def longer(**changes: object) -> Conclusion:
    """Refine's choice in runs of 2.5 times the short length, where at LR 0.4 weight decay was raised to 5e-4."""
    carried = {"lr": 0.4, "weight_decay": 5e-4}
    return replace(concluded("refine", **{**carried, **changes}), detail={"length": 2.5})


EARLIER = [concluded("lr_range", lr=0.4), concluded("weight_decay", weight_decay=1e-5)]


def test_longer_runs_that_keep_the_best_change_nothing() -> None:
    assert carry([*EARLIER, longer()], START, TO) == carry(EARLIER, START, TO)
    assert settle([*EARLIER, longer()], START) == settle(EARLIER, START)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weight_decay": 1.5e-3}, {"lr": 0.4, "weight_decay": 7.5e-4}),
        ({"weight_decay": 0.0}, {"lr": 0.4, "weight_decay": 0.0}),
        ({"lr": 0.2, "weight_decay": 1e-3}, {"lr": 0.2, "weight_decay": 5e-4}),
    ],
    ids=["three times as much", "none", "half the LR at the same timescale"],
)
def test_what_longer_runs_showed_is_carried_over_with_its_share_of_the_training(
    changes: dict[str, float], expected: dict[str, float]
) -> None:
    found, sources = carry([*EARLIER, longer(**changes)], START, TO)
    assert found == START.but(**expected)
    assert sources["weight_decay"] == "refine, in runs of 2.5 times the short length"
    assert sources["lr"] == ("lr_range" if found.lr == 0.4 else sources["weight_decay"])


def recommended(*conclusions: Conclusion):  # type: ignore[no-untyped-def]
    return recommend(conclusions, baseline=START, to=TO, epochs={0: 30.0, 128: 45.0})


def test_nothing_concluded_recommends_nothing() -> None:
    assert recommended() is None
    assert recommended(Conclusion(stage="lr_range", sentence="")) is None
    assert recommended(concluded("model.args.width")) is None


def test_an_unconfirmed_recommendation_is_carried_over_and_says_so() -> None:
    stages = ("lr_range", {"lr": 0.4}), ("batch_size", {"batch_size": 128, "lr": 0.4}), ("weight_decay", {"weight_decay": 1e-5})
    found = recommended(*(concluded(stage, **changes) for stage, changes in stages))
    assert found.hyperparameters == START.but(lr=0.4, batch_size=128, weight_decay=5e-4)
    assert found.short.weight_decay == 1e-5
    assert found.epochs == 45.0
    assert not found.confirmed
    assert found.better is None
    assert dict(found.sources)["weight_decay"].startswith("1e-05 in short runs")
    assert dict(found.sources)["momentum"] == "baseline"
    assert found.evidence == ("lr_range: lr_range said so", "batch_size: batch_size said so", "weight_decay: weight_decay said so")


def test_what_confirm_chose_is_final() -> None:
    final = Conclusion(
        stage="confirm",
        sentence="",
        chosen=START.but(lr=0.2, weight_decay=1e-3),
        detail={"winner": "runner_up_1", "better": True, "gain": {"ratio": 0.8}},
    )
    found = recommended(concluded("lr_range", lr=0.4), concluded("weight_decay", weight_decay=1e-3), final)
    assert found.hyperparameters == final.chosen
    assert found.confirmed
    assert found.better is True
    assert found.gain == {"ratio": 0.8}
    assert dict(found.sources)["lr"] == "confirm: the candidate runner_up_1"
    assert dict(found.sources)["weight_decay"] == "weight_decay"
    assert found.epochs == 30.0


def test_a_conclusion_becomes_json() -> None:
    assert replace(concluded("lr_range"), notes=("a",)).to_json()["chosen"]["lr"] == START.lr
    assert isinstance(concluded("lr_range").chosen, Hyperparameters)
