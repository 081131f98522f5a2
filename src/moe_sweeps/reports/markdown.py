"""How a table looks as GitHub Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.host.plain import markdown_code, markdown_text
from moe_sweeps.reports.charts import CHARTS
from moe_sweeps.reports.headings import heading
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.notes import caption, details, facts, legend, warning
from moe_sweeps.reports.rows import header, rows
from moe_sweeps.reports.sheets import Cell, Sheet
from moe_sweeps.results.tables import Table


def markdown(table: Table, figures: Sequence[str] = ()) -> str:
    """A table with its notes as GitHub Markdown; `figures` are the names of PNG files beside it."""
    lines = [heading(table.title), ""]
    if (text := warning(table)) is not None:
        lines += [f"**{markdown_text(text)}**", ""]
    lines += [*_arms(table), "", markdown_text(caption(table)), "", *_lists(table)]
    lines += [line for sheet in sheets(table) for line in _sheet(sheet)]
    for name in figures:
        lines += [f"![{CHARTS[name].title}]({name}.png)", "", CHARTS[name].reading, ""]
    lines.append(markdown_text(facts(table)))
    if table.manifest.command:
        lines += ["", markdown_code(table.manifest.command)]
    return "\n".join(lines) + "\n"


def _arms(table: Table) -> list[str]:
    titles, names = header(table), len(table.axes) or 1
    rules = ["---:" if names <= i < names + 1 + len(table.metrics) else "---" for i in range(len(titles))]
    return [pipes(titles), pipes(rules, escaped=True), *map(pipes, rows(table))]


def _lists(table: Table) -> list[str]:
    """The legend, the runs without a number, and the combinations that collapsed, each as a list."""
    sections: dict[str, Sequence[str]] = {
        "": legend(table),
        "Runs without a number": details(table),
        "Collapsed combinations": table.collapsed,
    }
    lines: list[str] = []
    for title, items in sections.items():
        lines += ([f"{title}:", ""] if items and title else []) + [f"- {markdown_text(item)}" for item in items]
        lines += [""] if items else []
    return lines


def pipes(texts: Sequence[str], *, escaped: bool = False) -> str:
    """One row of a Markdown table; `escaped`: the texts are Markdown already."""
    return f"| {' | '.join(t if escaped else markdown_text(t) for t in texts)} |"


def sheet_markdown(sheet: Sheet) -> str:
    """One sheet as a Markdown page of its own."""
    return "\n".join(_sheet(sheet)).replace("## ", "# ", 1)


def _sheet(sheet: Sheet) -> list[str]:
    rules = ["---:" if numeric else "---" for numeric in sheet.numeric]
    lines = [heading(sheet.title, 2), "", pipes(sheet.columns), pipes(rules, escaped=True)]
    lines += [pipes([_grey(c) for c in cells], escaped=True) for cells in sheet.rows]
    return [*lines, "", *(f"- {markdown_text(note)}" for note in sheet.notes), ""]


def _grey(cell: Cell) -> str:
    """A cell as Markdown. GitHub shows no colours, so grey cells are set in smaller type."""
    text = markdown_text(cell.text)
    return f"<sub>{text}</sub>" if cell.kind == "grey" else text
