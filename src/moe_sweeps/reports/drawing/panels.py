"""Figures and their panels: titles, footnotes, a panel a layer, cells of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moe_sweeps.host.plain import drawn
from moe_sweeps.reports.drawing.style import SHARES, WIDTH, step_ticks
from moe_sweeps.results.history import Floats, History

MOST_PANELS = 12


def figure_of(history: History, title: str, height: float, note: str = "") -> Figure:
    """An empty figure of `height` inches with its title; below stand the run, `note`, and whether it collapsed."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(drawn(title), x=0.01, ha="left", fontsize=14, fontweight="bold")
    text = f"run {history.name}." + (f"  {note}" if note else "")
    if history.collapse is not None:
        text += f"  ROUTER COLLAPSED{history.collapse.when}: see index.md."
    figure.supxlabel(
        drawn(text), x=0.01, ha="left", fontsize=9, color="#505050" if history.collapse is None else "#b00020"
    )
    return figure


def panels_of(history: History, title: str, layers: Sequence[int], count: int, *, height: float,
            columns: int | None = None, sharey: bool = False, note: str = "") -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure with one panel for each of `layers`, of which the model has `count`."""
    columns = columns or (1 if len(layers) == 1 else 2 if len(layers) <= 4 else 3)
    rows = math.ceil(len(layers) / columns)
    notes = f"{left_out(layers, count)}  {note}".strip()
    figure = figure_of(history, title, 0.8 + rows * height + (0.6 if rows == 1 else 0), notes)
    grid = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    for spare in grid.flat[len(layers) :]:
        spare.set_axis_off()
    return figure, list(grid.flat[: len(layers)])


def chosen_layers(count: int) -> list[int]:
    """All layers, or twelve evenly chosen ones with the first and the last."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, MOST_PANELS))})


def left_out(layers: Sequence[int], count: int) -> str:
    """A note on layers that have no panel; empty when all have one."""
    return f"{len(layers)} of {count} layers, evenly chosen." if len(layers) < count else ""


def bar_length(figure: Figure) -> float:
    """Length of a colour bar as a fraction of the figure's height: five inches at most."""
    return min(1.0, 5.0 / float(figure.get_figheight()))


def label_outer(panels: Sequence[Axes], x: str, y: str) -> None:
    """Axis labels at the outside alone; the lowest panel of each column has the steps."""
    lowest = {_column(axes): axes for axes in panels}
    for axes in panels:
        is_lowest = lowest[_column(axes)] is axes
        axes.tick_params(labelbottom=is_lowest)
        axes.set_xlabel(x if is_lowest else "")
        axes.set_ylabel(y if _column(axes) == 0 else "")


def _column(axes: Axes) -> int:
    spec = axes.get_subplotspec()
    return spec.colspan.start if spec is not None else 0


def share_mesh(axes: Axes, borders: Floats, shares: Floats, halfrange: float) -> QuadMesh:
    """Rows of shares as coloured cells; the colour map's middle is the equal share."""
    rows = np.arange(len(shares) + 1) - 0.5
    norm = CenteredNorm(vcenter=halfrange, halfrange=halfrange)
    mesh = axes.pcolormesh(borders, rows, shares, cmap=SHARES, norm=norm, rasterized=True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    step_ticks(axes)
    axes.spines[:].set_visible(True)
    return mesh
