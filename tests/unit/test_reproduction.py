"""What `scripts/reproduce_paper` makes of trials: planted truths get their verdicts, and what was run once is not run again."""

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from hptune.cli.topics import TOPICS
from hptune.config.loader import from_tree
from hptune.errors import DataError, StageError
from hptune.imagined import ramped
from hptune.schedules import tabulate
from hptune.trial import CurveSummary, Numerics, Task, TrialRecord
from paper import setups
from paper.claims import CLAIMS
from paper.document import estimate, write
from paper.evidence import Compared, Estimate, at_the_edge, judged, optima, over_seeds, rank_correlation, share_of
from paper.lab import Lab, Searched
from paper.performers import MissingError, Place, Reads, Trains, answered
from paper.prepare import prepare
from paper.race import HPTUNE, OPTUNA, Result, raced, run_contestant
from paper.run import _keep
from paper.setups import SCALES, Setup

TASK = Task(
    task_id="t", identity={}, train_samples=2000, val_samples=1000, test_samples=10_000, classes=10, parameters=9, numerics=Numerics()
)
TREE = {
    "name": "made-up",
    "data": {"name": "digits"},
    "model": "linear",
    "baseline": {"lr": 0.005, "batch_size": 128, "momentum": 0.95, "momentum_min": 0.85, "weight_decay": 3e-3},
    "budget": {"epochs": 25, "search_epochs": 5},
    "seeds": 4,
    "stages": {
        "lr_range": {"min_lr": 1e-3, "max_lr": 1},
        "batch_size": {"values": [32, 64, 128, 256], "compare": "samples"},
        "weight_decay": {"values": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]},
    },
}


class World:
    """A performer that trains nothing: `loss` says how a training ends, `middle` where a range test is lowest, of its way."""

    def __init__(self, loss=lambda spec: 1.0, middle=lambda spec: 0.6, noise=0.002, **ways):
        self._loss, self._middle, self._noise = loss, middle, noise
        made_up = {"speeds": lambda sizes: (), "search": lambda: Searched(own=self.lab.authors, cost=5.0), "race": None, **ways}
        experiment = from_tree(TREE, Path()).experiment
        self.lab = Lab(
            setup="made_up",
            title="made up",
            margin=1.0,
            experiment=experiment,
            task=TASK,
            paper={"minutes": (10,), "pairs": 5, "beside": "a core each"},
            **made_up,
        )
        self.asked = []

    def __call__(self, specs):
        self.asked += specs
        return [self._record(spec) for spec in specs]

    def _record(self, spec):
        if spec.schedule.kind == "ramp":
            return ramped(spec, self._middle(spec))
        draw = np.random.default_rng(int(spec.trial_id, 16))
        loss = self._loss(spec)
        if loss is None:
            return TrialRecord(spec=spec, status="diverged")
        own, n = loss * math.exp(self._noise * draw.normal()), len(spec.evaluate_at)
        course = tuple(own * (1 + 0.1 * (n - 1 - i)) for i in range(n))
        curve = CurveSummary(step=spec.evaluate_at, lr=(0.1,) * n, train_loss=course, val_loss=course, metric=(0.5,) * n)
        shared = {"status": "completed", "steps": spec.steps, "samples": spec.samples}
        return TrialRecord(spec=spec, val_loss=own, test_loss=own, metric=0.5, test_metric=1 - own / 2, curve=curve, **shared)


def verdicts(number, world):
    """The verdicts of a claim by a word that its statements contain."""
    outcome = answered(CLAIMS[number].ask(world.lab), world)
    return {finding.statement: finding.verdict for finding in outcome.findings}


def verdict(number, world, *words):
    found = [v for statement, v in verdicts(number, world).items() if all(word in statement for word in words)]
    assert found, words
    assert len(set(found)) == 1, found
    return found[0]


# ---- statistics


