"""How a cost table looks: in the terminal, as Markdown, and as CSV with every digit."""

from __future__ import annotations

import csv
import io

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.host.plain import csv_cell, markdown_text
from moe_sweeps.records.numbers import Metric
from moe_sweeps.reports.headings import heading
from moe_sweeps.reports.markdown import pipes
from moe_sweeps.reports.notes import warning
from moe_sweeps.reports.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.costs import COSTS, CostTable
from moe_sweeps.results.stats import CONFIDENCE
from moe_sweeps.results.tables import Arm

# Half-widths stand beside these alone; the rest would not fit beside them, and costs.csv has all.
WITH_INTERVAL = frozenset({"relative", "loss_at_steps", "loss_at_seconds"})


def terminal(costs: CostTable) -> RenderableType:
    """A cost table with its notes."""
    columns = [Column(title, right=place >= _names(costs), folds=place < _names(costs))
               for place, title in enumerate(_header(costs))]  # fmt: skip
    grid = FoldedTable(columns, [_row(costs, arm, " ±") for arm in costs.table.arms])
    notes = [Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False) for line in notes_of(costs)]
    return Group(Text(f"Costs of {costs.table.title}", style="bold"), grid, *notes, Text())


def markdown(costs: CostTable) -> str:
    """A cost table with its notes as GitHub Markdown."""
    names, titles = _names(costs), _header(costs)
    rules = ["---" if i < names else "---:" for i in range(len(titles))]
    rows = [pipes(_row(costs, arm, " ± ")) for arm in costs.table.arms]
    title = heading(costs.table.title, before="Costs of ")
    notes = [f"- {markdown_text(line)}" for line in notes_of(costs)]
    return "\n".join([title, "", pipes(titles), pipes(rules, escaped=True), *rows, "", *notes]) + "\n"


def csv_text(costs: CostTable) -> str:
    """One line per arm with every digit: mean, interval and n of each column."""
    records = []
    for arm in costs.table.arms:
        record: dict[str, object] = {"arm": arm.arm, "label": arm.label}
        for metric in COSTS:
            found = costs.cells[arm.arm][metric.column]
            values = {"mean": found.mean, "ci95_half_width": found.half_width, "n": found.n}
            record |= {f"{metric.column}_{k}": v for k, v in values.items()}
        records.append(record | {"equal_steps": costs.steps, "equal_seconds": costs.seconds})
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in record.items()} for record in records)
    return out.getvalue()


def notes_of(costs: CostTable) -> list[str]:
    """What the columns are, and what may not be concluded from them."""
    incomplete = warning(costs.table)
    lines = [
        *([incomplete] if incomplete else []),
        *(f"no loss at equal steps or time: {p.path.name}, {p.reason}" for p in costs.damaged),
        "ms per step: all steps; forward, backward, optimizer: the timed ones; the rest is data, clipping, logging",
        f"relative time: to {costs.baseline.label}, with an interval for the spread of both over their runs, which "
        "holds how busy the machine was; none from one run a side",
        f"means over done runs, ± half-width of the {CONFIDENCE:.0%} t-interval over seeds; costs.csv has the others",
    ]
    if costs.steps is not None:
        lines.append(f"equal steps: after {costs.steps:,} steps, evaluated on the same windows")
    if costs.seconds is not None:
        where = (
            f"after {costs.seconds:.4g} s of training steps, on a line between evaluations, where every run got so far"
        )
        lines.append(f"equal time: {where}; the learning rate of a slower arm has not come down there yet")
    if costs.unlike:
        lines.append(f"NOT COMPARABLE: {costs.unlike}, so no arm has a relative time or a loss at equal time")
    return lines


def _names(costs: CostTable) -> int:
    """Columns that name the arm."""
    return len(costs.table.axes) or 1


def _header(costs: CostTable) -> list[str]:
    return [*(costs.table.axes or ["arm"]), "seeds", *(metric.header for metric in COSTS)]


def _row(costs: CostTable, arm: Arm, plus_minus: str) -> list[str]:
    names = [arm.settings.get(axis, NOTHING) for axis in costs.table.axes] or [arm.label]
    numbers = (_cell(costs, arm, metric, plus_minus) for metric in COSTS)
    return [*names, f"{arm.seeds_done}/{arm.seeds_planned}", *numbers]


def _cell(costs: CostTable, arm: Arm, metric: Metric, plus_minus: str) -> str:
    found = costs.cells[arm.arm][metric.column]
    if found.mean is None:
        return NOTHING
    text = f"{found.mean * metric.factor:.{metric.digits}f}"
    if found.half_width is not None and metric.column in WITH_INTERVAL:
        text += f"{plus_minus}{found.half_width * metric.factor:.{metric.digits}f}"
    return text + (f"{plus_minus[0]}(n={found.n})" if found.n < arm.done else "")


def cost_sheet(costs: CostTable) -> Sheet:
    """A cost table as a sheet."""
    names, rows = _names(costs), []
    for arm in costs.table.arms:
        texts, runs = _row(costs, arm, " ± "), tuple(run.run_id for run in arm.runs)
        means = (costs.cells[arm.arm][metric.column].mean for metric in COSTS)
        seeds = Cell(texts[names], float(arm.seeds_done), runs, "" if arm.done == len(arm.runs) else "mark")
        numbers = (Cell(text, mean, runs) for text, mean in zip(texts[names + 1 :], means, strict=True))
        rows.append((*map(text_cell, texts[:names]), seeds, *numbers))
    numeric = tuple(place >= names for place in range(names + 1 + len(COSTS)))
    return Sheet("costs", "Costs", tuple(_header(costs)), numeric, tuple(rows), tuple(notes_of(costs)))
