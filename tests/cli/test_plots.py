"""Plots in a terminal: what stands where, how wide it is, and that nothing odd in the data keeps a run from going on."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console as Terminal
from rich.text import Text

from hptune.analysis.ranking import Row
from hptune.analysis.recommendation import Conclusion
from hptune.cli import plots
from hptune.cli.console import Console
from hptune.cli.progress import follow
from hptune.running import StageConcluded
from hptune.schedules import Schedule
from hptune.stages.base import Knowledge
from hptune.trial import Hyperparameters, Numerics, TrialRecord

H = Hyperparameters(lr=0.1, batch_size=64, momentum=0.9, momentum_min=0.85, weight_decay=1e-4)
RATES = [10.0 ** (i / 4 - 4) for i in range(21)]
LOSSES = [2.0] * 8 + [1.6, 1.2, 0.9, 0.6, 0.4, 0.3, 0.35, 0.5, 0.9, 1.5, 2.5, 9.0, math.nan]


def ramps(*series: tuple[list[float], list[float]], **detail: Any) -> Conclusion:
    ranges = [{"repetition": i, "lr": RATES, "val_loss": val, "train_loss": train} for i, (val, train) in enumerate(series)]
    return Conclusion(stage="lr_range", sentence="", chosen=H, detail={"ranges": ranges, **detail})


def row(value: Any, loss: float, name: str = "weight_decay", **changes: Any) -> Row:
    return Row(
        **{"values": ((name, value),), "hyperparameters": H, "val_loss": loss, "verdict": "tied", "trials": (f"{value}",), **changes}
    )


def sweep(*rows: Row, stage: str = "weight_decay") -> Conclusion:
    return Conclusion(stage=stage, sentence="", rows=rows)


def records(**losses: float) -> dict[str, TrialRecord]:
    k = Knowledge(
        task="t", numerics=Numerics(), train_samples=640, val_samples=10, test_samples=0, optimizer="sgd", schedule=Schedule(), start=H,
        baseline=H,
    )  # fmt: skip
    return {name: TrialRecord(spec=k.short_run(H), status="completed", val_loss=loss) for name, loss in losses.items()}


def plain(lines: list[str]) -> list[str]:
    return [Text.from_ansi(line).plain for line in lines]


def test_the_range_plot_falls_and_rises_over_its_axis_with_the_suggestion_and_what_goes_on_marked() -> None:
    lines = plain(plots.range_plot(ramps((LOSSES, LOSSES), suggested=0.0316, low=0.01, high=0.1), 80))
    assert lines[0] == "loss over LR, 1 ramp"
    assert lines[-1] == "⠒ validation  · training  │ suggested 0.0316 [0.01, 0.1]  ◆ 0.1 goes on"
    assert lines[-2].split() == ["1e-04", "0.001", "0.01", "0.1", "1"]
    tick = {name: lines[-2].index(name) + len(name) // 2 for name in ("0.01", "0.1")}
    marks = lines[-4]
    assert abs(marks.index("━") - tick["0.01"]) <= 1, "the interval begins over its LR"
    assert abs(marks.index("◆") - tick["0.1"]) <= 1, "and ends where 0.1 goes on"
    assert set(marks[marks.index("━") : marks.index("◆")]) == {"━"}
    curve = [(y, x) for y, line in enumerate(lines) for x, mark in enumerate(line) if "⠀" < mark <= "⣿" and y < len(lines) - 1]
    start, bottom = min(curve, key=lambda place: place[1])[0], max(curve)[0]
    assert min(curve)[0] < start < bottom, "it falls from where it starts, and rises above that"
    lowest = [x for y, x in curve if y == bottom]
    assert lowest[0] <= tick["0.1"] + 4 <= lowest[-1], "it is lowest at 0.18"


def test_a_diverging_end_does_not_flatten_the_rest() -> None:
    def lowest_and_start(end: float) -> list[str]:
        return plain(plots.range_plot(ramps(([*LOSSES[:-2], end, end], LOSSES)), 80))

    assert lowest_and_start(9.0) == lowest_and_start(1e30)


def test_training_and_validation_are_told_apart_without_colour() -> None:
    both = plain(plots.range_plot(ramps((LOSSES, [loss / 2 for loss in LOSSES])), 80))
    body = "".join(both[1:-3])
    assert "·" in body
    assert any("⠀" < mark <= "⣿" for mark in body)


def test_numbers_stand_in_their_order_with_zero_in_a_place_of_its_own() -> None:
    found = sweep(row(1e-3, 0.3), row(0.0, 0.4, chosen=True), row(1e-2, 0.5), row(1e-4, 0.6))
    lines = plain(plots.candidates_plot(found, {}, 80))
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["→ 0", "1e-04", "0.001", "0.01"]
    places = [line.index("●") for line in lines if "●" in line and "┤" in line]
    assert places[2] < places[0] < places[3] < places[1]


def test_candidates_without_a_common_scale_stand_best_first() -> None:
    found = sweep(
        *(row(name, loss, "candidate") for name, loss in (("recommended", 0.1), ("baseline", 0.2), ("another", 0.21))), stage="confirm"
    )
    lines = plain(plots.candidates_plot(found, {}, 80))
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["recommended", "baseline", "another"]


def test_each_seed_is_a_point_and_the_interval_a_line() -> None:
    found = sweep(row(1e-3, 0.3, val_loss_low=0.25, val_loss_high=0.36, trials=("a", "b")), row(1e-2, 0.5, trials=("c",)))
    first, second = [line for line in plain(plots.candidates_plot(found, records(a=0.28, b=0.32, c=0.5), 80)) if "┤" in line]
    assert first.count("○") == 2
    low, mean, high = first.index("─"), first.index("●"), first.rindex("─")
    assert low < first.index("○") < mean < first.rindex("○") < high
    assert "─" not in second


def test_far_off_losses_stand_at_the_edge_and_failures_say_what_they_are() -> None:
    found = sweep(row(1e-4, 0.3), row(1e-3, 0.32), row(1e-2, 40.0), row(1.0, math.nan, verdict="out_of_memory"))
    lines = [line for line in plain(plots.candidates_plot(found, {}, 80)) if "┤" in line]
    assert lines[2].endswith("40 ▶│")
    assert "out of memory" in lines[3]
    assert abs(lines[0].index("●") - lines[1].index("●")) > 20, "the near ones are told apart"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1e-3, 0.3)],
        [row(1e-3, math.nan), row(1e-2, math.inf), row(1.0, 0.5)],
    ],
    ids=["none", "one", "one usable"],
)
def test_what_has_nothing_to_compare_is_not_drawn(rows: list[Row]) -> None:
    assert plots.stage_plots(sweep(*rows), {}, 80) == []
    assert plots.stage_plots(ramps(), {}, 80) == []
    assert plots.stage_plots(ramps(([2.0, *[math.nan] * 20], [math.nan] * 21)), {}, 80) == []


ODD: dict[str, Callable[[], Conclusion]] = {
    "all equal": lambda: sweep(*(row(10.0**-i, 0.3) for i in range(5))),
    "all zero": lambda: sweep(*(row(10.0**-i, 0.0) for i in range(5))),
    "negative": lambda: sweep(*(row(10.0**-i, -0.3 - i) for i in range(5))),
    "tiny": lambda: sweep(*(row(10.0**-i, 5e-324 * (1 + i)) for i in range(5))),
    "huge": lambda: sweep(*(row(10.0**-i, 1e99 * (1 + i)) for i in range(5))),
    "a hundred": lambda: sweep(*(row(i, 0.3 + i, chosen=i == 90) for i in range(100))),
    "words": lambda: sweep(*(row(value, 0.3) for value in ("relu", True, 3, "\x1b[31mred", "long " * 3))),
    "flat ramps": lambda: ramps(([2.0] * 21, [2.0] * 21), ([0.0] * 21, [math.nan] * 21), suggested=1e-3),
    "ramps": lambda: ramps((LOSSES, LOSSES), (LOSSES[::-1], LOSSES), suggested=1e9, low=1e-9, high=1e12),
}


@pytest.mark.parametrize("width", [50, 80, 300])
@pytest.mark.parametrize("kind", ODD)
def test_odd_data_are_drawn_within_the_width(kind: str, width: int) -> None:
    lines = plots.stage_plots(ODD[kind](), {}, width)
    assert len(lines) >= 7, "it is drawn"
    assert len(lines) <= 27, "and no longer than a screen"
    shown = plain(lines)
    assert max(map(len, shown)) <= min(width, plots.WIDEST)
    assert not any(mark in line for line in shown for mark in "\x1b\x07")
    if kind == "words" and width > 50:
        assert any("\\x1b[31mred┤" in line for line in shown), "what a config holds steers no terminal"


def test_of_a_hundred_the_best_and_the_chosen_are_shown() -> None:
    lines = plain(plots.candidates_plot(ODD["a hundred"](), {}, 80))
    assert "the best 20 of 100" in lines[0]
    assert sum("┤" in line for line in lines) == 21
    assert any("→ 90┤" in line for line in lines)


@pytest.mark.parametrize("width", [1, 20, 49])
def test_a_terminal_too_narrow_gets_no_plot(width: int) -> None:
    assert plots.stage_plots(ODD["ramps"](), {}, width) == []


def told(*, quiet: bool = False, encoding: str = "utf-8", **settings: Any) -> str:
    """What a terminal shows of a conclusion with two candidates."""
    console, shown = Console(quiet=quiet), io.BytesIO()
    file = io.TextIOWrapper(shown, encoding=encoding, errors="replace", write_through=True)
    console.terminal = Terminal(file=file, **{"force_terminal": True, "width": 80, "highlight": False, **settings})
    event = StageConcluded(conclusion=sweep(row(1e-3, 0.3, chosen=True), row(1e-2, 0.5)))
    follow(iter([event]), console, stages=("weight_decay",), where="cpu", metric="accuracy", clock=lambda: 0.0)
    return shown.getvalue().decode(encoding)


def test_plots_are_for_terminals_that_can_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "●" in told()
    for elsewhere in ({"quiet": True}, {"force_terminal": False}, {"encoding": "latin-1"}, {"width": 30}):
        assert "val loss by" not in told(**elsewhere), elsewhere
    monkeypatch.setenv("TERM", "dumb")
    assert "●" not in told()


def test_a_plot_that_cannot_be_drawn_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(plots, "range_plot", broken)
    assert plots.stage_plots(sweep(row(1e-3, 0.3), row(1e-2, 0.5)), {}, 80)[0] == "val loss by weight decay"
