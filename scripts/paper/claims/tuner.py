"""Claim 7: what `hptune run` finds by itself beside the author's setting, which took him about a thousand experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hptune.trial import Hyperparameters, TrialRecord
from paper.evidence import Compared, Outcome, Panel, accuracy, held
from paper.lab import Asking, Lab, by_name
from paper.panels import ends

AUTHORS, RECIPE, OURS = "author's", "recipe by hand", "hptune run"


def tuner(lab: Lab) -> Asking[Outcome]:
    """Full trainings with what was recommended, with the author's setting, and with that at the LR a range test suggests."""
    by_hand = yield from lab.settled()
    found = lab.search()
    settings = {AUTHORS: lab.authors, RECIPE: by_hand, OURS: found.own}
    records = yield from by_name({name: lab.runs(own) for name, own in settings.items()})  # on seeds and a split that the search had not
    compared = Compared(records)
    gaps = {name: compared.difference(OURS, name) for name in (AUTHORS, RECIPE)}
    trainings = f"the search took {found.cost:.1f} full trainings in all"
    findings = [
        held(
            f"accuracy of what `hptune run` recommends less that of the {_WORDS[name]}, at equal epochs",
            gap,
            "points",
            above=-lab.margin,
            note=trainings,
        )
        for name, gap in gaps.items()
    ]
    return Outcome(
        findings=findings,
        panels=(_drawn(records),),
        tables={f"What is recommended, {lab.title}; {trainings}": _rows(lab, settings, compared)},
    )


_WORDS = {AUTHORS: "author's setting", RECIPE: "author's setting at the LR of a range test"}


def _rows(lab: Lab, settings: Mapping[str, Hyperparameters], compared: Compared) -> list[dict[str, str]]:
    rows = []
    for name, own in settings.items():
        rows.append({
            "setting": name, "LR": f"{own.lr:g}", "batch size": str(own.batch_size), "momentum": f"{own.momentum:g}→{own.momentum_min:g}",
            "weight decay": f"{own.weight_decay:.2g}",
            "accuracy, %": compared.shown(name),
            "paper": lab.paper.get("accuracy", "") if name == AUTHORS else "",
        })  # fmt: skip
    return rows


def _drawn(records: Mapping[str, Sequence[TrialRecord]]) -> Panel:
    rows = ends({(name, name): own for name, own in records.items()}, accuracy)
    return Panel(figure="tuner", title="What is recommended", x="setting", y="test accuracy, %", rows=rows, lines=False)
