"""From conclusions to what is recommended, and where each value came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from surfaces import START

from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion, carry, finalists, recommend, settle, transfer
from hptune.trial import Hyperparameters

ALL = frozenset({"lr", "batch_size", "momentum", "momentum_min", "weight_decay"})


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


def test_transfer_lowers_the_lr_and_lifts_weight_decay_to_its_floor() -> None:
    carried, reasons = transfer(START.but(lr=0.4), 5.0, "sgd", ALL)
    assert carried.lr == pytest.approx(0.25)
    assert carried.weight_decay == 3e-4
    assert reasons["lr"].startswith("0.4 in short runs, 0.25 at 5 times their length")
    assert "raised to" in reasons["weight_decay"]


def test_the_lr_stays_where_the_gap_between_the_losses_has_not_opened() -> None:
    carried, reasons = transfer(START.but(lr=0.4), 5.0, "sgd", ALL, gap=0.9)
    assert carried.lr == 0.4
    assert reasons["lr"] == "0.4 in short runs, kept at 5 times their length: there the validation loss is 0.9 times the training loss"


def with_losses(conclusion: Conclusion, val_loss: float, train_loss: float) -> Conclusion:
    assert conclusion.chosen is not None
    row = Row(values=(), hyperparameters=conclusion.chosen, val_loss=val_loss, train_loss=train_loss, chosen=True)
    return replace(conclusion, rows=(row,))


@pytest.mark.parametrize(("train_loss", "lr"), [(0.5, 0.25), (0.95, 0.4), (0.0, 0.25)], ids=["open", "closed", "not known"])
def test_the_gap_is_that_of_the_last_short_stage(train_loss: float, lr: float) -> None:
    stages = [with_losses(concluded("lr_range", lr=0.4), 1.0, 0.7), with_losses(concluded("momentum"), 1.0, train_loss)]
    assert carry(stages, START, 5.0, "sgd")[0].lr == lr


def test_longer_runs_settle_by_their_own_gap_how_the_lr_goes_on() -> None:
    stages = [with_losses(concluded("lr_range", lr=0.4), 1.0, 1.0), with_losses(longer(lr=0.8), 1.0, 0.5)]
    assert carry(stages, START, 5.0, "sgd")[0].lr == pytest.approx(0.66), "doubled in runs of half the length, where the gap was open"


def test_an_offer_by_the_metric_has_no_ratio_of_losses() -> None:
    nan = float("nan")
    detail = {"key": "model.args.batch_norm", "value": True, "own": False, "gain": {"ratio": nan, "low": nan, "high": nan}}
    found = recommended(concluded("lr_range"), replace(concluded("model.args.batch_norm"), detail=detail))
    assert [offer.sentence for offer in found.offers] == [
        "model.args.batch_norm True did better than False in short runs; not part of the recommendation: "
        "--set model.args.batch_norm=true searches and trains with it"
    ]


@pytest.mark.parametrize(
    ("ratio", "optimizer", "settled"), [(5.0, "sgd", frozenset()), (1.0, "sgd", ALL)], ids=["nothing searched", "same length"]
)
def test_transfer_leaves_alone(ratio: float, optimizer: str, settled: frozenset[str]) -> None:
    assert transfer(START, ratio, optimizer, settled) == (START, {})


def test_adamw_has_no_weight_decay_floor() -> None:
    assert transfer(START, 5.0, "adamw", ALL)[0].weight_decay == START.weight_decay


def test_finalists_differ_and_the_baseline_is_among_them() -> None:
    recommended = START.but(lr=0.25)
    found = finalists(recommended, START.but(lr=0.4), START, [recommended, START.but(lr=0.3)], 4)
    assert [name for name, _ in found] == ["baseline", "recommended", "regularized", "short_run_best", "runner_up_2"]
    assert dict(found)["regularized"].weight_decay == 3e-4
    assert len({h for _, h in found}) == 5


def test_as_many_finalists_as_asked_for() -> None:
    assert [name for name, _ in finalists(START.but(lr=0.2), START.but(lr=0.3), START, [], 1)] == ["baseline", "recommended"]


def longer(**changes: object) -> Conclusion:
    """Refine's choice in runs of 2.5 times the short length, where an LR of 0.4 was carried over to 0.31."""
    carried = {"lr": 0.31, "weight_decay": 3e-4}
    return replace(concluded("refine", **{**carried, **changes}), detail={"length": 2.5})


def test_longer_runs_that_keep_the_best_change_nothing() -> None:
    earlier = [concluded("lr_range", lr=0.4), concluded("weight_decay", weight_decay=1e-5)]
    assert carry([*earlier, longer()], START, 5.0, "sgd") == carry(earlier, START, 5.0, "sgd")
    assert settle([*earlier, longer()], START) == settle(earlier, START)


def test_what_longer_runs_showed_replaces_what_was_carried_over() -> None:
    earlier = [concluded("lr_range", lr=0.4), concluded("weight_decay", weight_decay=1e-5)]
    found, sources = carry([*earlier, longer(weight_decay=0.0)], START, 5.0, "sgd")
    assert found == START.but(lr=0.25, weight_decay=0.0)
    assert sources["weight_decay"] == "refine, in runs of 2.5 times the short length"
    assert sources["lr"].startswith("0.4 in short runs")
    moved, _ = carry([*earlier, longer(lr=0.16)], START, 5.0, "sgd")
    assert moved.lr == pytest.approx(0.13), "half the length that was tried: the LR still falls"
    assert moved.weight_decay == 3e-4


def recommended(*conclusions: Conclusion):  # type: ignore[no-untyped-def]
    return recommend(conclusions, baseline=START, optimizer="sgd", length_ratio=5.0, epochs={0: 30.0, 128: 45.0})


def test_nothing_concluded_recommends_nothing() -> None:
    assert recommended() is None
    assert recommended(Conclusion(stage="lr_range", sentence="")) is None
    assert recommended(concluded("model.args.width")) is None


def test_an_unconfirmed_recommendation_is_carried_over_and_says_so() -> None:
    found = recommended(concluded("lr_range", lr=0.4), concluded("batch_size", batch_size=128, lr=0.4))
    assert found.hyperparameters.lr == pytest.approx(0.25)
    assert found.short.lr == 0.4
    assert found.epochs == 45.0
    assert not found.confirmed
    assert found.better is None
    assert dict(found.sources)["lr"].startswith("0.4 in short runs")
    assert dict(found.sources)["momentum"] == "baseline"
    assert found.evidence == ("lr_range: lr_range said so", "batch_size: batch_size said so")


def test_what_confirm_chose_is_final() -> None:
    final = Conclusion(
        stage="confirm",
        sentence="",
        chosen=START.but(lr=0.4, weight_decay=3e-4),
        detail={"winner": "short_run_best", "better": True, "gain": {"ratio": 0.8}},
    )
    found = recommended(concluded("lr_range", lr=0.4), concluded("weight_decay", weight_decay=3e-4), final)
    assert found.hyperparameters == final.chosen
    assert found.confirmed
    assert found.better is True
    assert found.gain == {"ratio": 0.8}
    assert dict(found.sources)["lr"] == "confirm: the candidate short_run_best"
    assert dict(found.sources)["weight_decay"] == "weight_decay"
    assert found.epochs == 30.0


def test_a_conclusion_becomes_json() -> None:
    assert replace(concluded("lr_range"), notes=("a",)).to_json()["chosen"]["lr"] == START.lr
    assert isinstance(concluded("lr_range").chosen, Hyperparameters)
