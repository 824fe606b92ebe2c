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
    """Print the recommendation, what it is worth, where the files are and what to type next; or that there is none."""
    found = run.recommendation
    console.say()
    if found is None:
        console.say("no recommendation yet: no stage is finished", "bold")
        return
    console.say("recommendation", "bold")
    console.table(recommendation_table(found, run.loaded.experiment.budget.epochs if run.loaded else None))
    console.say(f"{gain_sentence(found)}.", "bold")
    for offer in found.offers:
        console.say(f"note: {offer.sentence}", "yellow")
    root, layout = run.layout.root, run.layout
    console.remark()
    written = [path for path in (layout.recommended, layout.tables, layout.report, layout.figures) if path.exists()]
    if written:
        console.remark(f"written to {shown(root)}: {', '.join(path.name + '/' * path.is_dir() for path in written)}", "dim")
    if not console.quiet:
        target = shown(layout.recommended)
        console.verbatim(words.next_commands([["train", target], ["export", shown(root), "--to", "pytorch"]]))


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
