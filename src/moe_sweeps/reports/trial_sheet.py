"""The trials of a search as a sheet: best first, how far each came, and why it stopped there."""

from __future__ import annotations

from moe_sweeps.records.numbers import Metric
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.tables import Table
from moe_sweeps.results.trials import TrialRow, search_of, trials_of


def trial_sheet(table: Table) -> Sheet | None:
    """Every suggestion of the search behind `table`; None for the table of a grid."""
    found = search_of(table)
    if found is None:
        return None
    search, metric = found
    trials = trials_of(table)
    axes = list(dict.fromkeys(key for row in trials for key in (*search.space, *row.settings) if key in search.space))
    titles = ("trial", *axes, "steps", metric.header, "at", "seeds", "outcome", "why it stopped")
    numeric = (True, *(False for _ in axes), True, True, False, False, False, False)
    rows = tuple(_row(row, axes, metric, max(1, len(search.seeds))) for row in trials)
    goal = "highest" if metric.better == "higher" else "lowest"
    notes = [
        f"{search.kind} search for the {goal} {metric.header} over {len(search.trials)} suggestions, best first.",
        "A value at a rung is of an evaluation on the way: it is not final, and in no table's mean.",
        "The best of many is partly the luckiest: train it and its rivals with seeds that the search did not use.",
    ]
    return Sheet("trials", "Trials", titles, numeric, rows, tuple(notes))


def _row(row: TrialRow, axes: list[str], metric: Metric, seeds: int) -> tuple[Cell, ...]:
    ids = tuple(run.run_id for run in row.runs)
    settings = [text_cell(row.settings.get(key, NOTHING)) for key in axes]
    value = NOTHING if row.value is None else metric.spell(row.value)
    at = "the end" if row.final else NOTHING if row.rung is None else f"rung {row.rung:,}"
    kind = "" if row.state == "done" else "mark"
    return (
        Cell(str(row.number), float(row.number)), *settings,
        Cell(f"{row.step:,}/{row.total:,}" if row.total else NOTHING, float(row.step), ids),
        Cell(value, row.value, ids, "" if row.final else "grey"), Cell(at), Cell(f"{row.seeds_done}/{seeds}"),
        Cell(row.state, row.state, ids, kind), text_cell(row.why),
    )  # fmt: skip
