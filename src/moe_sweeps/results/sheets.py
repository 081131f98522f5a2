"""A sheet: rows of cells with what a reader may need to know of each, before it is Markdown, LaTeX or HTML."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """`value` is what the cell sorts by, `runs` are the ids behind it, `kind` is "", "grey", "mark" or an outcome."""

    text: str
    value: float | str | None = None
    runs: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table on the page. `numeric` says of each column whether it is set flush right."""

    slug: str
    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def text_cell(text: str) -> Cell:
    """A cell that names something."""
    return Cell(text, text)
