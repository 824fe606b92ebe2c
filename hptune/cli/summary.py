"""Showing a run that is there: its stages, its recommendation, its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hptune.cli import words
from hptune.cli.console import Console
from hptune.cli.results import finding, gain_sentence, recommendation_table, stage_table

if TYPE_CHECKING:
    from hptune.analysis.recommendation import Conclusion
    from hptune.report.run import Run, StageResult
    from hptune.trial import TrialRecord


def show_stages(run: Run, stages: Sequence[StageResult], console: Console) -> None:
    """Print each stage's sentence, notes, plots and table."""
    metric = run.loaded.experiment.metric.name if run.loaded else None
    for stage in stages:
        console.say()
        if stage.conclusion is None:
            console.say(f"{words.title(stage.name)}: no trial is done yet", "bold")
            continue
        console.say(finding(stage.conclusion), "bold")
        for note in stage.conclusion.notes:
            console.say(f"note: {note}", "yellow")
        show_plots(stage.conclusion, stage.records, console)
        console.table(stage_table(stage.conclusion, metric or "metric"))


def show_plots(conclusion: Conclusion, records: Iterable[TrialRecord], console: Console) -> None:
    """Draw what a stage found, on a terminal; piped output stays lines of text."""
    if not console.draws:
        return
    from hptune.cli.plots import stage_plots

    console.plot(stage_plots(conclusion, {record.trial_id: record for record in records}, console.width))


def show_recommendation(run: Run, console: Console) -> None:
    """Print the recommendation, what it is worth, where the files are; or that there is none. Then what to type next."""
    found = run.recommendation
    console.say()
    if found is None:
        alone = "a full training alone: there is nothing to recommend before a stage is run"
        console.say(alone if run.records and not run.stages else "no recommendation yet: no stage is finished", "bold")
        show_next(next_after(run), console)
        return
    console.say("recommendation", "bold")
    console.table(recommendation_table(found, run.loaded.experiment.budget.epochs if run.loaded else None))
    console.say(f"{gain_sentence(found)}.", "bold")
    for offer in found.offers:
        console.say(f"note: {offer.sentence}", "yellow")
    layout = run.layout
    console.remark()
    written = [path for path in (layout.recommended, layout.tables, layout.report, layout.figures) if path.exists()]
    if written:
        console.remark(f"written to {shown(layout.root)}: {', '.join(path.name + '/' * path.is_dir() for path in written)}", "dim")
    show_next(next_after(run), console)


def next_after(run: Run) -> list[list[str]]:
    """What one would type next: go on where stages are missing, use the recommendation where there is one."""
    root = shown(run.layout.root)
    going_on = [words.going_on(root)] if run.state in ("empty", "unfinished") or run.ahead else []
    if run.recommendation is None:
        return going_on
    written = run.layout.recommended.exists()
    using = [["train", shown(run.layout.recommended)], ["export", root, "--to", "pytorch"]] if written else [["recommend", root]]
    return [*going_on, *using]


def show_next(commands: Sequence[Sequence[str]], console: Console) -> None:
    """Print commands to type next; --quiet leaves them out."""
    if commands and not console.quiet:
        console.verbatim(words.next_commands(commands))


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere; or the current folder is gone, as that of a cluster's job is at its end
        return str(path)
