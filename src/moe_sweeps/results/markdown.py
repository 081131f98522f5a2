"""How a table looks as GitHub Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.results.charts import CHARTS
from moe_sweeps.results.layout import sheets
from moe_sweeps.results.notes import caption, details, facts, legend, warning
from moe_sweeps.results.rows import header, rows
from moe_sweeps.results.sheets import Cell, Sheet
from moe_sweeps.results.tables import Table


def markdown(table: Table, figures: Sequence[str] = ()) -> str:
    """A table with its notes as GitHub Markdown; `figures` are the names of PNG files beside it."""
    titles, names = header(table), len(table.axes) or 1
    rules = ["---:" if names <= i < names + 1 + len(table.metrics) else "---" for i in range(len(titles))]
    lines = [f"# {table.title}", ""]
    if (text := warning(table)) is not None:
        lines += [f"**{text}**", ""]
    lines += [pipes(titles), pipes(rules), *map(pipes, rows(table)), ""]
    lines += [caption(table), ""]
    sections: dict[str, Sequence[str]] = {
        "": legend(table),
        "Runs without a number": details(table),
        "Collapsed combinations": table.collapsed,
    }
    for title, items in sections.items():
        lines += ([f"{title}:", ""] if items and title else []) + [f"- {_escape(item)}" for item in items]
        lines += [""] if items else []
    for sheet in sheets(table):
        lines += _sheet(sheet)
    for name in figures:
        lines += [f"![{CHARTS[name].title}]({name}.png)", "", CHARTS[name].reading, ""]
    lines.append(facts(table))
    if table.manifest.command:
        lines += ["", f"    {table.manifest.command}"]
    return "\n".join(lines) + "\n"


def pipes(texts: Sequence[str], *, escaped: bool = False) -> str:
    return f"| {' | '.join(t if escaped else _escape(t) for t in texts)} |"


def _escape(text: str) -> str:
    for character in "\\|*_<[":
        text = text.replace(character, "\\" + character)
    return text


def sheet_markdown(sheet: Sheet) -> str:
    """One sheet by itself."""
    return "\n".join(_sheet(sheet)).replace("## ", "# ", 1)


def _sheet(sheet: Sheet) -> list[str]:
    rules = ["---:" if numeric else "---" for numeric in sheet.numeric]
    lines = [f"## {_escape(sheet.title)}", "", pipes(sheet.columns), pipes(rules)]
    lines += [pipes([_grey(c) for c in cells], escaped=True) for cells in sheet.rows]
    return [*lines, "", *(f"- {_escape(note)}" for note in sheet.notes), ""]


def _grey(cell: Cell) -> str:
    """GitHub has no colours: what is too small to count is smaller."""
    text = _escape(cell.text)
    return f"<sub>{text}</sub>" if cell.kind == "grey" else text
