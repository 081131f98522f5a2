"""The sheets of a table: differences to the baseline, a grid of two settings, and the published numbers.

Each is a function from a table to a sheet, or to None where it has nothing to show; a table's definition says which of
them it wants. The list of the arms itself is in render.py.
"""

from __future__ import annotations

import math
from decimal import Decimal

from moe_sweeps.results.columns import BY_COLUMN, PRIMARY, Metric
from moe_sweeps.results.compare import LEVEL, POWER, SINGLE, WELCH, Comparison
from moe_sweeps.results.costs import HOURS, hours
from moe_sweeps.results.outcomes import ENDED, OUTCOMES
from moe_sweeps.results.published import published_values, setting
from moe_sweeps.results.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.stats import CONFIDENCE, Estimate
from moe_sweeps.results.tables import Arm, Table

# What a published metric stands beside. Those of the Megatron runs are training averages: the sheet names both.
_OURS = {
    "lm_loss": "val_loss",
    "maxvio": "val_maxvio_global",
    "load_balancing_loss": "val_load_balancing_loss",
    "z_loss": "val_z_loss",
}
_PUBLISHED_HOURS = "wall_clock_hours_50k_steps"


def sheets(table: Table) -> list[Sheet]:
    """Everything that the definition of `table` asks for, besides the list of its arms."""
    made = [*grid_sheets(table), difference_sheet(table), published_sheet(table)]
    return [sheet for sheet in made if sheet is not None]


def spell_estimate(found: Estimate, metric: Metric) -> str:
    """Mean and half-width of its interval."""
    if found.mean is None:
        return NOTHING
    spread = "" if found.half_width is None else f" ± {metric.spell(found.half_width)}"
    return metric.spell(found.mean) + spread


# --- differences ------------------------------------------------------------------------------------------------------


def difference_sheet(table: Table) -> Sheet | None:
    """Each arm minus the baseline, with the test behind it. None for a table of one arm."""
    if table.baseline is None or len(table.arms) < 2:
        return None
    base = table.arm(table.baseline)
    rows = [_difference_row(arm, table.differences.get(arm.arm)) for arm in table.arms if arm is not base]
    titles = (
        "arm",
        f"Δ {PRIMARY.header}",
        f"{CONFIDENCE:.0%} interval",
        "test",
        "n",
        "p (Holm)",
        "detectable",
        "finding",
    )
    numeric = (False, True, True, False, True, True, True, False)
    return Sheet(
        "differences", f"Difference to {base.label}", titles, numeric, tuple(rows), tuple(_difference_notes(table))
    )


def _difference_row(arm: Arm, found: Comparison | None) -> tuple[Cell, ...]:
    if found is None:
        return (text_cell(arm.label), *[Cell(NOTHING)] * 6, Cell("no value on one side", kind="mark"))
    runs, kind = tuple(run.run_id for run in arm.runs), "grey" if found.grey else ""
    interval = NOTHING
    if found.low is not None and found.high is not None:
        interval = f"{PRIMARY.spell(found.low, sign=True)} to {PRIMARY.spell(found.high, sign=True)}"
    p = NOTHING if found.p_holm is None else f"{found.p_holm:.3f}" if found.p_holm >= 0.001 else "<0.001"
    mark = found.verdict if found.verdict in ("better", "worse") else kind
    return (
        text_cell(arm.label),
        Cell(PRIMARY.spell(found.difference, sign=True), found.difference, runs, kind),
        Cell(interval, found.low, runs, kind),
        Cell(found.kind + (" (unpaired)" if found.kind == WELCH else ""), found.kind, kind=kind),
        Cell(" and ".join(map(str, found.n)), float(min(found.n)), kind=kind),
        Cell(p, found.p_holm, kind=kind),
        Cell(NOTHING if found.detectable is None else PRIMARY.spell(found.detectable), found.detectable, kind=kind),
        Cell(found.verdict, found.verdict, runs, mark),
    )


def _difference_notes(table: Table) -> list[str]:
    found = table.differences.values()
    tests = sum(c.p is not None for c in found)
    notes = [floor_sentence(table)]
    if tests:
        notes.append(
            "Paired: the two runs of a seed began with the same weights and saw the same batches. p: two-sided t-test, "
            f"corrected for {tests} {'test' if tests == 1 else 'tests'} (Holm). Detectable: what so many seeds find "
            f"with a chance of {POWER:.0%} at level {LEVEL:.2f} / {tests}. "
            "Smaller differences are grey and are no finding, whatever their p."
        )
    if any(c.kind == WELCH for c in found):
        notes.append(
            "Welch (unpaired): weights or batches of a seed differ or are unknown; the seeds are independent samples."
        )
    return notes


def floor_sentence(table: Table) -> str:
    """What is known about noise, and what follows for a table of single seeds."""
    single = any(c.kind == SINGLE for c in table.differences.values()) or all(arm.done <= 1 for arm in table.arms)
    if table.floor is None:
        scale = f' ARGS="scale={table.scales[0]}"' if len(table.scales) == 1 else ""
        text = (
            f"The noise floor was not measured for runs of this scale and length (make sweep NAME=noise_floor{scale})"
        )
        return text + (", so from one seed nothing can be concluded about any difference." if single else ".")
    floor = PRIMARY.spell(table.floor.difference)
    text = f"Noise floor: seeds alone move a difference of {PRIMARY.header} by up to {floor} in 19 of 20 cases"
    text += f" (standard deviation {PRIMARY.spell(table.floor.sd)} over {table.floor.runs} runs of noise_floor)."
    if table.wider is not None:
        wider = PRIMARY.spell(table.wider.difference)
        text += f" Arms differ in this: over all {table.wider.runs} runs of arms with several seeds it is {wider},"
        text += " which single seeds are held against."
    return text + (" With one seed nothing can be concluded from differences below it." if single else "")


# --- grid -------------------------------------------------------------------------------------------------------------


def grid_sheets(table: Table) -> list[Sheet]:
    """One sheet a metric with one setting down the side and another along the top."""
    grid = table.definition.grid
    if grid is None:
        return []
    lines, tops = axis_values(table, grid.rows), axis_values(table, grid.columns)
    if not lines or not tops:
        return []
    return [_grid_sheet(table, BY_COLUMN[name], grid.rows, grid.columns, lines, tops) for name in grid.metrics]


def axis_values(table: Table, key: str) -> list[str]:
    """The values of a setting: numbers from low to high, others as designed; arms without it do not count."""
    values = list(dict.fromkeys(arm.settings[key] for arm in table.arms if key in arm.settings))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def grid_arms(table: Table, rows: str, columns: str, line: str, top: str) -> list[Arm]:
    """The arms with both settings."""
    return [a for a in table.arms if a.settings.get(rows) == line and a.settings.get(columns) == top]


def _grid_sheet(table: Table, metric: Metric, rows: str, columns: str, lines: list[str], tops: list[str]) -> Sheet:
    body = []
    for line in lines:
        found = [grid_arms(table, rows, columns, line, top) for top in tops]
        body.append((text_cell(line), *(_grid_cell(table, metric, arms) for arms in found)))
    title = f"{metric.header} over {rows} and {columns}"
    notes = (
        "Mean ± half-width of the interval; (n) where fewer seeds are done than planned. "
        + f"{NOTHING}: not asked for.",
    )
    return Sheet(
        f"grid-{metric.column}",
        title,
        (f"{rows} \\ {columns}", *tops),
        (False, *[True] * len(tops)),
        tuple(body),
        notes,
    )


def _grid_cell(table: Table, metric: Metric, arms: list[Arm]) -> Cell:
    if not arms:
        return Cell(NOTHING)
    if len(arms) > 1:
        return Cell(f"{len(arms)} arms", kind="mark")
    (arm,) = arms
    runs = tuple(run.run_id for run in arm.runs)
    gaps = [f"{n} {k}" for k in OUTCOMES if k not in ENDED and (n := arm.counts[k])]
    ends = [f"{n} {k}" for k in ("stopped", "diverged") if (n := arm.counts[k])]
    ends += [f"{arm.router_collapsed} collapsed"] if arm.router_collapsed else []
    found = arm.cells[metric.column]
    marks = "; ".join(ends + gaps)
    if found.mean is None:
        return Cell(marks or NOTHING, None, runs, "mark")
    comparison = table.differences.get(arm.arm) if metric is PRIMARY else None
    kind = "mark" if marks else "grey" if comparison is not None and comparison.grey else ""
    few = f" (n={found.n})" if found.n < len(arm.runs) else ""
    return Cell(spell_estimate(found, metric) + few + (f" [{marks}]" if marks else ""), found.mean, runs, kind)


# --- published numbers ------------------------------------------------------------------------------------------------


def published_sheet(table: Table) -> Sheet | None:
    """Published values beside ours, in columns of their own."""
    if not table.definition.published:
        return None
    rows = [line for arm in table.arms for line in _published_rows(table, arm)]
    if not rows:
        return None
    titles = ("arm", "our metric", "ours", "published metric", "published", "source", "precision")
    numeric = (False, False, True, False, True, False, False)
    notes = tuple(n for n in (setting(table.definition.published), table.definition.setting) if n)
    return Sheet("published", "Beside the published values", titles, numeric, tuple(rows), notes)


def _published_rows(table: Table, arm: Arm) -> list[tuple[Cell, ...]]:
    row = next((run.row for run in arm.runs if run.row is not None), None)
    lines: list[tuple[Cell, ...]] = []
    for theirs in published_values(row, table.definition.published) if row else []:
        ours, name, metric = Cell(NOTHING), NOTHING, None
        if (beside := _beside(table, arm, theirs.metric)) is not None:
            metric, found = beside
            few = f" (n={found.n})" if 0 < found.n < len(arm.runs) else ""
            ours = Cell(spell_estimate(found, metric) + few, found.mean, tuple(run.run_id for run in arm.runs))
            name = metric.header
        same = metric is not None and metric.column == theirs.metric
        shown = _scaled(theirs.text, metric.factor) if metric and same else theirs.text
        their_name = metric.header if metric and same else theirs.metric
        cells = (text_cell(arm.label), text_cell(name), ours, text_cell(their_name), Cell(shown, theirs.value))
        lines.append((*cells, text_cell(theirs.source), text_cell(theirs.precision)))
    return lines


def _beside(table: Table, arm: Arm, published: str) -> tuple[Metric, Estimate] | None:
    """Our number that a published metric stands beside; None where the table has none."""
    if published == _PUBLISHED_HOURS:
        return HOURS, hours(arm)
    column = _OURS.get(published, published)
    return next(((m, arm.cells[m.column]) for m in table.metrics if m.column == column), None)


def _scaled(text: str, factor: float) -> str:
    """`text` times a power of ten, with as many digits as it has."""
    return format(Decimal(text).scaleb(round(math.log10(factor))), "f")
