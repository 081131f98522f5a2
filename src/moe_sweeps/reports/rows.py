"""The rows of a table's arms as texts: titles, cells, marks."""

from __future__ import annotations

from moe_sweeps.records.numbers import PRIMARY, Metric
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.outcomes import ENDED
from moe_sweeps.results.tables import Arm, Table, marks


def cell(table: Table, arm: Arm, metric: Metric, plus_minus: str = " ± ") -> str:
    """Mean and half-width of the interval, marked with (n=...) if it is over one run or over fewer than the row's."""
    found = arm.cells[metric.column]
    if found.mean is None:
        outcomes = set(arm.counts)
        alike = metric is PRIMARY and len(outcomes) == 1 and outcomes <= ENDED - {"done"}
        return outcomes.pop() if alike else NOTHING
    text = f"{found.mean * metric.factor:.{metric.digits}f}"
    if found.half_width is not None:
        text += f"{plus_minus}{found.half_width * metric.factor:.{metric.digits}f}"
    single = found.n == 1 and any(a.seeds_done > 1 for a in table.arms)
    return text + (f"{plus_minus[0]}(n={found.n})" if single or found.n < arm.seeds_done else "")


def header(table: Table) -> list[str]:
    """Column titles; the last column is there only if some row has something to say in it."""
    notes = ["notes"] if any(marks(table, arm) for arm in table.arms) else []
    return [*(table.axes or ["arm"]), "seeds", *(m.header for m in table.metrics), *notes]


def rows(table: Table, plus_minus: str = " ± ") -> list[list[str]]:
    """The texts of every row, in the order of `header`."""
    notes = [f",{plus_minus[0]}".join(marks(table, arm)) for arm in table.arms]
    found = [_row(table, arm, plus_minus) for arm in table.arms]
    return [[*texts, note] for texts, note in zip(found, notes, strict=True)] if any(notes) else found


def _row(table: Table, arm: Arm, plus_minus: str) -> list[str]:
    names = [arm.settings.get(axis, NOTHING) for axis in table.axes] or [arm.label]
    numbers = [cell(table, arm, metric, plus_minus) for metric in table.metrics]
    return [*names, f"{arm.seeds_done}/{arm.seeds_planned}", *numbers]


def arm_sheet(table: Table) -> Sheet:
    """The arms of a table, one row each, as a sheet."""
    titles, names = header(table), len(table.axes) or 1
    numeric = tuple(names <= i < names + 1 + len(table.metrics) for i in range(len(titles)))
    cells = tuple(_cells(table, arm, texts) for arm, texts in zip(table.arms, rows(table), strict=True))
    return Sheet("arms", table.definition.title, tuple(titles), numeric, cells)


def _cells(table: Table, arm: Arm, texts: list[str]) -> tuple[Cell, ...]:
    names, runs = len(table.axes) or 1, tuple(run.run_id for run in arm.runs)
    seeds = Cell(texts[names], float(arm.seeds_done), runs, "" if arm.done == len(arm.runs) else "mark")
    numbers = [
        Cell(text, arm.cells[m.column].mean, runs, "mark" if text in ENDED else "")
        for text, m in zip(texts[names + 1 :], table.metrics, strict=False)
    ]
    notes = [Cell(text, text, runs, "mark") for text in texts[names + 1 + len(table.metrics) :]]
    return (*map(text_cell, texts[:names]), seeds, *numbers, *notes)
