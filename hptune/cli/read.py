"""Commands that read a run directory and train nothing: `recommend`, `show`, `compare`, `runs`, `report`, `export`. None imports torch."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hptune.cli import completion
from hptune.cli.options import ConfigOptions, OptionalRunDir, Options, OutputOptions, RunDirectory, Sets, spread_options
from hptune.errors import HptuneError, InputError, RunDirectoryError

if TYPE_CHECKING:
    from hptune.cli.console import Console
    from hptune.config.loader import LoadedConfig
    from hptune.report.run import Run

Source = Annotated[
    Path,
    typer.Argument(metavar="CONFIG|RUN_DIR", help="A config, or a run directory.", show_default=False, autocompletion=completion.sources),
]
RunDirectories = Annotated[
    list[Path],
    typer.Argument(metavar="RUN_DIR RUN_DIR...", help="Run directories.", show_default=False, autocompletion=completion.run_directories),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Where run directories lie.")]
Stage = Annotated[
    str | None,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="One stage only, e.g. momentum.",
        show_default=False,
        autocompletion=completion.words(completion.STAGES),
    ),
]
Salvage = Annotated[bool, typer.Option("--salvage", help="Leave damaged lines out of the journal, keeping the damaged file; then go on.")]
Target = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="NAME",
        help="pytorch, lightning, fastai, huggingface, timm or optuna.",
        show_default=False,
        autocompletion=completion.words(completion.TOOLS),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("recommend", epilog="Example: hptune recommend digits.yaml")(recommend)
    app.command("show", epilog="Example: hptune show runs/digits --stage weight_decay")(show)
    app.command("compare", epilog="Example: hptune compare runs/digits runs/digits.old-1")(compare)
    app.command("runs", epilog="Example: hptune runs --json")(runs)
    app.command("report", epilog="Example: hptune report runs/digits")(report)
    app.command("export", epilog="Example: hptune export runs/digits --to lightning")(export)


@spread_options
def recommend(source: Source, options: OutputOptions, run_dir: OptionalRunDir = None, sets: Sets = None, salvage: Salvage = False) -> None:
    """Rank what was run so far; write recommended.yaml and the tables. Trains nothing."""
    from hptune import report as reports
    from hptune.cli.documents import run_document
    from hptune.cli.summary import show_recommendation

    console = options.console()
    root, loaded = source, None
    if not source.is_dir():
        loaded = ConfigOptions(sets=sets).load(source)
        root = _run_directory_of(source, loaded, run_dir)
    elif run_dir is not None:
        raise InputError(f"give a config with --run-dir, or the run directory alone: {source} is a folder")
    if salvage:
        _salvage(root, console)
    run = load_run(root)
    if loaded is not None:
        _note_differences(source, loaded, run, console)
    if run.recommendation is None:
        raise HptuneError(f"{run.layout.root}: nothing to recommend yet, no stage is finished; go on with: {_going_on(run)}")
    reports.write_results(run)
    for note in run.notes:
        console.say(f"note: {note}", "yellow")
    show_recommendation(run, console)
    if options.json:
        console.document(run_document(run))


@spread_options
def show(run_dir: RunDirectory, options: OutputOptions, stage: Stage = None) -> None:
    """Show the tables of a run."""
    from hptune.cli.documents import run_document
    from hptune.cli.summary import show_next, show_recommendation, show_stages, shown

    console = options.console()
    run = load_run(run_dir)
    stages = [run.stage(_stage_name(stage, run))] if stage is not None else list(run.stages)
    if options.json:
        console.document(run_document(run, tuple(found.name for found in stages)))
        return
    console.say(f"{run.name}: {run.state}, {len(run.records)} trials in {run.layout.root}")
    for note in run.notes:
        console.say(f"note: {note}", "yellow")
    show_stages(run, stages, console)
    if stage is None:
        show_recommendation(run, console)
    else:
        show_next([["show", shown(run_dir)]], console)


@spread_options
def compare(run_dirs: RunDirectories, options: OutputOptions) -> None:
    """Show runs side by side: settings that differ, cost, recommendations, and what confirm showed."""
    from hptune.cli.comparison import comparison_document, comparison_notes, comparison_tables, differences, given_twice
    from hptune.cli.summary import show_next

    if len(run_dirs) < 2:
        raise InputError(f"{run_dirs[0]} alone: this command compares two run directories or more; hptune show shows one")
    if (twice := given_twice(run_dirs)) is not None:
        raise InputError(f"{twice} is given twice")
    for path in run_dirs:
        require_run_directory(path)
    compared = [load_run(path) for path in run_dirs]
    console = options.console()
    if options.json:
        console.document(comparison_document(compared))
        return
    for note in comparison_notes(compared):
        console.say(f"note: {note}", "yellow")
    for heading, table in comparison_tables(compared, console.width):
        if not table.rows:
            continue
        if heading:
            console.say(heading, "bold")
        console.table(table)
        console.say()
    for sentence in differences(compared):
        console.say(sentence, "bold")
    show_next([["show", str(path)] for path in run_dirs], console)


@spread_options
def runs(options: OutputOptions, folder: Folder = Path("runs")) -> None:
    """List the run directories in a folder."""
    from hptune.cli.documents import run_summary
    from hptune.cli.results import runs_table
    from hptune.cli.summary import show_next
    from hptune.report import load

    console = options.console()
    if not folder.is_dir() and folder != Path("runs"):
        raise InputError(f"{folder} is no folder")
    summaries: list[dict[str, Any]] = []
    for root in _run_directories(folder):
        try:
            summaries.append(run_summary(load(root)))
        except RunDirectoryError as error:
            summaries.append({"run_dir": str(root), "name": root.name, "state": "unreadable", "error": str(error)})
    if options.json:
        console.document(summaries)
    elif summaries:
        console.table(runs_table(summaries))
        readable = [summary["run_dir"] for summary in summaries if "error" not in summary]
        show_next([*([["show", readable[0]]] if readable else []), *([["compare", *readable[:2]]] if len(readable) > 1 else [])], console)
    else:
        console.say(f"no run directories in {folder}")
        show_next([["init"]], console)


@spread_options
def report(run_dir: RunDirectory, options: Options) -> None:
    """Write report.html and the PNG figures, from the run directory alone."""
    from hptune import report as reports
    from hptune.cli.summary import next_after, show_next, shown

    run, console = load_run(run_dir), options.console()
    reports.write_report(run)
    console.say(f"wrote {shown(run.layout.report)} and {shown(run.layout.figures)}")
    show_next(next_after(run), console)


@spread_options
def export(run_dir: RunDirectory, to: Target, options: Options) -> None:
    """Print the recommendation in another tool's own form, on standard output."""
    from hptune.report.export import export as export_text

    options.console().output(export_text(load_run(run_dir), to))


