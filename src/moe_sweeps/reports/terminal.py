"""How a table looks in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.records.words import tone
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.notes import caption, details, facts, legend, warning
from moe_sweeps.reports.rows import arm_sheet, header, rows
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet
from moe_sweeps.results.findings import Verdict
from moe_sweeps.results.tables import Arm, Table, marks

MAX_DETAILS = 12
_STYLES = {
    "failed": "red",
    "unreadable": "red",
    "diverged": "magenta",
    "stopped": "magenta",
    "collapsed": "magenta",
    "running": "cyan",
    "done": "green",
}
_OTHER_MARK = "yellow"
_CELL_STYLES = {"grey": "bright_black", "mark": _OTHER_MARK, "better": "green", "worse": "red"}


def print_table(table: Table, console: Console) -> None:
    """Print a table with its notes."""
    console.print(terminal(table, console))


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print one sheet."""
    console.print(Group(*_sheet(sheet, console.width), Text()))


def print_claims(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the verdicts on a sweep's claims, a line each."""
    console.print(Text("Claims", style="bold"))
    for v in verdicts:
        line = Text("  ").append(f"{v.verdict:<13}", style=_CELL_STYLES[tone(v.verdict)]).append(f" {v.claim}")
        console.print(line.append(f" ({v.why})", style="dim"))
    console.print()


NARROW = 100
LEFT_OUT_WHEN_NARROW = ("detectable", "P(better)", "n")
LEFT_OUT_FIRST = (*LEFT_OUT_WHEN_NARROW, "seeds", "p adj.")
MOST_OF_A_WORD = 40  # a longer one is broken


def terminal(table: Table, console: Console) -> RenderableType:
    """A table with its notes."""
    blocks: list[RenderableType] = [Text(table.title, style="bold"), _widest_that_fits(table, console)]
    if (text := warning(table)) is not None:
        blocks.append(Text(text, style="bold yellow"))
    blocks.append(Text(caption(table), style="italic"))
    blocks += _block("", legend(table))
    blocks += [block for sheet in sheets(table) for block in _sheet(sheet, console.width)]
    blocks += _block("Runs without a number", details(table, MAX_DETAILS))
    blocks += _block("Collapsed combinations", table.collapsed)
    return Group(*blocks, Text(facts(table), style="dim"), Text())


def _widest_that_fits(table: Table, console: Console) -> RenderableType:
    """One line per arm if it fits; else intervals below the means; else narrower columns as well; else texts below."""
    for grid in (_grid(table, " ±"), _grid(table, "\n±")):
        if Measurement.get(console, console.options.update(width=10_000), grid).maximum <= console.width:
            return grid
    tight = _grid(table, "\n±", tight=True)
    if Measurement.get(console, console.options.update(width=10_000), tight).minimum <= console.width:
        return tight
    return _folded(arm_sheet(table))


def _grid(table: Table, plus_minus: str, *, tight: bool = False) -> Grid:
    titles, names = header(table), len(table.axes) or 1
    found = rows(table, plus_minus)
    apart = any("\n" in text for texts in found for text in texts)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", leading=int(apart))
    grid.padding = (0, 0) if tight else (0, 1, 0, 0)
    for i, title in enumerate(titles):
        is_number = names <= i < names + 1 + len(table.metrics)
        justify: JustifyMethod = "right" if is_number else "left"
        title = title.replace(".", ".\n") if tight else title
        grid.add_column(title.replace(" ", "\n"), justify=justify, no_wrap=is_number, overflow="fold")
    for arm, texts in zip(table.arms, found, strict=True):
        grid.add_row(*(_styled(title, text, table, arm) for title, text in zip(titles, texts, strict=True)))
    return grid


def _styled(title: str, text: str, table: Table, arm: Arm) -> Text:
    if title == "seeds":
        return Text(text, style="green" if arm.done == len(arm.runs) else _OTHER_MARK)
    if title != "notes":
        return Text(text, style="dim" if text == NOTHING else _STYLES.get(text, ""))
    styled = Text(text)
    for mark in marks(table, arm):
        styled.highlight_words([mark], style=_STYLES.get(mark.rsplit(" ", 1)[-1], _OTHER_MARK))
    return styled


def _block(title: str, lines: Iterable[str]) -> list[RenderableType]:
    items: list[RenderableType] = [Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False) for line in lines]
    return [Text(title, style="dim bold"), *items] if items and title else items


def _sheet(sheet: Sheet, width: int) -> list[RenderableType]:
    left_out, widths = _widths(sheet, width)
    if sum(widths.values()) + 2 * len(widths) > width:
        return [Text(), Text(sheet.title, style="bold"), _folded(sheet), *_block("", sheet.notes)]
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for place, size in widths.items():
        justify: JustifyMethod = "right" if sheet.numeric[place] else "left"
        grid.add_column(sheet.columns[place], justify=justify, overflow="fold", width=size)
    for cells in sheet.rows:
        grid.add_row(*(_cell(cells[place]) for place in widths))
    notes = [*sheet.notes, *(["Not shown at this width: " + ", ".join(left_out) + "."] if left_out else [])]
    return [Text(), Text(sheet.title, style="bold"), grid, *_block("", notes)]


def _folded(sheet: Sheet) -> FoldedTable:
    """A sheet whose texts stand below its numbers: no word of it has room otherwise."""
    columns = [Column(title, right=numeric, folds=not numeric, told=place > 0)
               for place, (title, numeric) in enumerate(zip(sheet.columns, sheet.numeric, strict=True))]  # fmt: skip
    return FoldedTable(columns, [[_cell(cell) for cell in cells] for cells in sheet.rows])


def _widths(sheet: Sheet, width: int) -> tuple[list[str], dict[int, int]]:
    """The columns that are left out, and characters of the others by their place.

    Every column has room for its longest word, so that settings and verdicts are broken between words, not within.
    What is then left goes where it costs least to have a line less.
    """
    texts = [[title, *(cells[place].text for cells in sheet.rows)] for place, title in enumerate(sheet.columns)]
    least = [_longest(word for text in column for word in text.split()) for column in texts]
    left_out = [title for title in LEFT_OUT_WHEN_NARROW if title in sheet.columns] if width < NARROW else []
    widths = {place: least[place] for place, title in enumerate(sheet.columns) if title not in left_out}
    for title in LEFT_OUT_FIRST:
        if sum(widths.values()) + 2 * len(widths) > width and title in sheet.columns and title not in left_out:
            left_out.append(title)
            del widths[sheet.columns.index(title)]
    while True:
        free = width - sum(widths.values()) - 2 * len(widths)
        better = {
            place: found for place, size in widths.items() if (found := _with_a_line_less(texts[place], size, free))
        }
        if not better:
            return left_out, widths
        place = min(better, key=lambda place: better[place] - widths[place])
        widths[place] = better[place]


def _with_a_line_less(texts: Sequence[str], size: int, free: int) -> int | None:
    """The least width, at most `free` above `size`, at which the tallest of these texts has fewer lines."""

    def lines(width: int) -> int:
        return max(len(textwrap.wrap(text, width, break_on_hyphens=False)) for text in texts)

    tallest = lines(size)
    return next((width for width in range(size + 1, size + free + 1) if lines(width) < tallest), None)


def _longest(words: Iterable[str]) -> int:
    """Characters of the longest word, as far as a column gives way to one."""
    return min(max(map(cell_len, words), default=1), MOST_OF_A_WORD)


def _cell(cell: Cell) -> Text:
    return Text(cell.text, style="dim" if cell.text == NOTHING else _CELL_STYLES.get(cell.kind, ""))
