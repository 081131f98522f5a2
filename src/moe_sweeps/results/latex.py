"""A table as LaTeX: one booktabs table a sheet, to be put in a paper with \\input.

The preamble needs booktabs, xcolor and, for Unicode in old engines, inputenc: see PREAMBLE.
"""

from __future__ import annotations

import re

from moe_sweeps.results.costs import CostTable
from moe_sweeps.results.layout import sheets
from moe_sweeps.results.notes import caption, facts, warning
from moe_sweeps.results.render_costs import cost_sheet
from moe_sweeps.results.rows import arm_sheet
from moe_sweeps.results.sheets import Cell, Sheet
from moe_sweeps.results.tables import Table

PREAMBLE = r"\usepackage[utf8]{inputenc}\usepackage{booktabs,xcolor,graphicx}"
_MADE = f"made by make tables; needs {PREAMBLE}"
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$", "–": "--", "…": r"\dots{}",
    "<": r"$<$", ">": r"$>$", "·": r"$\cdot$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip
_PATTERN = re.compile("|".join(map(re.escape, _SPECIAL)))


def latex(table: Table, costs: CostTable | None = None) -> str:
    """All sheets of a table, one after the other, each a floating table with a label of its own."""
    first = [text for text in (warning(table), caption(table), facts(table)) if text]
    more = [*sheets(table), *([cost_sheet(costs)] if costs else [])]
    parts = [_float(table.title, table.name, arm_sheet(table), first)]
    parts += [_float(table.title, table.name, sheet, list(sheet.notes)) for sheet in more]
    return f"% {table.title}: {_MADE}\n" + "\n".join(parts)


def sheet_latex(sheet: Sheet) -> str:
    """A sheet that belongs to no single table."""
    return f"% {sheet.title}: {_MADE}\n" + _float("", "all", sheet, list(sheet.notes))


def escape(text: str) -> str:
    """`text` with nothing that LaTeX would read as a command."""
    return _PATTERN.sub(lambda found: _SPECIAL[found.group()], text)


def _float(title: str, name: str, sheet: Sheet, notes: list[str]) -> str:
    caption_text = " ".join([*(f"{text}." for text in (title, sheet.title) if text), *notes])
    lines = [
        r"\begin{table}",
        rf"\caption{{{escape(caption_text)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', f'{name}-{sheet.slug}')}}}",
        r"\centering\small\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in sheet.numeric)}}}",
        r"\toprule",
        " & ".join(map(escape, sheet.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_cell, cells)) + r" \\" for cells in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    # A bracket at the start of a row would be read as the optional argument of the row before.
    text = re.sub(r"^\[", "{[}", escape(cell.text))
    return rf"\textcolor{{gray}}{{{text}}}" if cell.kind == "grey" else text