def load_run(path: Path) -> Run:
    """Read a run directory given on the command line. Raises InputError where it is none, with one that was probably meant."""
    from hptune.report import load

    require_run_directory(path)
    return load(path)


def require_run_directory(path: Path) -> None:
    """Raise InputError where `path` is no run directory, naming one that was probably meant."""
    from hptune.store.layout import is_run_directory

    if not is_run_directory(path):
        if path.is_file():
            raise InputError(f"{path} is a file, and this command needs a run directory, such as runs/{path.stem}")
        near = difflib.get_close_matches(path.name, [root.name for root in _run_directories(path.parent)], n=1)
        meant = f"; did you mean {path.parent / near[0]}?" if near else "; hptune runs lists those there are"
        raise InputError(f"{path} is no run directory{meant}")


def _run_directory_of(source: Path, loaded: LoadedConfig, run_dir: Path | None) -> Path:
    from hptune.session import default_run_dir
    from hptune.store.layout import is_run_directory

    root = run_dir or default_run_dir(loaded.experiment)
    if not is_run_directory(root):
        raise InputError(f"{root} holds no run of {source} yet: hptune run {source} makes one, --run-dir names another")
    return root


def _going_on(run: Run) -> str:
    from hptune.cli import words
    from hptune.cli.summary import shown

    return shlex.join(["hptune", *words.going_on(shown(run.layout.root))])


def _salvage(root: Path, console: Console) -> None:
    from hptune.cli.summary import shown
    from hptune.store.layout import RunLayout
    from hptune.store.salvage import salvage

    require_run_directory(root)
    found = salvage(RunLayout(root))
    if found.kept is None:
        console.say("note: no line of the journal is damaged", "yellow")
        return
    lines = f"line{'s' * (len(found.lines) > 1)} {', '.join(map(str, found.lines))}"
    console.say(f"note: left {lines} out of the journal; the damaged file is kept as {shown(found.kept)}", "yellow")
    console.say("note: the command that made this run goes on with it, and runs again only what was in them", "yellow")


def _note_differences(source: Path, loaded: LoadedConfig, run: Run, console: Console) -> None:
    from hptune.cli.results import differing_keys

    if run.loaded is None:
        return
    keys = differing_keys(loaded.experiment.model_dump(), run.loaded.experiment.model_dump())
    if keys:
        console.say(f"note: {source} differs from what was run in {', '.join(keys)}; the recommendation is of what was run", "yellow")


def _run_directories(folder: Path) -> list[Path]:
    from hptune.store.layout import is_run_directory

    if is_run_directory(folder):
        return [folder]
    return sorted(root for root in folder.iterdir() if is_run_directory(root)) if folder.is_dir() else []


def _stage_name(given: str, run: Run) -> str:
    """The stage as the command line or a table names it: `wd`, `weight-decay` and `weight_decay` are one."""
    from hptune.cli.search import STAGES_BY_WORD

    names = {stage.name for stage in run.stages}
    return given if given in names else STAGES_BY_WORD.get(given.replace("_", "-"), given.replace("-", "_"))