@pytest.mark.parametrize(
    ("low", "high", "limits", "expected"),
    [
        (0.1, 0.2, {"above": 0.0}, "holds"),
        (-0.1, 0.2, {"above": 0.0}, "not decided"),
        (-0.2, -0.1, {"above": 0.0}, "does not hold"),
        (0.6, 1.9, {"above": 0.5, "below": 2.0}, "holds"),
        (0.6, 2.1, {"above": 0.5, "below": 2.0}, "not decided"),
        (2.1, 3.0, {"above": 0.5, "below": 2.0}, "does not hold"),
        (math.nan, math.nan, {"above": 0.0}, "not decided"),
        (-math.inf, -math.inf, {"above": 0.0}, "does not hold"),
    ],
)
def test_a_claim_is_decided_by_its_whole_interval(low, high, limits, expected):
    assert judged(Estimate(value=(low + high) / 2, low=low, high=high), **limits) == expected


def settings(values):
    """Records by setting from accuracies, one a seed; None diverged."""
    world = World()
    specs = world.lab.runs(world.lab.authors)
    return {
        name: [
            TrialRecord(spec=spec, status="diverged")
            if value is None
            else TrialRecord(spec=spec, status="completed", val_loss=1.0, test_metric=value / 100)
            for spec, value in zip(specs, own, strict=True)
        ]
        for name, own in values.items()
    }


def test_two_settings_are_compared_by_the_paired_t_interval():
    a, b = [81.0, 82.5, 80.0, 81.0], [80.0, 81.0, 79.5, 80.5]
    gap = Compared(settings({"a": a, "b": b})).difference("a", "b")
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))


def test_what_was_chosen_from_many_has_a_wider_interval():
    compared = Compared(settings({name: np.random.default_rng(i).normal(80, 1, 4) for i, name in enumerate("abcde")}))
    one, many = compared.difference("a", "b"), compared.difference("a", "b", chosen_from=4)
    assert many.low < one.low < one.high < many.high


def test_a_setting_that_diverged_is_worse_than_any():
    compared = Compared(settings({"a": [80.0, 80.1, 80.2, 80.3], "b": [81, None, 81, 81], "c": [79.0, 79.1, 79.2, 79.4]}))
    assert compared.lost == ("b",)
    assert judged(compared.difference("b", "a"), above=-100) == "does not hold"
    assert judged(compared.difference("a", "b"), above=0) == "holds"
    assert (compared.best(), compared.best(largest=False)) == ("a", "c")


def test_intervals_cover_what_they_say():
    """Five settings, four seeds with an effect of their own: the true difference lies within in 95 % of 600 cases, give or take 2.7."""
    draw, within = np.random.default_rng(0), 0
    for _ in range(600):
        seeds = draw.normal(0, 1, 4)
        found = Compared(settings({name: 80 + at + seeds + draw.normal(0, 0.5, 4) for at, name in enumerate("abcde")}))
        gap = found.difference("c", "a")
        within += gap.low < 2 < gap.high
    assert within / 600 == pytest.approx(0.95, abs=0.027)


def test_a_share_has_its_exact_interval():
    for successes, trials in ((0, 8), (3, 8), (8, 8)):
        expected = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
        found = share_of(successes, trials)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_rank_correlation_is_spearmans():
    draw = np.random.default_rng(1)
    for _ in range(20):
        a, b = draw.integers(0, 6, 9), draw.integers(0, 6, 9)
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_the_optimum_of_a_grid():
    world = World(loss=lambda spec: math.exp(0.1 * (math.log10(spec.hyperparameters.weight_decay) + 1.8) ** 2), noise=0.0)
    decays = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    grid = {decay: world(world.lab.runs(world.lab.authors.but(weight_decay=decay))) for decay in decays}
    assert optima(grid) == pytest.approx([-1.8] * 4)
    assert not at_the_edge(grid)
    lowest = {decay: grid[decay] for decay in decays[2:]}
    assert at_the_edge({decay: lowest[decay] for decay in (3e-2, 1e-1)})
    assert all(-2.0 <= place <= -1.0 for place in optima(lowest))


# ---- schedules


