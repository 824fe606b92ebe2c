"""`hptune bench`: how fast a model trains on its data by batch size, and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hptune.cli import words
from hptune.cli.options import ConfigFile, MeasuringOptions, spread_options
from hptune.cli.tables import Column, Table
from hptune.errors import ConfigError, HptuneError, InputError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.config.schema import Experiment
    from hptune.engine.bench import Speed
    from hptune.trial import Task

MUCH = 0.2  # a share of time outside compute worth a sentence
UNSTEADY = 0.1  # a spread of step times at which rows may stand in the wrong order
STATUSES = {"out_of_memory": "too large", "not_tried": "not tried", "failed": "failed"}
PLACES = {"reading": "data reading", "augmentation": "augmentation", "python": "Python"}
BatchSizes = Annotated[
    str | None,
    typer.Option(
        "--batch-sizes", metavar="A,B,C", help="Batch sizes to measure, instead of the baseline's and those of stages.batch_size.",
        show_default=False,
    ),
]  # fmt: skip
Seconds = Annotated[float, typer.Option("--seconds", metavar="S", help="Time to spend on each batch size.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("bench", epilog="Example: hptune bench digits.yaml --batch-sizes 32,64,128 --set executor.threads=2")(bench)


@spread_options
def bench(config: ConfigFile, options: MeasuringOptions, batch_sizes: BatchSizes = None, seconds: Seconds = 1.0) -> None:
    """Measure how fast training goes by batch size: step time, samples per second, what is lost outside compute. Writes nothing."""
    from hptune.cli.console import output_reserved

    asked = parse_sizes(batch_sizes) if batch_sizes is not None else None
    if not 0 < seconds < math.inf:
        raise InputError(f"--seconds needs a number above 0, got {seconds:g}")
    console = options.console()
    loaded = options.load(config)
    with options.blamed(loaded), output_reserved(options.json):
        console.remark(f"{loaded.experiment.name}: opening data and model", "dim")
        task, rows = _measure(loaded.experiment, asked, seconds, console)
    baseline = loaded.experiment.baseline.batch_size
    sentences = conclusions(rows, baseline)
    console.table(speed_table(rows, baseline))
    notes = troubles(rows)
    for note in notes:
        console.say(f"note: {note}", "yellow")
    for sentence in sentences:
        console.say(sentence, "bold")
    if options.json:
        from hptune.cli.documents import bench_document

        console.document(bench_document(loaded.experiment.name, task, rows, sentences, notes))
    if not sentences:
        raise HptuneError("no batch size could be measured")
    console.verbatim([] if console.quiet else words.next_commands([["sweep", "batch-size", str(config), *options.repeated()]]))


def parse_sizes(text: str) -> list[int]:
    """Return the batch sizes that `text` lists. Raises InputError."""
    sizes = []
    for word in text.split(","):
        if not word.strip().isdecimal() or int(word) < 1:
            raise InputError(f"--batch-sizes needs whole numbers of at least 1, such as 32,64,128; got {word.strip()!r}")
        sizes.append(int(word))
    return sizes


def sizes_to_measure(experiment: Experiment, train_samples: int, asked: Sequence[int] | None) -> list[int]:
    """Return the batch sizes `asked` for, or else those of the baseline and of the batch-size stage that fit into the training part.

    Raises ConfigError where one asked for does not, or not even the baseline's.
    """
    stage = experiment.stages.batch_size
    others = asked if asked is not None else [size for size in (stage.values if stage else ()) if size <= train_samples]
    sizes = sorted({*others, *([] if asked is not None else [experiment.baseline.batch_size])})
    if sizes[-1] > train_samples:
        message = f"batch size {sizes[-1]:,} is more than the {train_samples:,} training samples"
        raise ConfigError(message, **({"key": "baseline.batch_size"} if asked is None else {"where": "--batch-sizes"}))
    return sizes


def conclusions(rows: Sequence[Speed], baseline: int) -> list[str]:
    """What the rows say: which batch size suffices, and what its step loses outside compute; nothing where none was measured."""
    from hptune.stages.batch_size import SATURATED, smallest_saturated

    rates = {row.batch_size: row.samples_per_second for row in rows if row.samples_per_second}
    if not rates:
        return []
    best = max(rates, key=lambda size: rates[size])
    enough = smallest_saturated({row.batch_size: row.seconds for row in rows if row.seconds})
    text = f"batch size {enough} is the fastest measured" if len(rates) > 1 else f"batch size {enough}"
    if enough != best:
        text = f"batch size {enough} is the smallest within {100 * (1 - SATURATED):.0f} % of the best throughput"
    text += f": {rates[enough]:,.0f} samples/s"
    if baseline in rates and baseline < enough:
        text += f"; the baseline's {baseline} reaches {words.percent(rates[baseline] / rates[best])} of the best"
    if len(rates) > 1 and enough == max(row.batch_size for row in rows):
        text += "; larger ones may be faster still"
    return [text, *_lost(next(row for row in rows if row.batch_size == enough))]


def troubles(rows: Sequence[Speed]) -> list[str]:
    """What went wrong at which batch size, and whether the timings are to be trusted."""
    texts = {
        "failed": "batch size {0.batch_size} failed: {0.error}",
        "out_of_memory": "batch size {0.batch_size} does not fit into memory; larger ones were not tried",
    }
    notes = [texts[row.status].format(row) for row in rows if row.status in texts]
    spread = max((row.spread for row in rows if row.spread is not None), default=0.0)
    if spread > UNSTEADY:
        notes.append(f"step times vary by {words.percent(spread)}: is the machine busy with something else? A larger --seconds helps")
    return notes


def _lost(row: Speed) -> list[str]:
    """Where the time outside compute goes, if it is much."""
    if row.outside_compute is None or row.outside_compute <= MUCH:
        return []
    shares = sorted(row.outside.items(), key=lambda pair: -pair[1])
    places = ", ".join(f"{PLACES[name]} {words.percent(share)}" for name, share in shares if share >= 0.01)
    return [f"at batch size {row.batch_size}, {words.percent(row.outside_compute)} of a step's time is not compute: {places}"]


def speed_table(rows: Sequence[Speed], baseline: int) -> Table:
    """One row a batch size, the smallest that suffices marked."""
    from hptune.stages.batch_size import smallest_saturated

    columns = (
        Column(title="", importance=8, words=True),
        Column(title="batch size", importance=10),
        Column(title="ms/step", importance=8),
        Column(title="samples/s", importance=9),
        Column(title="not compute", importance=7),
        Column(title="reading", importance=1),
        Column(title="augment", importance=1),
        Column(title="Python", importance=1),
        Column(title="GFLOP/s", importance=4),
        Column(title="of peak", importance=6),
        Column(title="memory", importance=5),
        Column(title="", importance=8, words=True),
    )
    timed = {row.batch_size: row.seconds for row in rows if row.seconds}
    enough = smallest_saturated(timed) if timed else None
    cells = tuple(_cells(row, marked=row.batch_size == enough, baseline=row.batch_size == baseline) for row in rows)
    return Table(columns=columns, rows=cells, marked=frozenset(i for i, row in enumerate(rows) if row.batch_size == enough))


def _cells(row: Speed, *, marked: bool, baseline: bool) -> tuple[str, ...]:
    outside = {name: words.percent(share) for name, share in row.outside.items()}
    return (
        "→" if marked else "",
        str(row.batch_size),
        words.number(row.seconds * 1e3) if row.seconds else "",
        f"{row.samples_per_second:,.0f}" if row.samples_per_second else "",
        words.percent(row.outside_compute),
        outside.get("reading", ""),
        outside.get("augmentation", "") if row.augmentation_seconds is not None else "",
        outside.get("python", ""),
        words.number(row.flops_per_second / 1e9) if row.flops_per_second else "",
        words.percent(row.peak_share),
        words.memory(row.memory) if row.memory is not None else "",
        STATUSES.get(row.status, "baseline" if baseline else ""),
    )


def facts(task: Task) -> list[str]:
    """What the numbers were measured on."""
    n = task.numerics
    memory = {"cuda": "of tensors on the device, the data set's included", "cpu": "of the whole process so far, libraries included"}
    lines = [
        f"{task.train_samples:,} training samples; {words.count(task.parameters, 'parameter')}",
        f"{words.device(n)}, {words.numerics(n)}",
    ]
    return [*lines, f"memory is the peak {memory[n.device]}"] if n.device in memory else lines


def _measure(experiment: Experiment, asked: Sequence[int] | None, seconds: float, console: Console) -> tuple[Task, tuple[Speed, ...]]:
    from hptune.engine.problem import open_problem

    problem = open_problem(experiment)
    sizes = sizes_to_measure(experiment, problem.task.train_samples, asked)
    from hptune.engine.bench import bench as measure

    for line in facts(problem.task):
        console.remark(line, "dim")
    for note in problem.task.notes:
        console.say(f"note: {note}", "yellow")
    now = [sizes[0]]
    with console.live_line(lambda _: f"measuring batch size {now[-1]}, {sizes.index(now[-1]) + 1} of {len(sizes)}"):
        return problem.task, measure(problem, sizes, seconds=seconds, begin=now.append)
