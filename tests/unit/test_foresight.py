"""What is foreseen from a run that stands somewhere: the trials it really comes to, in good time, and never an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pytest
from faulty import NUMBERS, ODD, SERIES, STATUSES, Faulty
from surfaces import START, TASK, Surface, experiment, knowledge

from hptune.config.schema import Experiment
from hptune.foresight import FUTURES, Foresight, Outlook, foresee
from hptune.knowledge import Finished, Progress, enabled_stages, stage_knowledge
from hptune.sampler import TpeSampler
from hptune.stages import stage_named
from hptune.stages.rounds import repeated
from hptune.trial import TrialSpec


def outlooks(config: Experiment, train: Any) -> list[tuple[Outlook, list[TrialSpec]]]:
    """A whole run, as it stands at each round with the first half of it done, and what it came to after that round."""
    names = enabled_stages(config)
    blocks = {name: getattr(config.stages, name).model_dump() for name in names}
    records: dict[str, Any] = {}
    progress, stands, came = Progress(), list[Outlook](), list[list[TrialSpec]]()
    for at, name in enumerate(names):
        k = stage_knowledge(name, config, TASK, progress, settings=blocks[name])
        stage = stage_named(name, TpeSampler(records[t] for t in k.history) if name == "refine" else None)
        planned: list[TrialSpec] = []
        while new := stage.plan(k, [records[spec.trial_id] for spec in planned]):
            planned = [*planned, *new]
            records |= {spec.trial_id: train(spec) for spec in new[: len(new) // 2]}
            coming = {later: blocks[later] for later in names[at + 1 :]}
            here = {"stage": name, "knowledge": k, "planned": planned, "records": dict(records), "coming": coming}
            stands.append(Outlook(experiment=config, task=TASK, progress=progress, **here))
            came.append(new)
            records |= {spec.trial_id: train(spec) for spec in new}
        done = [records[spec.trial_id] for spec in planned]
        found = stage.conclude(k, done)
        progress = Progress(finished={**progress.finished, name: Finished(knowledge=k, records=tuple(done), conclusion=found)})
        if found.chosen is None:
            break
    following = [[spec for later in came[i + 1 :] for spec in later] for i in range(len(came))]
    return list(zip(stands, following, strict=True))


def ids(specs: Sequence[TrialSpec | None]) -> list[str]:
    return [spec.trial_id for spec in specs if spec is not None]


RUN = outlooks(experiment(), Surface())


def standing(stage: str, rounds: int = 0) -> tuple[Outlook, list[TrialSpec]]:
    return [stand for stand in RUN if stand[0].stage == stage][rounds]


def test_nothing_comes_twice_and_nothing_that_is_planned_or_known() -> None:
    for outlook, _ in RUN[::4]:
        found = ids(list(foresee(outlook, 2)))
        assert len(found) == len(set(found))
        assert not set(found) & {*outlook.records, *ids(list(outlook.planned))}


def test_most_of_what_a_stage_goes_on_with_is_foreseen() -> None:
    hits = missed = 0
    for outlook, following in RUN:
        if outlook.stage in ("momentum", "weight_decay"):
            new = [t for t in ids(following) if t not in outlook.records][:6]
            found = ids(list(islice(foresee(outlook, FUTURES), 60)))
            hits += len(set(new) & set(found))
            missed += len(set(new) - set(found))
    assert hits > missed


def test_second_seeds_come_first_while_the_first_ones_run() -> None:
    outlook, _ = standing("momentum")
    best = min((outlook.records[spec.trial_id] for spec in outlook.planned if spec.trial_id in outlook.records), key=lambda r: r.val_loss)
    first = [spec for spec in islice(foresee(outlook, 2), 40) if spec is not None]
    again = [spec.trial_id for spec in first[:4] if spec.repetition == 1]
    assert again
    assert repeated(outlook.knowledge, best.spec, 1).trial_id in {*again, *outlook.records}


def test_the_next_stage_is_foreseen_around_the_best_so_far() -> None:
    outlook, _ = standing("momentum", -1)
    done = [outlook.records[trial] for trial in ids(list(outlook.planned)) if trial in outlook.records]
    start = stage_named("momentum").conclude(outlook.knowledge, done).chosen
    assert start is not None
    found = [spec.hyperparameters for spec in foresee(outlook, 2) if spec is not None]
    decays = {own.weight_decay for own in found[:12] if own.but(weight_decay=start.weight_decay) == start}
    assert len(decays) >= 3


def test_the_baseline_at_full_length_is_foreseen_from_the_beginning() -> None:
    outlook, _ = RUN[0]
    assert not outlook.records or len(outlook.records) == 1
    wanted = {knowledge(task="t1").full_run(START.but(momentum=0.9), seed).trial_id for seed in range(2)}
    found = ids(list(foresee(outlook, FUTURES)))
    assert wanted <= set(found[: len(found) // 3])


def test_nothing_is_foreseen_of_stages_that_are_not_asked_for() -> None:
    outlook, _ = standing("momentum")
    alone = [spec for spec in foresee(replace(outlook, coming={}), 2) if spec is not None]
    assert alone
    assert {spec.hyperparameters.weight_decay for spec in alone} == {outlook.knowledge.start.weight_decay}


def test_a_stage_without_a_share_of_the_budget_is_passed_over() -> None:
    outlook, _ = outlooks(experiment(budget={"epochs": 10, "search_epochs": 2, "search": 1}), Surface())[0]
    found = [spec for spec in foresee(outlook, 2) if spec is not None]
    assert any(spec.repetition >= 1000 for spec in found), "confirm comes after stages that get nothing"


@pytest.mark.parametrize(("rank_by", "budget"), [("val_loss", {}), ("metric", {"search": 20})])
def test_no_record_however_odd_raises(budget: dict[str, Any], rank_by: str) -> None:
    train = Faulty(seed=1, share=0.4, fields=(*NUMBERS, *SERIES), values=ODD, statuses=STATUSES)
    config = experiment(budget={"epochs": 10, "search_epochs": 2, **budget}, rank_by=rank_by)
    for outlook, _ in outlooks(config, train)[::4]:
        assert len(list(islice(foresee(outlook, 2), 2000))) < 2000, "it ends"


def test_a_stage_of_very_many_trials_is_not_played_through(monkeypatch: pytest.MonkeyPatch) -> None:
    outlook, _ = standing("momentum")
    monkeypatch.setattr("hptune.foresight.MOST_TRIALS", len(outlook.planned))
    assert list(foresee(outlook, 1))
    monkeypatch.setattr("hptune.foresight.MOST_TRIALS", len(outlook.planned) - 1)
    assert not list(foresee(outlook, 1))


class Ticking:
    """A clock that goes on by one second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_one_call_takes_no_longer_than_its_patience_and_the_next_goes_on() -> None:
    outlook, _ = standing("momentum")
    whole = ids(list(foresee(outlook, FUTURES)))
    foresight = Foresight(lambda: outlook, 4, clock=Ticking(), patience=20.0)
    found: list[str] = []
    calls = 0
    while len(found) < len(whole):
        calls += 1
        before, found = found, ids(list(foresight([])))
        assert found[: len(before)] == before
        assert len(found) <= len(before) + 21
        assert calls < 100
    assert found == whole
    assert calls > 2


def test_it_is_foreseen_anew_when_half_of_what_was_pending_is_done() -> None:
    outlook, _ = standing("momentum")
    asked: list[int] = []

    def now(of: list[int]) -> Outlook:
        of.append(1)
        return outlook

    foresight = Foresight(partial(now, asked), 8, clock=lambda: 0.0, patience=1.0)
    times = []
    done = [next(iter(outlook.records.values()))] * 8
    for n in range(8):
        list(islice(foresight(done[:n]), 1))
        times.append(len(asked))
    assert times == [1, 1, 1, 1, 2, 2, 3, 4]