def test_a_branch_is_1cycle_with_another_weight_decay_up_to_the_peak():
    lab = World().lab
    own = lab.authors.but(lr=0.1)
    values = {"steps": 200, "lr": own.lr, "momentum": own.momentum, "momentum_min": own.momentum_min}
    plain, branch = tabulate(lab.one_cycle, **values), tabulate(lab.branched(3.0), **values)
    assert branch.lr == pytest.approx(plain.lr, abs=0.001)
    assert branch.momentum == pytest.approx(plain.momentum, abs=0.001)
    peak = int(plain.lr.argmax())
    assert branch.weight_decay[: peak - 1].tolist() == [3.0] * (peak - 1)
    assert branch.weight_decay[peak + 1 :].tolist() == [1.0] * (200 - peak - 1)


def test_momentum_is_cycled_at_a_constant_lr():
    lab = World().lab
    table = tabulate(lab.at_constant_lr(cycled=True), steps=101, lr=0.1, momentum=0.95, momentum_min=0.85)
    assert table.lr.tolist() == [0.1] * 101
    assert (table.momentum.min(), table.momentum[0], table.momentum[-1]) == pytest.approx((0.85, 0.95, 0.95))


# ---- planted truths


def lr_of(spec):
    return spec.hyperparameters.lr


def test_claim_1_holds_where_ramps_agree():
    def loss(spec):
        return 1 + abs(math.log10(lr_of(spec) / 0.05))  # a ramp's lowest point, at 0.6 of three decades from 0.001, over 1.2

    found = verdicts(1, World(loss=loss))
    assert set(found.values()) == {"holds"}
    assert len(found) >= 6


def test_claim_1_does_not_hold_where_short_ramps_mislead_and_the_lr_diverges():
    def middle(spec):
        return 0.6 if spec.steps > 300 else 0.1

    world = World(loss=lambda spec: None if lr_of(spec) > 0.04 else 1.0 / lr_of(spec) ** 0.1, middle=middle)
    assert verdict(1, world, "complete at the suggested LR") == "does not hold"
    assert verdict(1, world, "LR suggested by a range test of 188") == "does not hold"
    other = World(loss=lambda spec: 1 + abs(math.log10(lr_of(spec) / 0.05)), middle=middle)
    assert verdict(1, other, "range tests of 188 steps suggest together") == "does not hold"


@pytest.mark.parametrize(("advantage", "expected"), [(0.0, "holds"), (0.2, "does not hold")])
def test_claim_2_against_a_tuned_step_schedule(advantage, expected):
    world = World(loss=lambda spec: 1 - advantage * (spec.schedule.kind == "step"))
    assert verdict(2, world, "accuracy of 1cycle in 25 epochs less that of the tuned step schedule in 25") == expected


def test_claim_2_a_step_schedule_gets_the_lr_that_is_best_in_validation():
    world = World(loss=lambda spec: 1 + (spec.schedule.kind == "step") * abs(math.log(lr_of(spec) / 0.013)))
    assert verdict(2, world, "tuned step schedule in 100") == "holds"
    longest = [spec for spec in world.asked if spec.schedule.kind == "step" and spec.steps > 1000]
    assert {lr_of(spec) for spec in longest} == {
        min((lr_of(s) for s in world.asked if s.schedule.kind == "step"), key=lambda lr: abs(lr - 0.013))
    }


@pytest.mark.parametrize(("penalty", "expected"), [(0.0, "holds"), (0.2, "does not hold")])
def test_claim_3_falling_momentum(penalty, expected):
    world = World(loss=lambda spec: 1 + penalty * (spec.hyperparameters.momentum_min == 0.85 < spec.hyperparameters.momentum))
    assert verdict(3, world, "less that at the best constant one") == expected
    assert verdict(3, world, "over that at the best constant one") == expected
    assert verdict(3, world, "best minimum") == expected


def test_claim_3_a_momentum_that_is_only_an_lr_is_found_out():
    lab = World().lab
    own = replace(lab.authors, lr=0.053, momentum=0.95, momentum_min=0.95)
    best = lab.forgetting(lab.run(own, 0))  # what the largest constant momentum makes of the LR

    def loss(spec):
        rising = spec.hyperparameters.momentum_min == 1.0  # LR/(1 − momentum) has no mean
        return 1.5 if rising else 1 + 0.3 * abs(math.log(lab.forgetting(spec) / best))

    found = verdicts(3, World(loss=loss))
    assert {v for statement, v in found.items() if statement.startswith("1cycle: ")} == {"does not hold"}
    assert {v for statement, v in found.items() if statement.startswith("1cycle, equal LR")} == {"holds"}


def test_claim_3_a_range_test_that_finds_the_same_momentum_in_both_directions_is_of_use():
    class Tells(World):
        def _record(self, spec):
            record = super()._record(spec)
            if spec.schedule.kind != "points" or spec.test:
                return record
            table = tabulate(spec.schedule, steps=spec.steps, lr=0.1, momentum=0.99, momentum_min=0.7)
            course = tuple(1 + abs(float(table.momentum[step - 1]) - 0.85) for step in spec.evaluate_at)
            return replace(record, curve=replace(record.curve, val_loss=course))

    assert verdict(3, World(), "momentum range test is useless") == "holds"  # the loss only falls with time
    assert verdict(3, Tells(), "momentum range test is useless") == "does not hold"


@pytest.mark.parametrize(("slope", "expected"), [(-0.1, "holds"), (0.1, "does not hold")])
def test_claim_4_larger_batches(slope, expected):
    world = World(loss=lambda spec: 1 + slope * math.log2(spec.hyperparameters.batch_size / 64))
    assert verdict(4, world, "batch size 256", "at equal samples") == expected


def decay_loss(place):
    """A parabola over the logarithm of the weight decay, lowest at `place(spec)`."""
    return lambda spec: math.exp(0.1 * (math.log10(spec.hyperparameters.weight_decay) - math.log10(place(spec))) ** 2)


def test_claim_5_the_product_counts():
    lab = World().lab
    world = World(loss=decay_loss(lambda spec: 0.003 / lab.forgetting(spec)), noise=0.001)
    assert verdict(5, world, "slope of log best weight decay") == "holds"
    assert verdict(5, world, "best weight decay: 1cycle, LR") == "holds"


def test_claim_5_the_weight_decay_alone_counts():
    world = World(loss=decay_loss(lambda spec: 0.01))
    assert verdict(5, world, "slope of log best weight decay") == "does not hold"
    assert verdict(5, world, "best weight decay: ") == "does not hold"
    assert verdict(5, world, "branches from the peak") == "holds"


def test_claim_5_a_flat_curve_does_not_blur_the_others():
    lab = World().lab
    sharp, flat = decay_loss(lambda spec: 0.003 / lab.forgetting(spec)), lambda spec: 1.0
    world = World(loss=lambda spec: (flat if spec.schedule.kind == "constant" else sharp)(spec), noise=0.001)
    assert verdict(5, world, "best weight decay: constant LR") == "not decided"
    assert verdict(5, world, "best weight decay: 1cycle, LR") == "holds"


def test_claim_5_branches_that_favour_another_weight_decay_are_found_out():
    world = World(loss=decay_loss(lambda spec: 0.0015 if len(spec.schedule.points) == 5 else 0.05))
    assert verdict(5, world, "branches from the peak") == "does not hold"


def candidate_loss(spec):
    own = spec.hyperparameters
    return 1 + 0.1 * abs(math.log10(own.lr / 0.053)) + 0.05 * abs(math.log10(own.weight_decay / 3e-3)) + 0.3 * abs(own.momentum - 0.95)


@pytest.mark.parametrize(("sign", "expected"), [(1, "holds"), (-1, "does not hold")])
def test_claim_6_short_runs(sign, expected):
    world = World(loss=lambda spec: candidate_loss(spec) if spec.steps > 300 else 2 + sign * candidate_loss(spec))
    assert verdict(6, world, "after short runs") == expected
    assert verdict(6, world, "of a full run with the final loss") == "holds"


def test_claim_6_says_which_values_short_runs_rank():
    def loss(spec):
        decay = abs(math.log10(spec.hyperparameters.weight_decay / 3e-3))
        return candidate_loss(spec) + (0 if spec.steps > 300 else 1 - 0.1 * decay)

    assert verdict(6, World(loss=loss), "that differ in LR alone") == "holds"
    assert verdict(6, World(loss=loss), "that differ in weight decay alone") == "does not hold"


