"""A sheet: a table of cells that know their runs, their sort key and their kind, before it becomes Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """`value` is the sort key, `runs` are the ids behind it, `kind` is "", "grey", "mark", "better" or "worse"."""

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
