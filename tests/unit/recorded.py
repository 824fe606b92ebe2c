"""The curves recorded under `data/`, by case and seed."""

from __future__ import annotations

import csv
from pathlib import Path

from hptune.trial import CurveSummary


def recorded(name: str) -> dict[tuple[str, int], CurveSummary]:
    rows: dict[tuple[str, int], list[dict[str, str]]] = {}
    with (Path(__file__).parent / "data" / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault((row["case"], int(row["seed"])), []).append(row)
    return {
        key: CurveSummary(
            step=tuple(int(row["step"]) for row in own),
            lr=tuple(float(row["lr"]) for row in own),
            train_loss=tuple(float(row["train_loss"]) for row in own),
            val_loss=tuple(float(row["val_loss"]) for row in own),
        )
        for key, own in rows.items()
    }
