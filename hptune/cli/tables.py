"""Tables as text: which columns fit a width, and how they look where there is no terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace

GAP = 2  # blanks between two columns
WRAPPED = 24  # a column of prose gets at least so many characters, where it does not say otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: numbers stand right, words left. `importance`: the least important goes first where a terminal is narrow.

    `prose` wraps where the terminal is narrow, and gets at least `narrowest` characters.
    """

    title: str
    importance: int = 5
    words: bool = False
    prose: bool = False
    narrowest: int = WRAPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text; `marked` holds the indices of rows to stress."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()

    def widths(self) -> list[int]:
        """Characters each column needs; prose needs its `narrowest` at most."""
        natural = [max(len(column.title), *(len(row[i]) for row in self.rows), 0) for i, column in enumerate(self.columns)]
        return [min(n, column.narrowest) if column.prose else n for n, column in zip(natural, self.columns, strict=True)]

    def fitted(self, width: int) -> Table:
        """Leave out empty columns, then the least important ones until the table is at most `width` characters wide."""
        table = self._keeping([i for i in range(len(self.columns)) if any(row[i] for row in self.rows)])
        while len(table.columns) > 1 and sum(table.widths()) + GAP * (len(table.columns) - 1) > width:
            least = min(range(len(table.columns)), key=lambda i: (table.columns[i].importance, -i))
            table = table._keeping([i for i in range(len(table.columns)) if i != least])
        return table

    def lines(self) -> list[str]:
        """Plain text without rules or trailing blanks; prose is not wrapped."""
        cells = [tuple(column.title for column in self.columns), *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        return [self._line(row, widths) for row in cells]

    def _line(self, row: tuple[str, ...], widths: list[int]) -> str:
        padded = [
            cell.ljust(width) if column.words or column.prose else cell.rjust(width)
            for cell, width, column in zip(row, widths, self.columns, strict=True)
        ]
        return (" " * GAP).join(padded).rstrip()

    def _keeping(self, kept: list[int]) -> Table:
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=tuple(tuple(row[i] for i in kept) for row in self.rows))