@pytest.mark.parametrize(("lr", "expected"), [(0.05, "holds"), (0.5, "does not hold")])
def test_claim_7_what_is_recommended(lr, expected):
    own = World().lab.authors.but(lr=lr)
    world = World(loss=lambda spec: 1 + 0.3 * (lr_of(spec) > 0.1), search=lambda: Searched(own=own, cost=5.0))
    assert verdict(7, world, "author's setting, at equal epochs") == expected


def result(who, repetition, accuracy):
    return Result(who=who, repetition=repetition, own={}, accuracy=accuracy, loss=1.0, trials=9, seconds=600.0)


@pytest.mark.parametrize(("ahead", "expected"), [(1.0, "holds"), (0.0, "not decided"), (-1.0, "does not hold")])
def test_claim_8_races_are_compared_in_pairs(ahead, expected):
    def race(minutes, repetition):
        wobble = 0.1 * (-1) ** repetition
        return {
            HPTUNE: result(HPTUNE, repetition, 60 + 5 * repetition + ahead + wobble),
            OPTUNA: result(OPTUNA, repetition, 60 + 5 * repetition),
        }

    assert verdict(8, World(race=race), "after 10 min, 5 pairs") == expected


@pytest.mark.parametrize("number", [number for number in CLAIMS if number != 8])
def test_every_setting_has_all_seeds_and_ends_at_the_test_part(number):
    world = World(loss=candidate_loss)
    answered(CLAIMS[number].ask(world.lab), world)
    seeds = {}
    for spec in world.asked:
        if spec.test:
            seeds.setdefault(replace(spec, repetition=0, seed=0), set()).add(spec.repetition)
    assert seeds
    few = [spec for spec, own in seeds.items() if not own >= set(world.lab.seeds)]
    assert all(spec.schedule.kind == "step" for spec in few)  # what only tunes the baseline's LR


