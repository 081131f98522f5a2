"""The statements of all sweeps in one figure: each with its effect, its interval, and the border where it turns.

Statements about the same number share a panel, whose axis has that number's unit: a common scale of significance would
hide how large effects are. A statement holds on one side of its border, or between its two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFTBASE, CARETRIGHTBASE
from matplotlib.ticker import MaxNLocator

from moe_sweeps.records.numbers import Metric, metric_of
from moe_sweeps.records.words import CONTRADICTED, REPRODUCED
from moe_sweeps.reports.charts.canvas import finish, ratio_axis, sheet, wrapped
from moe_sweeps.reports.drawing.style import COLOURS
from moe_sweeps.results.findings import VERDICTS, Effect, Verdict
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.tables import Table

MOST_ROWS = 60
LABEL_WIDTH = 56  # characters of a line
_LINE = 0.16  # inches
_TOWARDS = {1: CARETRIGHTBASE, -1: CARETLEFTBASE, 0: ""}  # where the statement holds
_MARKS = {REPRODUCED: ("o", COLOURS[0], True), CONTRADICTED: ("X", COLOURS[1], True)}
_OPEN = ("o", "#707070", False)


class _Row(NamedTuple):
    sweep: str
    verdict: Verdict
    effect: Effect


def statements(judged: Sequence[tuple[Table, Sequence[Verdict]]]) -> Figure:
    """Every statement that has an effect, decided ones first in each panel.

    Raises:
        NotRecorded: none has.
    """
    rows = [_Row(table.manifest.name, v, v.effect) for table, found in judged for v in found if v.effect is not None]
    if not rows:
        raise NotRecorded("no statement has an effect yet")
    rows.sort(key=lambda row: VERDICTS.index(row.verdict.verdict))
    panels = _panels(rows[:MOST_ROWS])
    heights = [0.75 + _LINE * _places(each)[-1] for each in panels]
    figure = sheet("Statements put to the test", sum(heights) + 0.2)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    cut = [_panel(axes, panel) for axes, panel in zip(grid, panels, strict=True)]
    return finish(figure, _caption(sum(len(found) for _, found in judged), len(rows), any(cut)))


def _panels(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows about the same number together, the largest group first."""
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.verdict.metric, row.effect.what), []).append(row)
    return sorted(groups.values(), key=len, reverse=True)


def _label(row: _Row) -> str:
    return wrapped(f"{row.verdict.claim} [{row.sweep}]", LABEL_WIDTH)


def _places(rows: Sequence[_Row]) -> list[float]:
    """The middle of each label in lines from the top, and where the last ends."""
    sizes = [_label(row).count("\n") + 1.7 for row in rows]
    ends = [*itertools.accumulate(sizes)]
    return [*(end - size / 2 for end, size in zip(ends, sizes, strict=True)), ends[-1]]


def _panel(axes: Axes, rows: Sequence[_Row]) -> bool:
    """Draw one panel; whether intervals leave it."""
    metric = metric_of(rows[0].verdict.metric)
    on_axis, off_axis = _scale(rows[0].effect, metric)
    low, high = _reach([[*map(off_axis, _numbers(row.effect))] for row in rows])
    *places, end = _places(rows)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    cut = [_draw(axes, row, place, low, high, off_axis, on_axis) for row, place in zip(rows, places, strict=True)]
    axes.set_yticks(places, map(_label, rows), fontsize=8.5)
    axes.set_ylim(end, 0)
    axes.tick_params(axis="y", length=0)
    _ends(axes, rows[0].effect, metric, low, high, on_axis)
    return any(cut)


def _scale(effect: Effect, metric: Metric) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From the scale on which intervals are even to the axis, and from an effect to that scale."""
    if effect.what == "ratio":
        return math.exp, lambda value: math.log(value) if value > 0 else -math.inf
    return (lambda value: value * metric.factor), float


def _numbers(effect: Effect) -> list[float]:
    """Effect, border or borders, ends of the interval."""
    ends = (effect.low, effect.high)
    return [effect.value, *effect.borders, *(edge for edge in ends if edge is not None)]


def _reach(numbers: Sequence[Sequence[float]]) -> tuple[float, float]:
    """From where to where a panel goes: all effects and borders, and intervals up to a few of their usual lengths."""
    finite = [[x for x in row if math.isfinite(x)] or [0.0] for row in numbers]
    lengths = [max(row) - min(row) for row in finite]
    middles = [row[0] for row in finite]
    room = 2.5 * float(np.median(lengths)) or 1.0
    low = max(min(map(min, finite)), min(middles) - room)
    high = min(max(map(max, finite)), max(middles) + room)
    return low, high


def _draw(axes: Axes, row: _Row, place: float, low: float, high: float, off_axis: Callable[[float], float],
          on_axis: Callable[[float], float]) -> bool:  # fmt: skip
    """One statement: its border, its interval and its effect; whether the interval is cut."""
    marker, colour, filled = _MARKS.get(row.verdict.verdict, _OPEN)
    side = row.effect.side
    borders = [on_axis(min(max(x, low), high)) for x in map(off_axis, row.effect.borders)]
    if len(borders) == 2:
        axes.fill_betweenx((place - 0.65, place + 0.65), borders[0], borders[1], color="#dedede", linewidth=0)
    axes.vlines(borders, place - 0.65, place + 0.65, color="black", linewidth=1.8)
    axes.plot(
        borders if side else [],
        [place] * len(borders) if side else [],
        color="black",
        marker=_TOWARDS[side],
        markersize=5,
    )
    ends = [off_axis(edge) for edge in (row.effect.low, row.effect.high) if edge is not None]
    inside = [on_axis(min(max(edge, low), high)) for edge in ends]
    if inside:
        axes.plot(inside, [place, place], color=colour, linewidth=1.7, solid_capstyle="butt")
    axes.plot([on_axis(off_axis(row.effect.value))], [place], linestyle="none", marker=marker, color=colour,
              markerfacecolor=colour if filled else "white", markersize=7)  # fmt: skip
    words = f"{row.verdict.verdict}, n {', '.join(map(str, row.effect.n))}"
    axes.text(1.02, place, words, transform=axes.get_yaxis_transform(), va="center", fontsize=8,
              color=colour)  # fmt: skip
    return any(not low <= edge <= high for edge in ends)


def _ends(axes: Axes, effect: Effect, metric: Metric, low: float, high: float, on_axis: Callable[[float], float]) -> None:  # fmt: skip  # noqa: E501
    margin = 0.05 * (high - low) or 0.1
    edges = on_axis(low - margin), on_axis(high + margin)
    if effect.what == "ratio":
        ratio_axis(axes, *edges)
        axes.set_xlabel(f"ratio of {metric.axis.split(' (')[0]}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlim(*edges)
        axes.set_xlabel(f"{effect.what} {'of' if effect.what.startswith('standard') else 'in'} {metric.axis}")


def _caption(asked: int, there: int, cut: bool) -> str:
    notes = [
        "Point and line: the effect and its interval, corrected over the statements of its sweep",
        "Black line: where the statement turns; it holds where the arrow points, or between two lines",
        "Blue disc: reproduced; orange cross: contradicted; hollow: undecided",
        "What decides is the test: of arms along a setting only the closest pair, or both ends, is drawn",
        f"Not shown, as they have no number: {asked - there} of {asked}" if there < asked else "",
        f"{MOST_ROWS} of {there} statements are shown, the decided ones first" if there > MOST_ROWS else "",
        "Lines that end at the edge go on" if cut else "",
    ]
    return " ".join(f"{note}." for note in notes if note)
