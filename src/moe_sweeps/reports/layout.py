"""The sheets of a table: differences to the baseline, a grid of two settings, and the published numbers.

Each is a function from a table to a sheet, or to None where it has nothing to show; a table's definition says which of
them it wants. The list of the arms itself is in rows.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from moe_sweeps.host.shell import quoted
from moe_sweeps.records.noise import SWEEP
from moe_sweeps.records.numbers import PRIMARY, Metric, metric_of, spell_probability
from moe_sweeps.records.words import tone
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.compare import INDEPENDENT, PAIRED, POWER, SINGLE, Comparison
from moe_sweeps.results.costs import HOURS, hours
from moe_sweeps.results.looks import LEVEL, MOST_LOOKS, level_of_look
from moe_sweeps.results.outcomes import ENDED, OUTCOMES
from moe_sweeps.results.published import published_values, setting
from moe_sweeps.results.stats import Estimate
from moe_sweeps.results.tables import Arm, Table
from moe_sweeps.results.timing import unlike

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
    made = [*grid_sheets(table), difference_sheet(table), *further_differences(table), published_sheet(table)]
    return [sheet for sheet in made if sheet is not None]


def spell_estimate(found: Estimate, metric: Metric) -> str:
    """Mean and half-width of its interval."""
    if found.mean is None:
        return NOTHING
    spread = "" if found.half_width is None else f" ± {metric.spell(found.half_width)}"
    return metric.spell(found.mean) + spread


# --- differences ------------------------------------------------------------------------------------------------------


def difference_sheet(table: Table) -> Sheet | None:
    """Each arm minus the baseline in the primary metric, with the test behind it. None for a table of one arm."""
    return _difference_sheet(table, PRIMARY, table.differences, "differences", _difference_notes(table))


def further_differences(table: Table) -> list[Sheet | None]:
    """The same for the other metrics of the table that have a better direction: a family of tests each."""
    notes = ["A family of tests of its own, like the one of the loss."]
    return [
        _difference_sheet(table, metric_of(column), found, f"differences-{column}", [*notes, *_scale_notes(column)])
        for column, found in table.others.items()
        if found
    ]


def _difference_sheet(
    table: Table, metric: Metric, found: Mapping[str, Comparison], name: str, notes: list[str]
) -> Sheet | None:
    if table.baseline is None or len(table.arms) < 2:
        return None
    base = table.arm(table.baseline)
    rows = [_difference_row(metric, arm, found.get(arm.arm)) for arm in table.arms if arm is not base]
    titles = ("arm", f"Δ {metric.header}", "interval", "seeds", "n", "p adj.", "P(better)", "detectable", "finding")
    numeric = (False, True, True, False, True, True, True, True, False)
    title = f"Difference to {base.label}" + ("" if metric is PRIMARY else f" in {metric.header}")
    return Sheet(name, title, titles, numeric, tuple(rows), tuple(notes))


def _difference_row(metric: Metric, arm: Arm, found: Comparison | None) -> tuple[Cell, ...]:
    if found is None:
        return (text_cell(arm.label), *[Cell(NOTHING)] * 7, Cell("no value on one side", kind="mark"))
    runs, kind = tuple(run.run_id for run in arm.runs), "grey" if found.grey else ""
    mark = tone(found.verdict)
    return (
        text_cell(arm.label),
        Cell(metric.spell_effect(found.difference), found.difference, runs, kind),
        Cell(interval_text(found), found.low, runs, kind),
        Cell(found.kind, found.kind, kind=kind),
        Cell(" and ".join(map(str, found.n)), float(min(found.n)), kind=kind),
        Cell(p_text(found.p_family), found.p_family, kind=kind),
        Cell(probability_text(found), found.probability_better, kind=kind),
        Cell(_detectable(metric, found), found.detectable, kind=kind),
        Cell(found.verdict, found.verdict, runs, mark),
    )


def interval_text(found: Comparison) -> str:
    """The interval of a difference as it is shown."""
    if found.low is None or found.high is None:
        return NOTHING
    return f"{found.metric.spell_effect(found.low)} to {found.metric.spell_effect(found.high)}"


def probability_text(found: Comparison) -> str:
    """The probability that an arm is better, as it is shown."""
    return NOTHING if found.probability_better is None else spell_probability(found.probability_better)


def p_text(p: float | None) -> str:
    """A p-value with three digits."""
    return NOTHING if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _detectable(metric: Metric, found: Comparison) -> str:
    if found.detectable is None:
        return NOTHING
    return metric.spell(found.detectable) if metric.scale == "linear" else metric.spell_effect(found.detectable)


def _scale_notes(column: str) -> list[str]:
    if metric_of(column).scale == "linear":
        return []
    return ["Compared by logarithms and shown as ratios, because seeds move it in proportion to its level."]


def _difference_notes(table: Table) -> list[str]:
    found = table.differences.values()
    notes = [floor_sentence(table)]
    if any(c.p_family is not None for c in found):
        level = level_of_look(table.looks)
        arms = sum(c.p_family is not None for c in found)
        notes.append(
            f"Look {table.looks} at this sweep: a finding has a corrected p below {level:g}, so that {MOST_LOOKS} looks"
            f" together err in at most {LEVEL:.0%} of tables. Intervals hold for all arms at once at {1 - level:.1%}. "
            f"p: corrected over {arms} arm{'s' * (arms != 1)} of this table, a family of its own beside the statements "
            "of the sweep; t-test on moderated variances, Holm, and on each arm's own spread (docs/results.md). "
            "P(better): that the arm is better than the baseline, by the same test, for this arm alone (not corrected)."
            f" Detectable, for planning alone: what a table with this spread finds with a chance of {POWER:.0%}."
        )
    if any(c.kind == PAIRED for c in found):
        notes.append("Paired by seed: seeds are shown to move all arms together, and what they do to all is taken out.")
    if any(c.kind == INDEPENDENT for c in found):
        notes.append("Independent: seeds are not shown to move the arms together, or their runs began differently.")
    if extra := sum(len(arm.elsewhere) for arm in table.arms):
        notes.append(
            f"{extra} run{'s' * (extra != 1)} of these arms that other sweeps asked for count{'s' * (extra == 1)} here."
        )
    return notes


def floor_sentence(table: Table) -> str:
    """What is known about noise, and what follows for a table of single seeds."""
    single = any(c.kind == SINGLE for c in table.differences.values()) or all(arm.done <= 1 for arm in table.arms)
    if table.floor is None:
        text = f"Noise was not measured for runs like these (make sweep NAME={SWEEP}{_scale_argument(table)})"
        return text + (", so from one seed nothing can be concluded about any difference." if single else ".")
    floor = PRIMARY.spell(table.floor.difference)
    text = f"Noise: seeds alone move the difference of two runs in {PRIMARY.header} by up to {floor} in 19 of 20 cases"
    text += f" (standard deviation {PRIMARY.spell(table.floor.sd)}, from {table.floor.runs} alike runs of arms with"
    text += " several seeds)."
    if not single:
        return text
    return text + " One seed: the arm is taken to scatter like those, which nothing here can check."


def _scale_argument(table: Table) -> str:
    """The scale of a table as an argument of `make sweep`, with quotes that hold whatever a run folder calls it."""
    if len(table.scales) != 1:
        return ""
    (scale,) = table.scales
    is_word = all(c.isalnum() or c in "._-" for c in scale)
    return f' ARGS="scale={scale}"' if is_word else f" {quoted(f'ARGS=scale={scale}')}"


# --- grid -------------------------------------------------------------------------------------------------------------


def grid_sheets(table: Table) -> list[Sheet]:
    """One sheet a metric with one setting down the side and another along the top."""
    grid = table.definition.grid
    if grid is None:
        return []
    lines, tops = axis_values(table, grid.rows), axis_values(table, grid.columns)
    if not lines or not tops:
        return []
    return [_grid_sheet(table, metric_of(name), grid.rows, grid.columns, lines, tops) for name in grid.metrics]


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
    compared = table.differences if metric is PRIMARY else table.others.get(metric.column, {})
    comparison = compared.get(arm.arm)
    kind = "mark" if marks else "grey" if comparison is not None and comparison.grey else ""
    few = f" (n={found.n})" if found.n < arm.seeds_planned else ""
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
            few = f" (n={found.n})" if 0 < found.n < arm.seeds_planned else ""
            ours = Cell(spell_estimate(found, metric) + few, found.mean, tuple(run.run_id for run in arm.runs))
            name = metric.header
        same = metric is not None and metric.column == theirs.metric
        shown = _scaled(theirs.text, metric.factor) if metric and same else theirs.text
        their_name = metric.header if metric and same else theirs.metric
        cells = (text_cell(arm.label), text_cell(name), ours, text_cell(their_name), Cell(shown, theirs.value))
        lines.append((*cells, text_cell(theirs.source), text_cell(theirs.precision)))
    return lines


def _beside(table: Table, arm: Arm, published: str) -> tuple[Metric, Estimate] | None:
    """Our number that a published metric stands beside; None where the table has none, or times of several machines."""
    if published == _PUBLISHED_HOURS:
        return None if unlike([row for each in table.arms for row in each.rows]) else (HOURS, hours(arm))
    column = _OURS.get(published, published)
    return next(((m, arm.cells[m.column]) for m in table.metrics if m.column == column), None)


def _scaled(text: str, factor: float) -> str:
    """`text` times a power of ten, with as many digits as it has."""
    return format(Decimal(text).scaleb(round(math.log10(factor))), "f")
