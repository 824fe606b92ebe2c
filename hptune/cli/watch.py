"""`watch`: a run followed from another terminal. It reads the journal alone: no lock, no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hptune.cli.interruption import INTERRUPTED
from hptune.cli.options import OutputOptions, RunDirectory, spread_options
from hptune.errors import InputError

if TYPE_CHECKING:
    from hptune.cli.console import Console

PAUSE = 0.5  # seconds between two looks at the journal
Once = Annotated[bool, typer.Option("--once", help="Show where the run stands now, and end.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("watch", epilog="Example: hptune watch runs/digits")(watch)


@spread_options
def watch(run_dir: RunDirectory, options: OutputOptions, once: Once = False) -> None:
    """Follow a run from another terminal until it ends; changes nothing."""
    from hptune.cli.read import require_run_directory

    require_run_directory(run_dir)
    if options.json and not once:
        raise InputError("hptune watch needs --once with --json: one document says where the run stands now")
    console = options.console()
    try:
        follow_journal(run_dir, console, once=once)
    except KeyboardInterrupt:
        console.say("no longer watching; the run itself is not touched")
        raise typer.Exit(INTERRUPTED) from None


def follow_journal(root: Path, console: Console, *, once: bool = False, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print what happened so far, then what happens; a live line on a terminal, a line an event elsewhere."""
    from hptune.cli import words
    from hptune.cli.documents import standing_document
    from hptune.cli.following import Follower
    from hptune.cli.summary import shown
    from hptune.store.layout import RunLayout, holder_of
    from hptune.store.tail import Tail

    layout = RunLayout(root)
    tail, follower = Tail(layout.journal), Follower(layout.journal)

    def held_and_silent() -> tuple[str, float | None]:
        silence = None if tail.written is None else max(0.0, datetime.now().timestamp() - tail.written)
        holder = holder_of(layout)
        return "" if holder is None else f"process {holder.pid}" if holder.here else str(holder), silence

    _, new = tail.read()
    list(follower.take(new))
    if console.as_json:
        console.document(standing_document(shown(root), follower, *held_and_silent()))
        return
    console.say(f"{shown(root)}: {follower.standing()}")
    for text in follower.findings():
        console.say(text, "bold")
    if once:
        console.say(follower.lines(console.width, *held_and_silent()))
        return
    with console.live_line(lambda width: follower.lines(width, *held_and_silent())):
        while True:
            held = holder_of(layout) is not None  # before the journal: what a process wrote before it let go is read
            replaced, new = tail.read()
            if replaced:
                follower.start_over()
                console.say("the journal was replaced: reading it anew", "yellow")
            for event in follower.take(new):
                if event.kind in ("conclusion", "weights") or not console.live or console.verbose:
                    console.say(event.text, "bold" if event.kind == "conclusion" else "")
            if follower.ended(replaced or bool(new), held):
                break
            sleep(PAUSE)
    console.say(f"no process writes {shown(root)}: {follower.standing()}")
    going_on = [] if follower.whole else [words.going_on(shown(root))]
    console.verbatim(words.next_commands([*going_on, ["show", shown(root)]]))
