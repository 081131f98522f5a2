"""The look of all pictures: colours, lines, axes.

Every figure is ten inches wide, so that its text is legible when it is shown 1,000 pixels wide. Nothing is told by
colour alone: lines differ in dash and marker, and the one colour map for shares gets lighter all the way.
Axes of arrays: N records, L layers.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from moe_sweeps.host.plain import drawn
from moe_sweeps.results.history import Floats, History, Series

WIDTH = 10.0  # inches

STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "moe_sweeps",  # equal data, equal file
}

# Blue is below the balanced share, grey is at it, yellow is above; lighter is always more, also without colour.
_SHADES = ["#08204a", "#34649f", "#9b9b9b", "#efb440", "#fff8d0"]
SHARES = LinearSegmentedColormap.from_list("shares", _SHADES).with_extremes(bad="#ffffff")

# The colours of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7f5fa8")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
STEP = "optimizer step"


def plain_axes(axes: Axes) -> Axes:
    """Faint grid, whole steps with thousands separators."""
    axes.grid(True, axis="both")
    axes.set_axisbelow(True)
    step_ticks(axes)
    return axes


def step_ticks(axes: Axes) -> None:
    """Whole steps with thousands separators; fewer ticks where panels stand side by side."""
    spec = axes.get_subplotspec()
    columns = spec.get_gridspec().ncols if spec is not None else 1
    axes.xaxis.set_major_locator(MaxNLocator(nbins={1: 6, 2: 5}.get(columns, 3), integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def line(axes: Axes, series: Series, label: str, place: int, *, dash: object = None, marker: str | None = None,
          width: float | None = None, every: int | None = None) -> None:  # fmt: skip
    """One line in the `place`-th style; its markers are offset against those of other lines."""
    count = len(series.steps)
    stride = every or max(1, count // 9)
    colour, again = COLOURS[place % len(COLOURS)], place // len(COLOURS)
    axes.plot(
        series.steps,
        series.values,
        label=drawn(label, most=120),
        color=colour,
        markerfacecolor="white" if again % 2 else colour,
        linestyle=DASHES[(place // 2 + again) % len(DASHES)] if dash is None else dash,
        marker=(MARKERS[place % len(MARKERS)] if marker is None else marker) or "None",
        markevery=((place * stride // 9) % stride, stride),
        linewidth=width,
    )


def end_point(axes: Axes, series: Series, label: str, place: int) -> None:
    """The final evaluation of the line in the `place`-th style: a large marker that no line leads to."""
    axes.plot(series.steps, series.values, label=drawn(label, most=120), color=COLOURS[place % len(COLOURS)],
              linestyle="none", marker=MARKERS[place % len(MARKERS)], markersize=9, markeredgecolor="black",
              zorder=4)  # fmt: skip


def band(axes: Axes, steps: Floats, values_NL: Floats, place: int) -> None:
    """From the lowest to the highest layer."""
    low, high = np.nanmin(values_NL, axis=1), np.nanmax(values_NL, axis=1)
    axes.fill_between(steps, low, high, color=COLOURS[place], alpha=0.15, linewidth=0)


def mark_collapse(axes: Axes, history: History) -> None:
    """A vertical line at the step at which the router had collapsed."""
    if history.collapse is not None and history.collapse.step is not None:
        label = f"collapsed at\nstep {history.collapse.step:,}"
        axes.axvline(history.collapse.step, color="#b00020", linewidth=1.4, label=label)


def legend(axes: Axes) -> None:
    """The legend, outside at the right."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=3)


def log_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers; 1, 2 and 5 in each decade unless there are many decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
