"""Printing, and nothing else: what is said is built in `words`, `tables` and `documents`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console as Terminal
from rich.console import JustifyMethod
from rich.live import Live
from rich.table import Table as TerminalTable
from rich.text import Text

from hptune.cli.tables import GAP, Table
from hptune.errors import printable

REFRESH = 2.0  # times a second
COLUMNS = 80  # of prose where there is no terminal
STDOUT, STDERR = 1, 2  # the descriptors that child processes inherit


class Console:
    """Where a command speaks: standard output, or standard error where standard output is for a JSON document.

    On a terminal text is wrapped and stressed; elsewhere lines stay whole and plain.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.terminal = Terminal(stderr=as_json, highlight=False, markup=False, emoji=False)

    @property
    def live(self) -> bool:
        """Whether a line that changes in place can be shown."""
        return self.terminal.is_terminal and not self.terminal.is_dumb_terminal and not self.quiet

    @property
    def draws(self) -> bool:
        """Whether plots can be shown: on a terminal that has their characters."""
        return self.live and self.terminal.encoding.startswith("utf")

    @property
    def width(self) -> int:
        """Characters a line may have: those of the terminal; elsewhere lines stay whole."""
        return self.terminal.width if self.terminal.is_terminal else sys.maxsize

    def say(self, text: str = "", style: str = "") -> None:
        """Print a conclusion: it is said under --quiet as well."""
        self.terminal.print(Text(harmless(text), style=style), soft_wrap=not self.terminal.is_terminal)
        self.terminal.file.flush()

    def remark(self, text: str = "", style: str = "") -> None:
        """Print what --quiet leaves out."""
        if not self.quiet:
            self.say(text, style)

    def prose(self, text: str) -> None:
        """Print paragraphs, one a line of `text`: within the terminal's width, and within `COLUMNS` where there is no terminal."""
        lines = text.split("\n")
        self.say(text if self.terminal.is_terminal else "\n".join(textwrap.fill(line, COLUMNS, break_on_hyphens=False) for line in lines))

    def verbatim(self, lines: Sequence[str], style: str = "") -> None:
        """Print lines that must not be wrapped: commands, plots."""
        for line in lines:
            self.terminal.print(Text(harmless(line), style=style), soft_wrap=True)

    def plot(self, lines: Sequence[str]) -> None:
        """Print the lines of a plot, whose colours are SGR codes; what is too wide is cut off."""
        for line in lines:
            self.terminal.print(Text.from_ansi(line), no_wrap=True, overflow="crop")

    def table(self, table: Table) -> None:
        """Print a table, within the terminal's width; whole where there is no terminal; nothing without rows."""
        if not table.rows:
            return
        if not self.terminal.is_terminal:
            self.verbatim(table.fitted(sys.maxsize).lines())
            return
        fitted = table.fitted(self.terminal.width - GAP)
        drawn = TerminalTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold dim")
        for column in fitted.columns:
            side: JustifyMethod = "left" if column.words or column.prose else "right"
            drawn.add_column(column.title, justify=side, no_wrap=not column.prose, overflow="fold" if column.prose else "ellipsis")
        for i, row in enumerate(fitted.rows):
            drawn.add_row(*(Text(harmless(cell)) for cell in row), style="bold green" if i in fitted.marked else "")
        self.terminal.print(drawn)

    @contextlib.contextmanager
    def live_line(self, render: Callable[[int], str]) -> Iterator[None]:
        """Keep a line at the bottom of a terminal up to date: what `render` makes of the width, twice a second. Nothing elsewhere."""
        if not self.live:
            yield
            return
        with Live(_Line(self.terminal, render), console=self.terminal, refresh_per_second=REFRESH, transient=True):
            yield

    def output(self, text: str) -> None:
        """Print a result that another program reads on standard output, as it is."""
        print(text.rstrip("\n"))

    def document(self, content: Any) -> None:
        """Print the one JSON document of --json."""
        self.output(json_text(content))


class _Line:
    """What rich draws again and again."""

    def __init__(self, terminal: Terminal, render: Callable[[int], str]) -> None:
        self._terminal, self._render = terminal, render

    def __rich__(self) -> Text:
        return Text(harmless(self._render(self._terminal.width - 1)), style="cyan", no_wrap=True, overflow="ellipsis")


def harmless(text: str) -> str:
    """Return `text` with the characters that steer a terminal as escapes, lines apart: a run or a config may come from anywhere."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(content: Any) -> str:
    """Strict JSON: what is not a finite number becomes null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False, default=str)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


@contextlib.contextmanager
def output_reserved(reserve: bool) -> Iterator[None]:
    """Keep standard output for the one JSON document: whatever else is printed, by user code or by workers, goes to standard error."""
    if not reserve:
        yield
        return
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # closed from the beginning: nothing can be printed there
            saved = os.dup(STDOUT)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, STDOUT)
            os.dup2(STDERR, STDOUT)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield
