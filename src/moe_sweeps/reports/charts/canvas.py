"""The sheet of a table's figure: title above, panels, and below them legend and caption, each in a place of its own.

Lengths are in inches. A legend is measured before the figure gets its height, so that it never takes room from the
panels; what would be too much for one figure is left out, and the caption says so.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from moe_sweeps.host.plain import drawn
from moe_sweeps.reports.drawing.style import COLOURS, MARKERS, WIDTH
from moe_sweeps.results.tables import Arm, Table

TOP, LINE, MARGIN = 0.45, 0.155, 0.12  # room for the title, a line of the caption, around both
MOST_COLUMNS = 4  # of a legend
NAME_WIDTH = 64  # characters of a line in a legend
NAME_MOST = 240


def new_figure(table: Table, height: float) -> Figure:
    """An empty figure with `height` for its panels, and the table's title."""
    return sheet(table.definition.title or table.title, height)


def sheet(title: str, height: float) -> Figure:
    """An empty figure with `height` for its panels, and a title."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(drawn(title, most=90), x=0.01, ha="left", fontsize=14, fontweight="bold").set_in_layout(False)
    return figure


def finish(figure: Figure, caption: str, *, legend: Axes | None = None) -> Figure:
    """Put caption and legend (the labelled lines of `legend`) below the panels, in a figure that is so much higher."""
    height = float(figure.get_figheight())
    text = textwrap.fill(drawn(caption), 140)
    below = MARGIN + LINE * (text.count("\n") + 1)
    handles, labels = legend.get_legend_handles_labels() if legend is not None else ([], [])
    box = _widest(figure, handles, labels) if handles else None
    room = 0.0 if box is None else box.get_window_extent(_renderer(figure)).height / figure.dpi + MARGIN
    whole = TOP + height + room + below
    figure.set_size_inches(WIDTH, whole)
    figure.get_layout_engine().set(rect=(0, (room + below) / whole, 1, 1 - (TOP + room + below) / whole))  # type: ignore[call-arg, union-attr]
    if box is not None:
        box.set_bbox_to_anchor((0.01, below / whole), transform=figure.transFigure)
    figure.supxlabel(text, x=0.01, y=0.5 * MARGIN / whole, ha="left", va="bottom", fontsize=9,
                     color="#505050").set_in_layout(False)  # fmt: skip
    title: Any = figure._suptitle  # type: ignore[attr-defined]
    title.set_y(1 - MARGIN / whole)
    return figure


def _widest(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> Any:
    """The legend with as many columns as the width holds."""
    texts = [drawn("\n".join(textwrap.wrap(label, NAME_WIDTH)), most=NAME_MOST) for label in labels]
    for columns in range(min(MOST_COLUMNS, len(texts)), 0, -1):
        box = figure.legend(handles, texts, loc="lower left", ncols=columns, handlelength=3, fontsize=9,
                            borderaxespad=0.0, labelspacing=0.4)  # fmt: skip
        box.set_in_layout(False)
        if columns == 1 or box.get_window_extent(_renderer(figure)).width <= (WIDTH - 0.3) * figure.dpi:
            return box
        box.remove()
    return None


def _renderer(figure: Figure) -> Any:
    canvas: Any = FigureCanvasAgg(figure)
    return canvas.get_renderer()


# --- names ------------------------------------------------------------------------------------------------------------


def names_of(arms: Sequence[Arm]) -> dict[str, str]:
    """Arm id -> its label, in which settings that always go together are one: a.{b, c}=1 for a.b=1 a.c=1."""
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for key in dict.fromkeys(key for arm in arms for key in arm.settings):
        groups.setdefault(tuple(arm.settings.get(key) for arm in arms), []).append(key)
    if all(len(keys) == 1 for keys in groups.values()):
        return {arm.arm: arm.label for arm in arms}
    found = {arm.arm: _name(place, groups) or arm.label for place, arm in enumerate(arms)}
    return found if len(set(found.values())) == len(arms) else {arm.arm: arm.label for arm in arms}


def _name(place: int, groups: Mapping[tuple[str | None, ...], list[str]]) -> str:
    parts = ((_together(keys), values[place]) for values, keys in groups.items())
    return " ".join(f"{key}={value}" for key, value in parts if value is not None)


def _together(keys: Sequence[str]) -> str:
    heads = {key.rpartition(".")[0] for key in keys}
    if len(keys) == 1 or len(heads) > 1 or heads == {""}:
        return "=".join(keys)
    return f"{heads.pop()}.{{{', '.join(key.rpartition('.')[2] for key in keys)}}}"


def wrapped(name: str, width: int) -> str:
    """A name in lines of at most `width` characters, broken between settings where it can be."""
    return drawn("\n".join(textwrap.wrap(name, width, break_on_hyphens=False)), most=NAME_MOST)


# --- captions ---------------------------------------------------------------------------------------------------------


def caption(table: Table, arms: Sequence[Arm], *notes: str, rest: str = "the baseline and the best") -> str:
    """The caption: what n is, which arms are shown (`rest`: the rule), how many runs are missing, and further notes."""
    counts = sorted({arm.seeds_done for arm in arms if arm.done})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    seeds = "seed" if counts == [1] else "seeds"
    finished = [arm for arm in table.arms if arm.done]
    some = f" {len(arms)} of {len(finished)} arms: {rest}." if len(arms) < len(finished) else ""
    gaps = sum(n for k, n in table.counts.items() if k != "done")
    missing = f" {gaps} of {table.counts.total()} runs have no number and are not drawn." if gaps else ""
    text = f"{table.title}, scale {', '.join(table.scales)}; {n} {seeds} an arm.{some}{missing}"
    return " ".join([text, *(f"{note}." for note in notes if note)])


def elsewhere(table: Table) -> str:
    """That differences rest on more runs than the arms of this sweep have; empty where they do not."""
    extra = sum(len(arm.elsewhere) for arm in table.arms)
    return f"Differences count {extra} runs of these arms that other sweeps asked for, too" if extra else ""


# --- looks ------------------------------------------------------------------------------------------------------------


def look(place: int) -> tuple[str, str, bool]:
    """Colour, marker, and whether it is filled, of the `place`-th arm."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], place % 16 < len(COLOURS)


def log_if_wide(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis where values span more than a factor of 20, with plain numbers on it."""
    if values and min(values) > 0 and max(values) >= 20 * min(values):
        log_axis(axes, which)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers on it."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x-axis from `low` to `high` with four to six round ratios on it, 1 among them."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 5, 10, 20, 50, 100)
    inside = [step for step in steps if low <= step <= high]
    apart = (math.log(high) - math.log(low)) / 7
    ticks = [1.0] if low <= 1 <= high else []
    for step in sorted(inside, key=lambda step: abs(math.log(step))):
        if all(abs(math.log(step / tick)) >= apart for tick in ticks):
            ticks.append(step)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def number(text: str | None) -> float | None:
    """The finite number that a setting is; None where it is none."""
    try:
        found = None if text is None else float(text)
    except ValueError:
        return None
    return found if found is not None and math.isfinite(found) else None
