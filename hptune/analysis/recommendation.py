"""Conclusions of stages, and the recommendation they add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hptune.analysis.candidates import NO_NOISE, Noise
from hptune.analysis.ranking import Row
from hptune.analysis.wording import format_number
from hptune.trial import Hyperparameters

DECAY_STEP = 3.0  # the more regularized neighbour
SETTLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lr_range": (("lr",), ()),
    "batch_size": (("batch_size",), ("lr",)),
    "momentum": (("momentum", "momentum_min"), ()),
    "weight_decay": (("weight_decay",), ()),
    "refine": ((), ("lr", "batch_size", "momentum", "momentum_min", "weight_decay")),
}
"""What each search stage settles, in the order of the stages (a later one overrides): the hyper-parameters it is about, and
those it may move along the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What one stage found.

    `sentence` says it with its numbers; `chosen` goes on to the next stage (None: nothing usable was found); `rows` is the ranked
    table; `noise` the deviation seen in this stage's own runs; `detail` JSON values for charts and exports.
    """

    stage: str
    sentence: str
    notes: tuple[str, ...] = ()
    chosen: Hyperparameters | None = None
    rows: tuple[Row, ...] = ()
    noise: Noise = NO_NOISE
    trials: int = 0
    samples: int = 0
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A value of a config key that did better than the config's own beyond noise; `sentence` says so with its numbers."""

    key: str
    value: Any
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The configuration to train with at full length.

    `sources`: hyper-parameter name -> where its value came from. `confirmed`: whether full-length runs compared it with the
    baseline; `better`: whether they showed it to be better (None: not compared). `gain`: ratio of validation losses with its 95 %
    interval.
    `short`: the best of the short runs, before it was carried over to the full length. `offers`: values of other config keys that
    sweeps showed to be better than the config's own in short runs; they are no part of the configuration.
    """

    hyperparameters: Hyperparameters
    baseline: Hyperparameters
    short: Hyperparameters
    epochs: float
    sources: tuple[tuple[str, str], ...] = ()
    evidence: tuple[str, ...] = ()
    confirmed: bool = False
    better: bool | None = None
    gain: Mapping[str, float] | None = None
    offers: tuple[Offer, ...] = ()


def length_of(conclusion: Conclusion) -> float:
    """Length of the runs a stage chose from, in short runs."""
    return float(conclusion.detail.get("length", 1.0))


def settle(conclusions: Sequence[Conclusion], baseline: Hyperparameters) -> tuple[Hyperparameters, dict[str, str]]:
    """Merge what the short runs settled into the baseline; also return the source of each value (`baseline` or a stage)."""
    values = asdict(baseline)
    sources = dict.fromkeys(values, "baseline")
    by_stage = {c.stage: c for c in conclusions if length_of(c) == 1}
    for stage, (own, moved) in SETTLES.items():
        found = by_stage.get(stage)
        if found is None or found.chosen is None:
            continue
        for name in (*own, *moved):
            value = getattr(found.chosen, name)
            if name in own or value != values[name]:
                values[name], sources[name] = value, stage
    return Hyperparameters(**values).but(), sources


def timescale_steps(own: Hyperparameters, optimizer: str) -> float:
    """Steps over which weight decay at the peak LR forgets: 1/(LR·WD) for AdamW, (1 - momentum)/(LR·WD) for SGD; infinite without any.

    Source: arXiv 2405.13698 for AdamW; for SGD with coupled L2 the effective decay per step is LR·WD/(1 - momentum).
    """
    if own.weight_decay == 0:
        return math.inf
    return (1 - own.momentum if optimizer == "sgd" else 1.0) / (own.lr * own.weight_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Longer:
    """A training that the settings of short runs are carried over to.

    `ratio`: its length over theirs. `samples`: training samples in it, at a batch size of speed 1; `speeds`: of other sizes.
    """

    ratio: float
    samples: float
    optimizer: str
    speeds: tuple[tuple[int, float], ...] = ()

    def at(self, ratio: float) -> Longer:
        """The same at another length."""
        return replace(self, ratio=ratio, samples=self.samples / self.ratio * ratio)

    def decay(self, own: Hyperparameters) -> float:
        """The weight decay whose timescale at the peak LR is as long as the training, to two figures."""
        steps = self.samples * dict(self.speeds).get(own.batch_size, 1.0) / own.batch_size
        return float(f"{timescale_steps(own.but(weight_decay=1.0), self.optimizer) / steps:.1e}")


def transfer(short: Hyperparameters, to: Longer, settled: frozenset[str]) -> tuple[Hyperparameters, dict[str, str]]:
    """Carry the best short-run settings over to a longer training; also return a sentence for each value it decided on.

    The LR that is best in short runs stays. Weight decay, where the search `settled` it, is raised until its timescale is no longer than
    the training: short runs do not see the overfitting that a longer one needs it for.
    """
    least = to.decay(short)
    if "weight_decay" not in settled or to.ratio == 1 or short.weight_decay >= least:
        return short, {}
    reason = (
        f"{format_number(short.weight_decay)} in short runs, which do not see overfitting; raised to {format_number(least)}, "
        f"whose timescale is as long as the training"
    )
    return short.but(weight_decay=least), {"weight_decay": reason}


def carry(conclusions: Sequence[Conclusion], baseline: Hyperparameters, to: Longer) -> tuple[Hyperparameters, dict[str, str]]:
    """What the search recommends for the longer training, and the source of each value.

    The best of the short runs is carried over by the rule of `transfer`; what longer runs showed to be better is changed by as much.
    """
    short, sources = settle(conclusions, baseline)
    carried, reasons = transfer(short, to, settled_names(sources))
    sources = {name: reasons.get(name, source) for name, source in sources.items()}
    longer = next((c for c in conclusions if c.stage == "refine" and c.chosen is not None and length_of(c) != 1), None)
    if longer is None or longer.chosen is None:
        return carried, sources
    moved = onward(longer.chosen, carried, transfer(short, to.at(length_of(longer)), settled_names(sources))[0])
    changes = {name: value for name, value in asdict(moved).items() if value != getattr(carried, name)}
    reason = f"refine, in runs of {length_of(longer):.3g} times the short length"
    return moved, {**sources, **dict.fromkeys(changes, reason)}


def onward(found: Hyperparameters, carried: Hyperparameters, start: Hyperparameters) -> Hyperparameters:
    """What was `found` around `start` in longer runs, for the full length, to which the same is `carried` over.

    Weight decay changes by as many times as it did there, so that its timescale keeps its share of the training.
    """
    times = found.weight_decay / start.weight_decay if start.weight_decay else 1.0
    decay = float(f"{carried.weight_decay * times:.2g}") if start.weight_decay else found.weight_decay
    return found.but(weight_decay=decay)


def settled_names(sources: Mapping[str, str]) -> frozenset[str]:
    """The hyper-parameters that the search has settled, by the sources of all."""
    return frozenset(name for name, source in sources.items() if source != "baseline")


def finalists(
    recommended: Hyperparameters,
    short: Hyperparameters,
    baseline: Hyperparameters,
    runners_up: Sequence[Hyperparameters],
    count: int,
    *,
    least_decay: float,
) -> list[tuple[str, Hyperparameters]]:
    """The candidates of confirm: the baseline and up to `count` different others, the recommendation first.

    `least_decay`: what counts as more weight decay than none.
    """
    more = float(f"{recommended.weight_decay * DECAY_STEP:.2g}") or least_decay
    proposals = [
        ("recommended", recommended),
        ("regularized", recommended.but(weight_decay=more)),
        ("short_run_best", short),
        *((f"runner_up_{i + 1}", h) for i, h in enumerate(runners_up)),
    ]
    chosen = [("baseline", baseline)]
    for name, h in proposals:
        if len(chosen) <= count and h not in [kept for _, kept in chosen]:
            chosen.append((name, h))
    return chosen


def recommend(
    conclusions: Sequence[Conclusion], *, baseline: Hyperparameters, to: Longer, epochs: Mapping[int, float]
) -> Recommendation | None:
    """Add up the stages' conclusions; None where no stage has chosen anything yet.

    `to`: the training at full length. `epochs`: full-length epochs for each batch size whose speed is known; key 0 holds the config's.
    """
    useful = [c for c in conclusions if c.chosen is not None and (c.stage in SETTLES or c.stage == "confirm")]
    if not useful:
        return None
    short, _ = settle(useful, baseline)
    carried, sources = carry(useful, baseline, to)
    confirm = next((c for c in useful if c.stage == "confirm"), None)
    final = confirm.chosen if confirm is not None and confirm.chosen is not None else carried
    if confirm is not None:
        winner = str(confirm.detail.get("winner"))
        sources = {
            name: sources[name] if getattr(final, name) == getattr(carried, name) else f"confirm: the candidate {winner}"
            for name in sources
        }
    return Recommendation(
        hyperparameters=final,
        baseline=baseline,
        short=short,
        epochs=epochs.get(final.batch_size, epochs[0]),
        sources=tuple(sources.items()),
        evidence=tuple(f"{c.stage}: {c.sentence}" for c in useful),
        confirmed=confirm is not None,
        better=confirm.detail.get("better") if confirm is not None else None,
        gain=confirm.detail.get("gain") if confirm is not None else None,
        offers=tuple(_offer(c.detail) for c in conclusions if "own" in c.detail),
    )


def _offer(detail: Mapping[str, Any]) -> Offer:
    key, value, gain = detail["key"], detail["value"], detail["gain"]
    text = f"{key} {format_number(value)} did better than {format_number(detail['own'])} in short runs"
    if math.isfinite(gain["ratio"]):
        text += f": {format_number(gain['ratio'])} times the loss [{format_number(gain['low'])}, {format_number(gain['high'])}]"
    given = value if isinstance(value, str) else json.dumps(value)
    return Offer(key=key, value=value, sentence=f"{text}; not part of the recommendation: --set {key}={given} searches and trains with it")
