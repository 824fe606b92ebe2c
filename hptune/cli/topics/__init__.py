"""What `hptune explain` says: one function a topic, whose numbers are read from the code that decides by them.

A text is paragraphs parted by blank lines; line breaks inside one mean nothing. Modules are imported when a text is asked for, so that
the list of topics costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hptune.cli.topics import evidence, output, paper, running, search, stages


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its name on the command line, one line on it, and what writes its text; `as_written`: line breaks in it mean something."""

    name: str
    title: str
    write: Callable[[], str]
    as_written: bool = False

    def text(self) -> str:
        """The paragraphs, each on a line of its own, blank lines between."""
        if self.as_written:
            return self.write()
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in self.write().strip().split("\n\n"))


TOPICS = {
    topic.name: topic
    for topic in (
        Topic("lr-range", "stage 1: how a maximum learning rate is found and checked", stages.lr_range),
        Topic("batch-size", "stage 2: batch sizes at equal compute time", stages.batch_size),
        Topic("momentum", "stage 3: which momentum, and why it moves against the LR", stages.momentum),
        Topic("weight-decay", "stage 4: the grid, its edges, bisection, the timescale", stages.weight_decay),
        Topic("refine", "stage 5: longer runs and joint proposals", stages.refine),
        Topic("confirm", "stage 6: full length, fresh seeds, against your baseline", stages.confirm),
        Topic("key-sweep", "sweeping any other config key", stages.key_sweep),
        Topic("one-cycle", "the schedule, in its three shapes", search.one_cycle),
        Topic("transfer", "from the short runs to the full length", search.transfer),
        Topic("budget", "what a search costs, and who gets how much of it", search.budget),
        Topic("statistics", "noise, choosing, claiming, and who gets another seed", evidence.statistics),
        Topic("verdicts", "best, tied, worse, and what did not complete", evidence.verdicts),
        Topic("clues", "underfitting, overfitting, unstable, and their causes", evidence.clues),
        Topic("paper", "the report's claims tried again: what held, and what follows", paper.paper),
        Topic("reproducibility", "what makes two runs give the same numbers", running.reproducibility),
        Topic("continuing", "the journal, kills, damage and --salvage", running.continuing),
        Topic("executors", "where trials run, how many at once, and what if one dies", running.executors),
        Topic("cluster", "Ray: many machines, what travels there, what if a node is lost", running.cluster),
        Topic("json", "what --json prints: every key of every document", output.json, as_written=True),
    )
}
ALSO_CALLED = {"wd": "weight-decay", "1cycle": "one-cycle"}


def topic_called(given: str) -> str:
    """The topic's name for what was given: underscores as in configs, and capitals, are taken as well."""
    name = given.lower().replace("_", "-")
    return ALSO_CALLED.get(name, name)
