"""How a cost table looks: in the terminal, as Markdown, and as CSV with every digit."""

from __future__ import annotations

import csv
import io

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from moe_sweeps.results.columns import Metric
from moe_sweeps.results.costs import COSTS, CostTable
from moe_sweeps.results.markdown import pipes
from moe_sweeps.results.notes import warning
from moe_sweeps.results.sheets import NOTHING, Cell, Sheet, text_cell
from moe_sweeps.results.stats import CONFIDENCE
from moe_sweeps.results.tables import Arm

# Half-widths stand beside these alone; the rest would not fit beside them, and costs.csv has all.
WITH_INTERVAL = frozenset({"relative", "loss_at_steps", "loss_at_seconds"})


def terminal(costs: CostTable) -> RenderableType:
    """A cost table with its notes."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for i, title in enumerate(_header(costs)):
        grid.add_column(title.replace(" ", "\n"), justify="left" if i < _names(costs) else "right", overflow="fold")
    for arm in costs.table.arms:
        grid.add_row(*(Text(text) for text in _row(costs, arm, "\n±")))
    notes = [Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False) for line in notes_of(costs)]
    return Group(Text(f"Costs of {costs.table.title}", style="bold"), grid, *notes, Text())


def markdown(costs: CostTable) -> str:
    """A cost table with its notes as GitHub Markdown."""
    names, titles = _names(costs), _header(costs)
    rules = ["---" if i < names else "---:" for i in range(len(titles))]
    rows = [pipes(_row(costs, arm, " ± ")) for arm in costs.table.arms]
    notes = [f"- {line}" for line in notes_of(costs)]
    return "\n".join([f"# Costs of {costs.table.title}", "", pipes(titles), pipes(rules), *rows, "", *notes]) + "\n"


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
    writer.writerows(records)
    return out.getvalue()


def notes_of(costs: CostTable) -> list[str]:
    """What the columns are, and what may not be concluded from them."""
    incomplete = warning(costs.table)
    lines = [
        *([incomplete] if incomplete else []),
        "ms per step: all steps; forward, backward, optimizer: the timed ones; the rest is data, clipping, logging",
        f"relative time: to {costs.baseline.label}",
        f"means over done runs, ± half-width of the {CONFIDENCE:.0%} t-interval over seeds; costs.csv has the others",
    ]
    if costs.steps is not None:
        lines.append(f"equal steps: after {costs.steps:,} steps, evaluated on the same windows")
    if costs.seconds is not None:
        where = (
            f"after {costs.seconds:.4g} s of training steps, on a line between evaluations, where every run got so far"
        )
        lines.append(f"equal time: {where}; the learning rate of a slower arm has not come down there yet")
    if len(costs.hosts) > 1:
        lines.append(f"NOT COMPARABLE without care: timed on {len(costs.hosts)} hosts ({', '.join(costs.hosts)})")
    return lines


def _names(costs: CostTable) -> int:
    """Columns that name the arm."""
    return len(costs.table.axes) or 1


def _header(costs: CostTable) -> list[str]:
    return [*(costs.table.axes or ["arm"]), "seeds", *(metric.header for metric in COSTS)]


def _row(costs: CostTable, arm: Arm, plus_minus: str) -> list[str]:
    names = [arm.settings.get(axis, NOTHING) for axis in costs.table.axes] or [arm.label]
    numbers = (_cell(costs, arm, metric, plus_minus) for metric in COSTS)
    return [*names, f"{arm.done}/{len(arm.runs)}", *numbers]


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
        seeds = Cell(texts[names], float(arm.done), runs, "" if arm.done == len(arm.runs) else "mark")
        numbers = (Cell(text, mean, runs) for text, mean in zip(texts[names + 1 :], means, strict=True))
        rows.append((*map(text_cell, texts[:names]), seeds, *numbers))
    numeric = tuple(place >= names for place in range(names + 1 + len(COSTS)))
    return Sheet("costs", "Costs", tuple(_header(costs)), numeric, tuple(rows), tuple(notes_of(costs)))
