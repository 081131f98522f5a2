"""Tables in a terminal that cut nothing: where a row has no room, its texts fold, and then stand below its numbers.

A name, a number or a verdict that ends in "..." is one that nobody can type or read. rich's tables cut columns that may
not wrap as soon as the terminal is too narrow; these do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2  # cells between two columns
READABLE = 24  # cells below which a text is put under its row rather than into a column
INDENT = 4  # of what stands below a row


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `folds`: a text, which may be broken between words and stand below its row; else it is never broken.

    `right`: as numbers stand. `told`: its title is said where it stands below the row.
    """

    title: str
    right: bool = False
    folds: bool = False
    told: bool = False


class FoldedTable:
    """A table without lines. Rows are as wide as the console; nothing is cut. Texts that no row has get no column."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Text | str]]) -> None:
        cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
        kept = [place for place, column in enumerate(columns)
                if not column.folds or not cells or any(row[place].plain for row in cells)]  # fmt: skip
        self.columns = [columns[place] for place in kept]
        self.rows = [[row[place] for place in kept] for row in cells]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines at the width of `options`."""
        inside, below = self._places(options.max_width)
        widths = self._widths(inside, options.max_width)
        if inside:
            titles = [Text(self.columns[place].title, "bold") for place in inside]
            yield from self._lines(console, titles, inside, widths)
        for row in self.rows:
            yield from self._lines(console, [row[place] for place in inside], inside, widths)
            for place in below:
                yield from self._below(console, row[place], self.columns[place], options.max_width, bool(inside))

    def _places(self, width: int) -> tuple[list[int], list[int]]:
        """The columns that stand in the row, and those below it."""
        inside = list(range(len(self.columns)))
        below: list[int] = []
        for place in reversed([place for place in inside if self.columns[place].folds]):
            if self._fits(inside, width):
                return inside, below
            inside.remove(place)
            below.insert(0, place)
        while not self._fits(inside, width) and len(inside) > 1:  # the last numbers first, so that names stay
            below.insert(0, inside.pop())
        return inside, below

    def _fits(self, places: Sequence[int], width: int) -> bool:
        least = [min(self._natural(p), max(self._longest_word(p), READABLE)) if self.columns[p].folds
                 else self._natural(p) for p in places]  # fmt: skip
        return sum(least) + GAP * max(len(places) - 1, 0) <= width

    def _widths(self, places: Sequence[int], width: int) -> list[int]:
        widths = [self._natural(place) for place in places]
        over = sum(widths) + GAP * max(len(places) - 1, 0) - width
        while over > 0 and (wide := self._widest(places, widths)) is not None:
            widths[wide] -= 1
            over -= 1
        # The last column that is left, if it is a name longer than the terminal is wide, is broken; it is not cut.
        return [min(of_column, width) for of_column in widths]

    def _widest(self, places: Sequence[int], widths: Sequence[int]) -> int | None:
        """The widest column that can still give way."""
        can = [i for i, place in enumerate(places)
               if self.columns[place].folds and widths[i] > max(self._longest_word(place), 1)]  # fmt: skip
        if not can:  # a word longer than its place is broken; it is not cut
            can = [i for i, place in enumerate(places) if self.columns[place].folds and widths[i] > READABLE]
        return max(can, key=lambda i: widths[i], default=None)

    def _natural(self, place: int) -> int:
        cells = [cell_len(line) for row in self.rows for line in row[place].plain.split("\n")]
        return max([cell_len(self.columns[place].title), *cells])

    def _longest_word(self, place: int) -> int:
        words = [cell_len(word) for row in self.rows for word in row[place].plain.split()]
        return max([cell_len(self.columns[place].title), *words])

    def _lines(
        self, console: Console, cells: Sequence[Text], places: Sequence[int], widths: Sequence[int]
    ) -> RenderResult:
        wrapped = [_wrapped(console, cell, width) for cell, width in zip(cells, widths, strict=True)]
        for number in range(max(map(len, wrapped), default=0)):
            line = Text()
            for place, parts, width in zip(places, wrapped, widths, strict=True):
                part = parts[number] if number < len(parts) else Text()
                space = " " * max(0, width - cell_len(part.plain))
                line.append_text(Text(space) + part if self.columns[place].right else part + Text(space))
                line.append(" " * GAP)
            line.rstrip()
            yield _whole(line)

    def _below(self, console: Console, cell: Text, column: Column, width: int, indented: bool) -> RenderResult:
        if not cell.plain.strip():
            return
        is_told = column.told or not column.folds
        text = Text.assemble((f"{column.title} ", "dim"), cell) if is_told and column.title else cell
        indent = min(INDENT, width // 4) if indented else 0
        for line in _wrapped(console, text, max(1, width - indent)):
            yield _whole(Text(" " * indent) + line)


def _wrapped(console: Console, cell: Text, width: int) -> list[Text]:
    """The lines of a cell, broken between words; a word that is longer than a line is broken, and not cut."""
    lines = list(cell.wrap(console, width, overflow="fold"))
    for line in lines:
        line.rstrip()
    return lines or [Text()]


def _whole(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ignore"
    return line
