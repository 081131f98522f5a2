"""Noise and power: what seeds alone do in each sweep, and what its tables can find."""

from __future__ import annotations

from collections.abc import Sequence

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.compare import POWER
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.tables import Table

TITLES = ("sweep", "scale", "seeds an arm", "spread of one run", "two single runs", "detectable", "look", "level")
_NUMERIC = (False, False, True, True, True, True, True, True)


def power_sheet(tables: Sequence[Table]) -> Sheet | None:
    """One row a sweep with a finished run; None without any."""
    rows = [_row(table) for table in tables if any(arm.done for arm in table.arms)]
    if not rows:
        return None
    notes = (
        f"In {PRIMARY.axis}. Spread: standard deviation over seeds of alike runs. Two single runs: what seeds alone "
        "move their difference by, at most, in 19 of 20 cases. Detectable, for planning alone: what the table finds "
        f"with a chance of {POWER:.0%}, from the best arm to the worst.",
    )
    return Sheet("noise", "Noise and power", TITLES, _NUMERIC, tuple(rows), notes)


def _row(table: Table) -> tuple[Cell, ...]:
    done = sorted({arm.seeds_done for arm in table.arms if arm.done})
    found = sorted(c.detectable for c in table.differences.values() if c.detectable is not None)
    floor, runs = table.floor, tuple(run.run_id for arm in table.arms for run in arm.runs)
    return (
        text_cell(table.title),
        text_cell(", ".join(table.scales) or NOTHING),
        Cell(_range([str(n) for n in done]), float(done[0]), runs),
        Cell(
            NOTHING if floor is None else f"{PRIMARY.spell(floor.sd)} ({floor.runs} runs)",
            None if floor is None else floor.sd,
        ),
        Cell(
            NOTHING if floor is None else f"±{PRIMARY.spell(floor.difference)}",
            None if floor is None else floor.difference,
        ),
        Cell(_range([PRIMARY.spell(found[0]), PRIMARY.spell(found[-1])] if found else []), found[0] if found else None),
        Cell(str(table.looks), float(table.looks)),
        Cell(f"{level_of_look(table.looks):g}", level_of_look(table.looks)),
    )


def _range(texts: Sequence[str]) -> str:
    if not texts:
        return NOTHING
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
