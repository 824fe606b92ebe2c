"""A sweep of any other config key, by the same machinery: short paired runs, pooled noise, ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.schedules import Schedule
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import comparison, conclusion, nothing_usable
from hptune.stages.rounds import contender, next_round, ranked
from hptune.trial import Hyperparameters, Numerics, TrialRecord, TrialSpec


class KeySweep:
    """Compares the values of one config key; `settings["variants"]` holds what each value makes of the trial.

    A variant is a mapping with `value`, `task`, `train_samples`, `hyperparameters`, `schedule` and `numerics`.
    """

    def __init__(self, key: str) -> None:
        self.name = key

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """Every value on the first seed, further seeds for those in the race."""
        return next_round(knowledge, [_run(knowledge, variant) for variant in knowledge.settings["variants"]], done)

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Choose the value with the lowest loss; one shown to be better than the config's own is offered (`detail["gain"]`)."""
        values = swept_values(knowledge)
        column = self.name.rpartition(".")[2]
        ranking = ranked(knowledge, done, lambda spec: ((column, values[contender(spec)]),))
        if ranking.best is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable(f"value of {self.name}", ranking, done))
        sentence = comparison(column, ranking, ranking.best, preferred="")
        detail: dict[str, Any] = {"key": self.name, "value": dict(ranking.best.values)[column]}
        present = _own_value(knowledge)
        own = next((row for row in ranking.rows if dict(row.values)[column] == present), None)
        if own is not None and own is not ranking.best and (gain := ranking.compare(ranking.best, own)).better:
            detail |= {"own": dict(own.values)[column], "gain": {"ratio": gain.ratio, "low": gain.low, "high": gain.high}}
            sentence += f"; shown to be better than the config's own {format_number(detail['own'])}"
        return conclusion(self.name, ranking, done, ranking.best, sentence=sentence, detail=detail)


def swept_values(k: Knowledge) -> dict[TrialSpec, Any]:
    """The value of the key that each candidate of the sweep stands for; empty where `k` is another stage's."""
    return {contender(_run(k, variant)): variant["value"] for variant in k.settings.get("variants", ())}


def _own_value(k: Knowledge) -> Any:
    """The value that the config has now, where the sweep tried it."""
    own = contender(k.short_run(k.start))
    return next((variant["value"] for variant in k.settings["variants"] if contender(_run(k, variant)) == own), None)


def _run(k: Knowledge, variant: Mapping[str, Any]) -> TrialSpec:
    own = replace(k, task=variant["task"], train_samples=int(variant["train_samples"]))
    schedule = Schedule.from_json(variant["schedule"])
    return own.short_run(Hyperparameters(**variant["hyperparameters"]), schedule=schedule, numerics=Numerics(**variant["numerics"]))
