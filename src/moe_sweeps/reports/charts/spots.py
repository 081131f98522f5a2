"""Figures of final numbers without intervals: loss against balance, and grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_sweeps.host.plain import drawn
from moe_sweeps.records.numbers import BY_COLUMN, PRIMARY, Metric, metric_of
from moe_sweeps.reports.charts.along import compared
from moe_sweeps.reports.charts.canvas import caption, finish, log_if_wide, look, names_of, new_figure
from moe_sweeps.reports.charts.shown import ranked
from moe_sweeps.reports.layout import axis_values, grid_arms
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.tables import Arm, Table

MAXVIO = BY_COLUMN["val_maxvio_global"]
MOST_NAMED = 16  # points that can be told apart


def tradeoff(table: Table) -> Figure:
    """Loss against balance: the mean of each arm large, its seeds small; of many arms the best are named."""
    arms = [arm for arm in table.arms if _pairs(arm)]
    if not arms:
        raise NotRecorded("no finished run has both a loss and a MaxVio")
    best = [arm for arm in ranked(table) if arm in arms][:MOST_NAMED]
    figure = new_figure(table, 4.4)
    axes = figure.add_subplot()
    axes.grid(True)
    axes.set_axisbelow(True)
    _others(axes, [arm for arm in arms if arm not in best])
    names = names_of(arms)
    for place, arm in enumerate(arm for arm in arms if arm in best):
        _spot(axes, arm, place, names[arm.arm] + (" (baseline)" if arm.arm == table.baseline else ""))
    axes.set(xlabel=MAXVIO.axis, ylabel=PRIMARY.axis)
    log_if_wide(axes, "x", [x for arm in arms for x, _ in _pairs(arm)])
    seeds = "Small points are seeds, large ones their means" if any(len(_pairs(arm)) > 1 for arm in arms) else ""
    router = [arm for arm in table.arms if arm.done and arm not in arms]
    lacking = f"Not shown: {len(router)} arms without a router or without these numbers" if router else ""
    grey = (
        f"Grey: {len(arms) - len(best)} arms with a higher loss, which the table names" if len(best) < len(arms) else ""
    )
    tests = "No test is shown here; the forest shows them"
    return finish(figure, caption(table, [a for a in table.arms if a.done], seeds, grey, lacking, tests), legend=axes)


def _spot(axes: Axes, arm: Arm, place: int, name: str) -> None:
    points = np.array(_pairs(arm))
    colour, marker, filled = look(place)
    if len(points) > 1:
        axes.scatter(points[:, 0], points[:, 1], s=14, color=colour, marker=marker, alpha=0.5, linewidths=0)
    x, y = points.mean(axis=0)
    axes.scatter(x, y, s=70, marker=marker, label=name, edgecolors=colour, facecolors=colour if filled else "white")


def _others(axes: Axes, arms: Sequence[Arm]) -> None:
    if arms:
        means = np.array([np.mean(_pairs(arm), axis=0) for arm in arms])
        axes.scatter(means[:, 0], means[:, 1], s=26, color="#b0b0b0", linewidths=0, label=f"{len(arms)} other arms")


def _pairs(arm: Arm) -> list[tuple[float, float]]:
    keys = (MAXVIO.column, PRIMARY.column)
    return [(float(r[keys[0]]), float(r[keys[1]])) for r in arm.rows if all(r.get(k) is not None for k in keys)]


def heat(table: Table) -> Figure:
    """The grid of two settings as cells with their numbers, a panel a metric."""
    grid = table.definition.grid
    if grid is None:
        raise NotRecorded("the table is no grid")
    lines, tops = axis_values(table, grid.rows), axis_values(table, grid.columns)
    if not lines or not tops or not any(arm.done for arm in table.arms):
        raise NotRecorded("no run of the grid is done")
    across = max(1, min(len(grid.metrics), 12 // max(1, len(tops))))
    down = math.ceil(len(grid.metrics) / across)
    figure = new_figure(table, down * (0.9 + 0.62 * len(lines)))
    panels = figure.subplots(down, across, squeeze=False).flat
    for place, (axes, name) in enumerate(zip(panels, grid.metrics, strict=False)):
        _heat_panel(table, axes, metric_of(name), lines, tops)
        axes.set(xlabel=drawn(grid.columns), ylabel=drawn(grid.rows) if place % across == 0 else "")
        axes.set_title(drawn(metric_of(name).axis))
    for axes in list(panels)[len(grid.metrics) :]:
        axes.set_axis_off()
    outside = sum(grid.rows not in arm.settings or grid.columns not in arm.settings for arm in table.arms)
    notes = [
        "×: not asked for; words: why there is no number, or that the cell was found to differ from the baseline",
        f"Not shown: {outside} arms outside the grid" if outside else "",
    ]
    return finish(figure, caption(table, list(table.arms), *notes))


def _heat_panel(table: Table, axes: Axes, metric: Metric, lines: list[str], tops: list[str]) -> None:
    grid = table.definition.grid
    assert grid is not None
    cells = [[grid_arms(table, grid.rows, grid.columns, line, top) for top in tops] for line in lines]
    means_RC = np.array([[_mean(arms, metric) for arms in row] for row in cells])
    mesh = axes.imshow(np.ma.masked_invalid(means_RC), cmap="cividis", aspect="auto")
    axes.figure.colorbar(mesh, ax=axes, shrink=0.8)
    middle = np.nanmean([np.nanmin(means_RC), np.nanmax(means_RC)]) if np.isfinite(means_RC).any() else 0.0
    size = max(7.0, min(8.5, 100 / max(1, len(tops))))
    for (i, j), mean in np.ndenumerate(means_RC):
        if np.isfinite(mean):
            n = cells[i][j][0].cells[metric.column].n
            word = _word(table, cells[i][j][0], metric)
            axes.text(j, i, f"{mean:.{metric.digits}f}\n(n={n}){word}", ha="center", va="center", fontsize=size,
                      color="black" if mean > middle else "white")  # fmt: skip
        else:
            axes.text(j, i, _why_empty(cells[i][j]), ha="center", va="center", fontsize=size)
    axes.set_xticks(range(len(tops)), [drawn(top, most=40) for top in tops])
    axes.set_yticks(range(len(lines)), [drawn(line, most=40) for line in lines])


def _word(table: Table, arm: Arm, metric: Metric) -> str:
    """What the table's test says of a cell; empty for nothing."""
    if arm.arm == table.baseline:
        return "\nbaseline"
    found = compared(table, metric).get(arm.arm)
    return f"\n{'better' if found.better else 'worse'}" if found is not None and found.decided else ""


def _why_empty(arms: Sequence[Arm]) -> str:
    return "\n".join(f"{n} {outcome}" for arm in arms for outcome, n in arm.counts.items()) or "×"


def _mean(arms: Sequence[Arm], metric: Metric) -> float:
    mean = arms[0].cells[metric.column].mean if len(arms) == 1 else None
    return math.nan if mean is None else mean * metric.factor
