"""A table as LaTeX: one booktabs table a sheet, to be put in a paper with \\input.

No type is smaller than 7 points: what is too wide for a line is split by columns, what is too long for a page by rows.
The preamble needs array, booktabs, xcolor and, for Unicode in old engines, inputenc: see PREAMBLE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from moe_sweeps.host.plain import plain
from moe_sweeps.reports.layout import sheets
from moe_sweeps.reports.notes import caption, facts, warning
from moe_sweeps.reports.render_costs import cost_sheet
from moe_sweeps.reports.rows import arm_sheet
from moe_sweeps.reports.sheets import Cell, Sheet
from moe_sweeps.results.costs import CostTable
from moe_sweeps.results.tables import Table

PREAMBLE = r"\usepackage[utf8]{inputenc}\usepackage{array,booktabs,xcolor}"
# In points: the width of a line of article's text, the sizes of type, and what stands between two columns. GLYPH is the
# mean width of a character as a part of the size, on the wide side; WRAP the characters after which a text is broken.
LINE, SMALL, LEAST, SEPARATION = 345.0, 9.0, 7.0, 8.0
GLYPH, WRAP, MOST_LINES = 0.55, 34, 44
MAX_CAPTION, MAX_CELL = 2400, 240  # characters; table.csv has the full texts
_MADE = f"made by make tables; needs {PREAMBLE}"
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$", "–": "--", "…": r"\dots{}",
    "<": r"$<$", ">": r"$>$", "·": r"$\cdot$", "|": r"\textbar{}", "→": r"$\to$", "≤": r"$\le$", "≥": r"$\ge$",
    "−": "$-$", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: rf"$\{name}$" for c, name in zip("αβγδεηθκλμνπρστφχψω", (
        "alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "kappa", "lambda", "mu", "nu", "pi", "rho",
        "sigma", "tau", "phi", "chi", "psi", "omega"), strict=True)},
    "\0": "{}",  # set by escape() alone: plain() lets none through
}  # fmt: skip
_LIGATURE = re.compile(r"(?<=-)(?=-)|(?<=[`?!])(?=`)|(?<=')(?=')")  # two characters that would be set as another one
_NOT_IN_OT1 = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")  # Latin letters that TeX's first fonts do not have


def latex(table: Table, costs: CostTable | None = None) -> str:
    """All sheets of a table, one after the other, each a floating table with a label of its own."""
    first = [text for text in (warning(table), caption(table), facts(table)) if text]
    more = [*sheets(table), *([cost_sheet(costs)] if costs else [])]
    parts = [_float(table.title, table.name, arm_sheet(table), first)]
    parts += [_float(table.title, table.name, sheet, list(sheet.notes)) for sheet in more]
    return f"% {_comment(table.title)}: {_MADE}\n" + "\n".join(parts)


def sheet_latex(sheet: Sheet) -> str:
    """A sheet that belongs to no single table."""
    return f"% {_comment(sheet.title)}: {_MADE}\n" + _float("", "all", sheet, list(sheet.notes))


def escape(text: str, most: int | None = None) -> str:
    """`text` with nothing that LaTeX would read as a command; characters that its fonts lack are shown as U+....

    Text beyond `most` characters is cut: TeX fails at boxes wider than 5.7 metres.
    """
    text = text if most is None or len(text) <= most else f"{text[: most - 1]}…"
    return "".join(map(_shown, _LIGATURE.sub("\0", plain(text))))


def _shown(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    known = character.isascii() or ("¡" <= character <= "ſ" and character.isalpha() and character not in _NOT_IN_OT1)
    return character if known else rf"\texttt{{U+{ord(character):04X}}}"


def _comment(text: str) -> str:
    """`text` as one line of a comment, without line breaks."""
    return plain(text).encode("ascii", "replace").decode()


def _float(title: str, name: str, sheet: Sheet, notes: list[str]) -> str:
    """A sheet as floats of at most MOST_LINES lines, each as wide as a page holds at 7 points or more."""
    caption_text = " ".join([*(f"{text}." for text in (title, sheet.title) if text), *notes])
    label = f"tab:{re.sub('[^A-Za-z0-9-]+', '-', f'{name}-{sheet.slug}')}"
    parts: list[str] = []
    for rows in pages(sheet):
        for columns in blocks(sheet):
            text = f"{sheet.title or title}, continued." if parts else caption_text
            mark = [] if parts else [rf"\label{{{label}}}"]
            head = [r"\begin{table}", rf"\caption{{{escape(text, MAX_CAPTION)}}}", *mark]
            parts.append("\n".join([*head, *_tabular(sheet, rows, columns), r"\end{table}"]))
    return "\n".join(parts) + "\n"


def _tabular(sheet: Sheet, rows: range, columns: Sequence[int]) -> list[str]:
    kinds = "".join(_kind(sheet, place) for place in columns)
    size = r"\fontsize{9}{11}" if _width(sheet, columns, SMALL) <= LINE else r"\fontsize{7}{8.5}"
    return [
        rf"\centering{size}\selectfont\setlength{{\tabcolsep}}{{{SEPARATION / 2:g}pt}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        " & ".join(escape(sheet.columns[place], MAX_CELL) for place in columns) + r" \\",
        r"\midrule",
        *(" & ".join(_cell(sheet.rows[row][place]) for place in columns) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def blocks(sheet: Sheet) -> list[list[int]]:
    """The columns that stand side by side: as many as a line holds at 7 points; those that name a row are in each."""
    names = next((place for place, numeric in enumerate(sheet.numeric) if numeric), 1)
    keys = [*range(max(1, names))]
    keys = keys if _width(sheet, keys, LEAST) < LINE / 2 else keys[:1]
    made = [[*keys]]
    for place in range(len(keys), len(sheet.columns)):
        if len(made[-1]) > len(keys) and _width(sheet, [*made[-1], place], LEAST) > LINE:
            made.append([*keys])
        made[-1].append(place)
    return made


def pages(sheet: Sheet) -> list[range]:
    """The rows that stand on one page: as many as have MOST_LINES lines together."""
    made, start, lines = [], 0, 0
    for place, row in enumerate(sheet.rows):
        here = max(math.ceil(len(cell.text[:MAX_CELL]) / WRAP) for cell in row)
        if place > start and lines + here > MOST_LINES:
            made.append(range(start, place))
            start, lines = place, 0
        lines += here
    return [*made, range(start, len(sheet.rows))]


def _width(sheet: Sheet, columns: Sequence[int], points: float) -> float:
    """How wide columns are in points, by the longest line of each."""
    return sum(_length(sheet, place) * GLYPH * points + SEPARATION for place in columns)


def _length(sheet: Sheet, place: int) -> int:
    """Characters of the longest line of a column; texts beyond WRAP are broken."""
    longest = max(len(text) for text in (sheet.columns[place], *(row[place].text for row in sheet.rows)))
    return min(longest, WRAP) if _kind(sheet, place) not in "rl" else longest


def _kind(sheet: Sheet, place: int) -> str:
    if any(len(row[place].text) > WRAP for row in sheet.rows) or len(sheet.columns[place]) > WRAP:
        return rf">{{\raggedright\arraybackslash}}p{{{WRAP * GLYPH * LEAST:.0f}pt}}"
    return "r" if sheet.numeric[place] else "l"


def _cell(cell: Cell) -> str:
    # After `\\` LaTeX reads a bracket or a star as an argument of the row before.
    text = re.sub(r"^\s*([\[*])", r"{\1}", escape(cell.text, MAX_CELL))
    return rf"\textcolor{{gray}}{{{text}}}" if cell.kind == "grey" else text
