"""`hptune explain`: how the method works, in a few lines a topic. Reads nothing but the program itself."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from hptune.cli import completion
from hptune.cli.options import OutputOptions, spread_options
from hptune.cli.tables import Column, Table
from hptune.cli.topics import TOPICS, topic_called
from hptune.errors import InputError, abridged, printable

LONGEST_SHOWN = 60
OptionalTopic = Annotated[
    str | None, typer.Argument(metavar="TOPIC", help=f"{', '.join(TOPICS)}.", show_default=False, autocompletion=completion.words(TOPICS))
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("explain", epilog="Example: hptune explain weight-decay")(explain)


@spread_options
def explain(options: OutputOptions, topic: OptionalTopic = None) -> None:
    """Say how the method works and why, in a few lines a topic. Without TOPIC: the list of topics."""
    console = options.console()
    if topic is None:
        if options.json:
            console.document([{"topic": found.name, "title": found.title} for found in TOPICS.values()])
        else:
            console.table(_list())
            console.say("hptune explain TOPIC says more")
        return
    name = topic_called(topic)
    if name not in TOPICS:
        near = difflib.get_close_matches(name, TOPICS, n=1)
        meant = f"did you mean {near[0]}?" if near else "hptune explain lists those there are"
        raise InputError(f"there is no topic {printable(abridged(topic, LONGEST_SHOWN))!r}; {meant}")
    found = TOPICS[name]
    if options.json:
        from hptune.cli.schemas import DOCUMENTS

        schemas = {document: schema for document, (_, schema) in DOCUMENTS.items()} if name == "json" else {}
        console.document({"topic": found.name, "title": found.title, "text": found.text(), "schemas": schemas})
        return
    console.say(f"{found.name}: {found.title}", "bold")
    console.say()
    console.prose(found.text())


def _list() -> Table:
    columns = (Column(title="topic", words=True), Column(title="what it says", words=True))
    return Table(columns=columns, rows=tuple((topic.name, topic.title) for topic in TOPICS.values()))
