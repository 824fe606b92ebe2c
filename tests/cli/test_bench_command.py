"""`hptune bench`: its table, its sentences, its document. One real measurement; the rest is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Hptune
from outside import hold

from hptune.cli.bench import conclusions, sizes_to_measure, speed_table, troubles
from hptune.config.schema import Experiment
from hptune.engine.bench import Speed
from hptune.errors import ConfigError

QUICK = ("--set", "model.name=linear", "--seconds", "0.01")
FIELDS = {
    "batch_size", "status", "seconds", "compute_seconds", "reading_seconds", "augmentation_seconds", "steps", "spread", "flops",
    "peak_flops", "memory", "error", "samples_per_second", "outside_compute", "outside", "flops_per_second", "peak_share",
}  # fmt: skip


def row(size: int, ms: float, **changes: Any) -> Speed:
    times = {"compute_seconds": ms / 1e3, "reading_seconds": 0.0}
    return Speed(batch_size=size, seconds=ms / 1e3, memory=2**30, flops=size * 1e9, **{**times, **changes})


ROWS = (row(32, 10), row(64, 10), row(128, 18), row(256, 36.5))


def test_bench_measures_and_writes_nothing(hptune: Hptune, project: Path) -> None:
    before = sorted(project.rglob("*"))
    answer = hptune("bench", "c.yaml", *QUICK, "--json")
    assert answer.status == 0
    document = hold(answer.out, "speeds")
    assert [found["batch_size"] for found in document["rows"]] == [64, 128], "the baseline's and the stage's"
    assert all(set(found) == FIELDS and found["status"] == "measured" for found in document["rows"])
    assert document["name"] == "made up"
    assert (document["device"], document["precision"], document["threads"]) == ("cpu", "fp32", 1)
    assert document["notes"] == [] or "step times vary" in document["notes"][0]
    assert document["sentences"][0].startswith("batch size ")
    assert "samples/s" in answer.err
    assert sorted(project.rglob("*")) == before


def test_quiet_leaves_the_table_and_what_it_says(hptune: Hptune) -> None:
    answer = hptune("bench", "c.yaml", *QUICK, "--batch-sizes", "32", "--quiet")
    assert answer.status == 0
    assert "ms/step" in answer.out.splitlines()[0]
    assert "next:" not in answer.out
    answer = hptune("bench", "c.yaml", *QUICK, "--batch-sizes", "32")
    assert [text for text in ("fp32", "memory is the peak") if text not in answer.out] == []
    assert answer.out.rstrip().endswith("hptune sweep batch-size c.yaml --set model.name=linear")


def test_where_nothing_could_be_measured_the_command_fails(hptune: Hptune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hptune.engine.bench.bench", lambda *_, **__: (Speed(batch_size=64, status="out_of_memory"),))
    answer = hptune("bench", "c.yaml")
    assert answer.status == 1
    assert "batch size 64 does not fit into memory" in answer.out
    assert answer.err == "error: no batch size could be measured\n"


def test_a_baseline_larger_than_the_data_is_placed(hptune: Hptune) -> None:
    answer = hptune("bench", "c.yaml", "--set", "data.limit=40")
    assert answer.status == 2
    assert "c.yaml:4: baseline.batch_size" in answer.err


@pytest.mark.parametrize(
    ("stage", "expected"), [({"values": [32, 64, 5000]}, [16, 32, 64]), (False, [16])], ids=["those that fit", "stage off"]
)
def test_sizes_are_the_baseline_s_and_the_stage_s(stage: Any, expected: list[int]) -> None:
    tree = {"data": {"name": "digits"}, "model": {"name": "mlp"}, "baseline": {"batch_size": 16}, "stages": {"batch_size": stage}}
    experiment = Experiment.model_validate(tree)
    assert sizes_to_measure(experiment, 1000, None) == expected
    assert sizes_to_measure(experiment, 1000, [8, 4]) == [4, 8]
    with pytest.raises(ConfigError, match=r"baseline\.batch_size: batch size 16 is more than the 10"):
        sizes_to_measure(experiment, 10, None)


def test_the_smallest_size_that_suffices_is_named() -> None:
    assert conclusions(ROWS, baseline=32) == [
        "batch size 128 is the fastest measured: 7,111 samples/s; the baseline's 32 reaches 45 % of the best"
    ]
    nearly = (row(64, 10), row(128, 19.5))
    assert conclusions(nearly, baseline=64) == ["batch size 64 is the smallest within 5 % of the best throughput: 6,400 samples/s"]


def test_where_speed_still_rises_it_is_said() -> None:
    assert conclusions(ROWS[:2], baseline=64) == ["batch size 64 is the fastest measured: 6,400 samples/s; larger ones may be faster still"]
    ended = (*ROWS[:2], Speed(batch_size=128, status="out_of_memory"))
    assert conclusions(ended, baseline=64) == ["batch size 64 is the fastest measured: 6,400 samples/s"]
    assert troubles(ended) == ["batch size 128 does not fit into memory; larger ones were not tried"]


def test_unsteady_timings_are_admitted() -> None:
    assert troubles([row(32, 10, spread=0.05)]) == []
    (note,) = troubles([row(32, 10, spread=0.05), row(64, 10, spread=0.3)])
    assert "vary by 30 %" in note
    assert "--seconds" in note


def test_much_time_outside_compute_is_traced_to_its_place() -> None:
    slow = row(64, 10, compute_seconds=0.004, reading_seconds=0.001, augmentation_seconds=0.0045)
    assert conclusions([slow], baseline=64) == [
        "batch size 64: 6,400 samples/s",
        "at batch size 64, 60 % of a step's time is not compute: augmentation 45 %, data reading 10 %, Python 5.0 %",
    ]
    assert len(conclusions([row(64, 10, compute_seconds=0.0085)], baseline=64)) == 1


def test_the_table_fits_80_columns_with_what_matters() -> None:
    on_gpu = [row(size.batch_size, size.seconds * 1e3, peak_flops=989e12) for size in ROWS if size.seconds]
    table = speed_table([*on_gpu, Speed(batch_size=512, status="out_of_memory")], baseline=64).fitted(78)
    assert max(map(len, table.lines())) <= 78
    titles = [column.title for column in table.columns]
    assert [title for title in ("ms/step", "samples/s", "not compute", "of peak", "memory") if title not in titles] == []
    assert table.marked == {2}
    assert table.lines()[3].startswith("→")
    assert table.lines()[2].endswith("baseline")
    assert table.lines()[5].endswith("too large")
