"""How a table looks in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from moe_sweeps.results.claims import CONTRADICTED, INCONCLUSIVE, REPRODUCED, Verdict
from moe_sweeps.results.layout import sheets
from moe_sweeps.results.notes import caption, details, facts, legend, warning
from moe_sweeps.results.rows import header, rows
from moe_sweeps.results.sheets import NOTHING, Cell, Sheet
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
_VERDICT_STYLES = {REPRODUCED: "green", CONTRADICTED: "red", INCONCLUSIVE: "bright_black"}
_CELL_STYLES = {"grey": "bright_black", "mark": _OTHER_MARK, "better": "green", "worse": "red"}


def print_table(table: Table, console: Console) -> None:
    """Show a table with its notes."""
    console.print(terminal(table, console))


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Show one sheet by itself."""
    console.print(Group(*_sheet(sheet), Text()))


def print_claims(verdicts: Sequence[Verdict], console: Console) -> None:
    """Show what became of a sweep's claims, a line each."""
    console.print(Text("Claims", style="bold"))
    for v in verdicts:
        line = Text("  ").append(f"{v.verdict:<13}", style=_VERDICT_STYLES[v.verdict]).append(f" {v.claim}")
        console.print(line.append(f" ({v.why})", style="dim"))
    console.print()


def terminal(table: Table, console: Console) -> RenderableType:
    """A table with its notes."""
    blocks: list[RenderableType] = [Text(table.title, style="bold"), _widest_that_fits(table, console)]
    if (text := warning(table)) is not None:
        blocks.append(Text(text, style="bold yellow"))
    blocks.append(Text(caption(table), style="italic"))
    blocks += _block("", legend(table))
    blocks += [block for sheet in sheets(table) for block in _sheet(sheet)]
    blocks += _block("Runs without a number", details(table, MAX_DETAILS))
    blocks += _block("Collapsed combinations", table.collapsed)
    return Group(*blocks, Text(facts(table), style="dim"), Text())


def _widest_that_fits(table: Table, console: Console) -> Grid:
    """One line per arm if there is room, else the intervals below the means, else the columns closer together, too."""
    for grid in (_grid(table, " ±"), _grid(table, "\n±")):
        if Measurement.get(console, console.options.update(width=10_000), grid).maximum <= console.width:
            return grid
    return _grid(table, "\n±", tight=True)


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


def _sheet(sheet: Sheet) -> list[RenderableType]:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    longest = max((len(word) for cells in sheet.rows for word in cells[0].text.split()), default=0)
    for place, (title, numeric) in enumerate(zip(sheet.columns, sheet.numeric, strict=True)):
        least = None if place else min(longest, 24)  # an arm's settings are broken between, not within
        grid.add_column(title, justify="right" if numeric else "left", overflow="fold", min_width=least)
    for cells in sheet.rows:
        grid.add_row(*(_cell(c) for c in cells))
    return [Text(), Text(sheet.title, style="bold"), grid, *_block("", sheet.notes)]


def _cell(cell: Cell) -> Text:
    return Text(cell.text, style="dim" if cell.text == NOTHING else _CELL_STYLES.get(cell.kind, ""))
