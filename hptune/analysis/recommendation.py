"""Conclusions of stages, and the recommendation they add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hptune.analysis.ranking import NO_NOISE, Noise, Row
from hptune.analysis.wording import format_number
from hptune.trial import Hyperparameters

LR_LENGTH_EXPONENT = -0.28  # the best LR of a longer run falls as length to this power (measured for 1cycle), where there is a gap
OPEN_GAP = 1.2  # final validation over training loss: from here on the network fits its training part better than anything else
DECAY_FLOOR = 3e-4  # coupled weight decay below this is raised at full length: short runs do not see overfitting
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


def transfer(
    short: Hyperparameters, ratio: float, optimizer: str, settled: frozenset[str], gap: float = math.inf
) -> tuple[Hyperparameters, dict[str, str]]:
    """Carry the best short-run settings over to a run `ratio` times as long; also return a sentence for each value it decided on.

    Only values the search `settled` are moved: LR by `ratio ** LR_LENGTH_EXPONENT`, sgd's weight decay up to `DECAY_FLOOR`. The LR stays
    where the `gap`, final validation over training loss, has not opened: a longer run then goes on learning at the LR that was best.
    """
    changes: dict[str, float] = {}
    reasons: dict[str, str] = {}
    if "lr" in settled and ratio != 1:
        changes["lr"] = lr = lengthen(short, ratio, gap).lr
        reasons["lr"] = (
            f"{format_number(short.lr)} in short runs, {format_number(lr)} at {ratio:.3g} times their length "
            f"(LR ∝ length^{LR_LENGTH_EXPONENT})"
            if gap >= OPEN_GAP
            else f"{format_number(short.lr)} in short runs, kept at {ratio:.3g} times their length: "
            f"there the validation loss is {gap:.2g} times the training loss"
        )
    if "weight_decay" in settled and ratio >= 2 and optimizer == "sgd" and short.weight_decay < DECAY_FLOOR:
        changes["weight_decay"] = DECAY_FLOOR
        reasons["weight_decay"] = (
            f"{format_number(short.weight_decay)} in short runs, raised to {format_number(DECAY_FLOOR)}: they do not see overfitting"
        )
    return short.but(**changes), reasons


def carry(
    conclusions: Sequence[Conclusion], baseline: Hyperparameters, ratio: float, optimizer: str
) -> tuple[Hyperparameters, dict[str, str]]:
    """What the search recommends for runs `ratio` times as long as the short ones, and the source of each value.

    The best of the short runs is carried over by the rule of `transfer`; what longer runs showed to be better replaces it.
    """
    short, sources = settle(conclusions, baseline)
    settled = settled_names(sources)
    carried, reasons = transfer(short, ratio, optimizer, settled, short_gap(conclusions))
    sources = {name: reasons.get(name, source) for name, source in sources.items()}
    longer = next((c for c in conclusions if c.stage == "refine" and c.chosen is not None and length_of(c) != 1), None)
    if longer is None or longer.chosen is None:
        return carried, sources
    tried_from, _ = transfer(short, length_of(longer), optimizer, settled, short_gap(conclusions))
    moved = lengthen(longer.chosen, ratio / length_of(longer), gap_of(longer))
    changes = {name: value for name, value in asdict(moved).items() if getattr(longer.chosen, name) != getattr(tried_from, name)}
    reason = f"refine, in runs of {length_of(longer):.3g} times the short length"
    return carried.but(**changes), {**sources, **dict.fromkeys(changes, reason)}


def settled_names(sources: Mapping[str, str]) -> frozenset[str]:
    """The hyper-parameters that the search has settled, by the sources of all."""
    return frozenset(name for name, source in sources.items() if source != "baseline")


def gap_of(conclusion: Conclusion) -> float:
    """Final validation over training loss of the candidate a stage chose; infinite where it is not known."""
    row = next((row for row in conclusion.rows if row.chosen), None)
    if row is None or not (row.train_loss > 0 and row.val_loss > 0):
        return math.inf
    return row.val_loss / row.train_loss


def short_gap(conclusions: Sequence[Conclusion]) -> float:
    """The gap of the short runs that came last."""
    by_stage = {c.stage: c for c in conclusions if c.chosen is not None and c.rows and length_of(c) == 1}
    return next((gap_of(by_stage[stage]) for stage in reversed(SETTLES) if stage in by_stage), math.inf)


def lengthen(own: Hyperparameters, ratio: float, gap: float = math.inf) -> Hyperparameters:
    """The same for runs `ratio` times as long: the LR by the rule of `transfer`."""
    return own if ratio == 1 or gap < OPEN_GAP else own.but(lr=float(f"{own.lr * ratio**LR_LENGTH_EXPONENT:.2g}"))


def finalists(
    recommended: Hyperparameters, short: Hyperparameters, baseline: Hyperparameters, runners_up: Sequence[Hyperparameters], count: int
) -> list[tuple[str, Hyperparameters]]:
    """The candidates of confirm: the baseline and up to `count` different others, the recommendation first."""
    decay = max(recommended.weight_decay, DECAY_FLOOR / DECAY_STEP) * DECAY_STEP
    proposals = [
        ("recommended", recommended),
        ("regularized", recommended.but(weight_decay=float(f"{decay:.1g}"))),
        ("short_run_best", short),
        *((f"runner_up_{i + 1}", h) for i, h in enumerate(runners_up)),
    ]
    chosen = [("baseline", baseline)]
    for name, h in proposals:
        if len(chosen) <= count and h not in [kept for _, kept in chosen]:
            chosen.append((name, h))
    return chosen


def recommend(
    conclusions: Sequence[Conclusion], *, baseline: Hyperparameters, optimizer: str, length_ratio: float, epochs: Mapping[int, float]
) -> Recommendation | None:
    """Add up the stages' conclusions; None where no stage has chosen anything yet.

    `length_ratio`: full over short length. `epochs`: full-length epochs for each batch size whose speed is known; key 0 holds the config's.
    """
    useful = [c for c in conclusions if c.chosen is not None and (c.stage in SETTLES or c.stage == "confirm")]
    if not useful:
        return None
    short, _ = settle(useful, baseline)
    carried, sources = carry(useful, baseline, length_ratio, optimizer)
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