# ---- from the command to the document


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A setup that trains in no time."""
    stages = "{lr_range: {min_lr: 1e-3, max_lr: 1}, weight_decay: {values: [1e-3, 1e-2, 1e-1]}}"
    text = f"data: {{name: digits, limit: 200}}\nmodel: linear\nbudget: {{epochs: 2, search_epochs: 1}}\nseeds: 2\nstages: {stages}\n"
    (tmp_path / "tiny.yaml").write_text(f"name: tiny\ndevice: cpu\nexecutor: {{name: serial}}\nbaseline: {{batch_size: 32}}\n{text}")
    monkeypatch.setattr(setups, "CONFIGS", tmp_path)
    return Place(setup=Setup(name="tiny", title="tiny", claims=(3,)), folder=tmp_path / "trials", device="cpu")


def test_what_was_trained_is_there_for_whoever_reads(tiny):
    with pytest.raises(MissingError, match="were not run"):
        answered(CLAIMS[3].ask(Reads(tiny).lab), Reads(tiny))
    with Trains(tiny) as trains:
        trained = answered(CLAIMS[3].ask(trains.lab), trains)
        known = len(trains._session.journal.state.records)
    reads = Reads(tiny)
    assert answered(CLAIMS[3].ask(reads.lab), reads) == trained
    with Trains(tiny) as trains:
        answered(CLAIMS[3].ask(trains.lab), trains)
        assert len(trains._session.journal.state.records) == known


def test_the_document_has_each_claim_with_its_verdict_and_names_what_was_not_run(tmp_path):
    name = SCALES["cpu"][0].name
    for number in (4, 3):
        world = World()
        _keep(tmp_path, "cpu", number, name, answered(CLAIMS[number].ask(world.lab), world))
    _keep(tmp_path, "cpu", 4, name, answered(CLAIMS[4].ask(World(loss=candidate_loss).lab), World(loss=candidate_loss)))
    held = json.loads((tmp_path / "paper-cpu.json").read_text())
    assert [outcome["claim"] for outcome in held] == [3, 4]
    text = (tmp_path / "paper.md").read_text()
    assert f"## Claim 3. {CLAIMS[3].title}" in text
    assert "momentum range test is useless" in text
    assert "## Claim 5." not in text
    assert "claims 1, 2, 5, 6, 7" in text.split("## What was not run")[1]
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == 3
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    write(tmp_path)
    assert (tmp_path / "paper.md").read_text() == text


def test_a_difference_that_rounds_to_nothing_has_no_minus():
    assert estimate({"low": -0.5, "value": -0.002, "high": 0.5}, "points") == "+0.00 [-0.50, +0.50] points"


@pytest.mark.parametrize(("scale", "name"), [(scale, setup.name) for scale, own in SCALES.items() for setup in own])
def test_the_configs_of_all_setups_are_whole(scale, name, monkeypatch, tmp_path):
    """Also that of the search which knows data and model alone: it starts from hptune's defaults, not from the author's values."""
    monkeypatch.setenv("HPTUNE_DATA", str(tmp_path))
    setup = next(setup for setup in SCALES[scale] if setup.name == name)
    place = Place(setup=setup, folder=tmp_path)
    own, search = place.config().experiment, place.search_config().experiment
    assert (setup.paper["pairs"] if 8 in setup.claims else own.seeds) >= 4
    assert own.stages.lr_range
    assert set(setup.claims) <= CLAIMS.keys()
    defaults = from_tree({"data": {"name": "digits"}, "model": "linear"}, tmp_path).experiment
    assert search.baseline_hyperparameters() == defaults.baseline_hyperparameters()
    assert (search.data, search.model, search.schedule) == (own.data, own.model, own.schedule)
    assert search.budget.search_runs == 16
    if setup.claims != (8,):
        assert own.stages.lr_range.min_lr
        assert own.stages.lr_range.max_lr


def test_over_seeds_is_students_interval():
    values = [1.0, 2.0, 4.0]
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = over_seeds(values)
    assert (found.low, found.high) == pytest.approx(expected)
    assert over_seeds([1.0]).high == math.inf
    wider = over_seeds(values, together=4)
    assert (wider.low, wider.high) == pytest.approx(stats.t.interval(1 - 0.05 / 4, 2, np.mean(values), stats.sem(values)))


def test_data_are_made_from_torchvisions(tmp_path, monkeypatch):
    from torchvision import datasets

    def fetched(root, *, train, download):
        assert download
        assert Path(root) == tmp_path / "new"
        n = 6 if train else 3
        return SimpleNamespace(data=np.full((n, 4, 4, 3), n, np.uint8), targets=list(range(n)))

    monkeypatch.setattr(datasets, "CIFAR10", fetched)
    path = tmp_path / "new" / "cifar10.npz"
    assert prepare(path)
    with np.load(path) as held:
        assert {name: held[name].shape for name in held} == {
            "x_train": (6, 4, 4, 3),
            "y_train": (6,),
            "x_test": (3, 4, 4, 3),
            "y_test": (3,),
        }
        assert held["y_train"].tolist() == list(range(6))
    assert not prepare(path)
    with pytest.raises(DataError, match="no such data set"):
        prepare(tmp_path / "imagenet.npz")


@pytest.mark.parametrize(
    "options", [["--claims", "99"], ["--setups", "mnist"], ["--known", "--claims", "3"], ["--claims", "8", "--setups", "mnist_lenet"]]
)
def test_wrong_input_ends_with_2(options, monkeypatch, capsys):
    monkeypatch.delenv("HPTUNE_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["reproduce_paper", *options])
    main = runpy.run_path(str(setups.CONFIGS.parents[1] / "scripts" / "reproduce_paper"))["main"]
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert any(words in said for words in ("unknown", "HPTUNE_DATA is not set", "none of these claims"))


def test_range_tests_that_suggest_nothing_leave_a_claim_out():
    class Flat(World):
        def _record(self, spec):
            record = super()._record(spec)
            level = (1.0,) * len(record.curve.val_loss)
            return replace(record, curve=replace(record.curve, val_loss=level, train_loss=level))

    with pytest.raises(StageError, match="no LR of"):
        verdicts(3, Flat())


@pytest.mark.parametrize("who", [HPTUNE, OPTUNA])
def test_a_contestant_searches_for_its_time_and_trains_what_it_found(who, tmp_path):
    tree = {
        "data": {"name": "digits", "limit": 300},
        "model": "linear",
        "device": "cpu",
        "executor": {"name": "serial"},
        "budget": {"epochs": 4, "search_epochs": 1, "search": "1s"},
        "stages": {"batch_size": {"values": [32, 64], "compare": "samples"}, "confirm": False},
        "seed": 3,
    }
    result = run_contestant(who, from_tree(tree, tmp_path), tmp_path / f"{who}-5-3", 1.0)
    assert (result.who, result.repetition) == (who, 3)
    assert result.accuracy > 50  # chance is 10
    assert result.trials > 3
    assert result.own["batch_size"] in (32, 64)
    assert raced(tmp_path, minutes=5, repetition=3) is None  # the other one is missing
    kept = (tmp_path / f"{who}-5-3" / "result.json").read_text()
    for name in (HPTUNE, OPTUNA):
        (tmp_path / f"{name}-5-3").mkdir(exist_ok=True)
        (tmp_path / f"{name}-5-3" / "result.json").write_text(kept)
    assert raced(tmp_path, minutes=5, repetition=3) == {HPTUNE: result, OPTUNA: result}


# ---- what is said of the results

SAID = [
    ("held", "stable at the LR of the range test", 1, "complete at the suggested LR", "holds"),
    ("held", "short range tests serve as well", 1, "that 4 range tests of ", "holds"),
    ("held", "at equal length 1cycle is better", 2, "1cycle in 25 epochs less that of the tuned step schedule in 25", "holds"),
    ("held", "at equal length 1cycle is better", 2, "1cycle in 12 epochs less that of the tuned step schedule in 12", "holds"),
    ("held", "on MNIST as good as the author's schedule", 2, "1cycle in 12 epochs less that of the author's inv schedule in 85", "holds"),
    ("held", "by loss, falling momentum", 3, "1cycle: loss at momentum 0.95→0.85", "holds"),
    ("held", "by loss, falling momentum", 3, "1cycle, equal LR/(1 − momentum): loss", "holds"),
    ("held", "a momentum range test is useless", 3, "momentum range test", "holds"),
    ("held", "branches from the peak LR", 5, "branches from the peak", "holds"),
    ("held", "better than the author's settings", 7, "less that of the author's setting", "holds"),
    ("not", "A linear ramp suggests LRs that do worse", 1, "4 linear range tests", "does not hold"),
    ("not", "in half the length of a short step schedule", 2, "1cycle in 12.5 epochs", "does not hold"),
    ("not", "Momentum's minimum does matter", 3, "1cycle: accuracy at the best minimum", "does not hold"),
    ("not", "under a constant LR falling momentum loses", 3, "constant LR: accuracy", "does not hold"),
    ("not", "Larger batches are not better", 4, "accuracy at batch size", "does not hold"),
    ("not", "LR·WD is no law", 5, "slope of log best weight decay", "does not hold"),
    ("not", "Short runs rank LRs", 6, "in LR alone", "holds"),
    ("not", "not weight decays", 6, "in weight decay alone", "does not hold"),
    ("not", "before two thirds of it", 6, "at 0.33 of a full run", "does not hold"),
    ("not", "before two thirds of it", 6, "at 0.67 of a full run", "holds"),
    ("not", "Clues seldom name the right side", 6, "whose clue names the right side", "does not hold"),
    ("open", "whether hptune run or Optuna's TPE gets further in ten minutes", 8, "less that of Optuna's TPE", "not decided"),
]


@pytest.mark.parametrize(("where", "phrase", "number", "words", "expected"), SAID)
def test_what_explain_says_is_what_the_results_say(where, phrase, number, words, expected):
    _, held, failed, undecided = TOPICS["paper"].text().split("\n\n")
    assert phrase in {"held": held, "not": failed, "open": undecided}[where]
    results = json.loads((setups.CONFIGS.parents[1] / "scripts" / "results" / "paper-cpu.json").read_text(encoding="utf-8"))
    findings = [finding for found in results if found["claim"] == number for finding in found["findings"]]
    assert {finding["verdict"] for finding in findings if words in finding["statement"]} == {expected}
