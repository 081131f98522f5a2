"""Figures of differences to the baseline at the end: their bars are the intervals of the table's test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy

from moe_sweeps.host.plain import drawn
from moe_sweeps.records.numbers import BY_COLUMN, PRIMARY, Metric, spell_probability
from moe_sweeps.reports.charts.canvas import (
    caption,
    elsewhere,
    finish,
    log_if_wide,
    look,
    names_of,
    new_figure,
    number,
    ratio_axis,
    wrapped,
)
from moe_sweeps.reports.charts.shown import MOST_ARMS, ranked
from moe_sweeps.reports.drawing.style import COLOURS, DASHES
from moe_sweeps.results.compare import PAIRED, Comparison
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.tables import Arm, Table

MAXVIO = BY_COLUMN["val_maxvio_global"]
MOST_ROWS = 36  # of a forest
_GREY = "#707070"


def compared(table: Table, metric: Metric) -> dict[str, Comparison]:
    """The table's differences in a metric, by arm."""
    return table.differences if metric is PRIMARY else table.others.get(metric.column, {})


# --- forest -----------------------------------------------------------------------------------------------------------


def forest(table: Table) -> Figure:
    """Differences to the baseline with intervals that hold together, over the band that seeds alone explain."""
    metrics = [m for m in (PRIMARY, MAXVIO) if any(c.low is not None for c in compared(table, m).values())]
    if PRIMARY not in metrics or table.baseline is None:
        raise NotRecorded("no arm has a difference with an interval")
    arms = _rows(table)
    names = names_of([table.arm(table.baseline), *arms])
    labels = [wrapped(names[arm.arm], 44) for arm in arms]
    lines = [label.count("\n") + 1 for label in labels]
    places = [*itertools.accumulate(((a + b) / 2 + 0.7 for a, b in itertools.pairwise(lines)), initial=0.0)]
    figure = new_figure(table, 1.1 + 0.155 * (places[-1] + 0.5 * (lines[0] + lines[-1])))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    notes = [_forest_panel(axes, table, metric, arms, places) for axes, metric in zip(panels, metrics, strict=True)]
    panels[0].set_yticks(places, labels, fontsize=9)
    panels[0].set_ylim(places[-1] + 0.5 * lines[-1] + 0.6, -0.5 * lines[0] - 0.6)
    return finish(figure, _forest_caption(table, arms, names[table.baseline], len(metrics) > 1, any(notes)))


def _rows(table: Table) -> list[Arm]:
    """The arms with an interval in the order of the design; of many those that differ most, the decided ones first."""
    found = {a: c for a, c in table.differences.items() if c.low is not None}
    first = sorted(found, key=lambda a: (not found[a].decided, -abs(found[a].difference)))[:MOST_ROWS]
    return [arm for arm in table.arms if arm.arm in first]


def _forest_panel(axes: Axes, table: Table, metric: Metric, arms: Sequence[Arm], places: Sequence[float]) -> bool:
    """One metric's intervals; whether some leave the panel."""
    found, shown = compared(table, metric), on_axis(metric)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
    floor = table.floor if metric is PRIMARY else table.alike.floor(metric)
    if floor is not None:
        axes.axvspan(shown(-floor.difference), shown(floor.difference), color="#dedede", zorder=0)
    axes.axvline(shown(0.0), color="#505050", linewidth=1)
    here = [(place, found[arm.arm]) for place, arm in zip(places, arms, strict=True) if arm.arm in found]
    low, high, cut = reach([c for _, c in here], 0.0 if floor is None else floor.difference)
    for place, c in here:
        x, colour = shown(c.difference), COLOURS[0] if c.decided else _GREY
        bars = [[x - shown(max(c.low, low))], [shown(min(c.high, high)) - x]] if c.low is not None and c.high is not None else None  # fmt: skip  # noqa: E501
        axes.errorbar(x, place, xerr=bars, color=colour, marker="o", markerfacecolor=colour if c.decided else "white",
                      capsize=4)  # fmt: skip
    _probabilities(axes, here)
    _ends(axes, metric, low, high)
    return cut


def _probabilities(axes: Axes, here: Sequence[tuple[float, Comparison]]) -> None:
    """A column at the right of a panel: the probability of each arm to be better, on the line of its interval."""
    known = [(place, c.probability_better) for place, c in here if c.probability_better is not None]
    across = axes.get_yaxis_transform()
    for place, probability in known:
        axes.text(1.02, place, spell_probability(probability), transform=across, va="center", fontsize=8)
    if known:
        axes.text(1.02, 1.01, "P(better)", transform=axes.transAxes, va="bottom", fontsize=8, color="#505050")


def reach(found: Sequence[Comparison], floor: float) -> tuple[float, float, bool]:
    """From where to where a panel goes on the metric's scale, and whether intervals are cut there.

    One arm with two wild seeds has an interval that would press all others into a line.
    """
    known = [c for c in found if c.low is not None and c.high is not None]
    halves = [0.5 * (float(c.high or 0.0) - float(c.low or 0.0)) for c in known]
    limit = max([abs(c.difference) for c in found]) + 3 * (float(np.median(halves)) if halves else 0.0)
    limit = max(limit, 1.1 * floor) or 1.0
    low = max(min([-floor, 0.0, *(c.difference for c in found), *(float(c.low or 0.0) for c in known)]), -limit)
    high = min(max([floor, 0.0, *(c.difference for c in found), *(float(c.high or 0.0) for c in known)]), limit)
    cut = any(float(c.low or 0.0) < low or float(c.high or 0.0) > high for c in known)
    return low, high, cut


def _ends(axes: Axes, metric: Metric, low: float, high: float) -> None:
    margin = 0.05 * (high - low) or 1.0
    if metric.scale == "log":
        ratio_axis(axes, math.exp(low - margin), math.exp(high + margin))
        axes.set_xlabel(f"ratio of {metric.axis.split(' (')[0]}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim((low - margin) * metric.factor, (high + margin) * metric.factor)
        axes.set_xlabel(f"difference in {metric.axis}")


def on_axis(metric: Metric) -> Callable[[float], float]:
    """From the scale of statistics to what a panel shows."""
    return (lambda v: math.exp(min(v, 700.0))) if metric.scale == "log" else (lambda v: v * metric.factor)


def _forest_caption(table: Table, arms: Sequence[Arm], baseline: str, two: bool, cut: bool) -> str:
    note = (
        "Bars: intervals that hold for all arms at once; filled: found to differ. Grey band: what seeds alone explain"
    )
    note += ", for two single runs. P(better): probability that the arm is better than the baseline, not corrected"
    left = [a for a in table.arms if a.arm != table.baseline and a.done and a not in arms]
    none = [a for a in left if (c := table.differences.get(a.arm)) is None or c.low is None]
    return caption(
        table, [arm for arm in table.arms if arm.done],
        f"Against {drawn(baseline, most=160)}; left is {'better balanced, or ' if two else ''}a better model",
        note,
        elsewhere(table),
        "Bars that leave the panel are cut at its edge" if cut else "",
        f"Not shown: {len(none)} arms without an interval" if none else "",
        f"Not shown: {len(left) - len(none)} undecided arms that are closest to the baseline (the table has them)"
        if len(left) > len(none) else "",
    )  # fmt: skip


# --- along a setting --------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """Arms that differ in the axis alone, by its value; `name`: the settings that other lines have otherwise."""

    name: str
    arms: tuple[Arm, ...]


class _Spot(NamedTuple):
    """An arm's level in the shown unit, and its interval against the baseline (None: it is the baseline, or none)."""

    x: float
    y: float
    bars: tuple[float, float] | None
    decided: bool


def turning_point(table: Table) -> Figure:
    """Loss and MaxVio along one setting, with intervals: a line for each combination of the others.

    Arms without that setting are level lines. There are at most MOST_ARMS lines, those of the best arms.
    """
    axis = table.definition.axis
    every = [a for a in table.arms if number(a.settings.get(axis)) is not None and a.cells[PRIMARY.column].n]
    if len(every) < 2:
        raise NotRecorded(f"fewer than two finished arms have a value of {axis or 'an axis'}")
    levels = [a for a in ranked(table) if axis not in a.settings and a.cells[PRIMARY.column].n]
    lines = _lines(table, every)
    lines, more = lines[:MOST_ARMS], len(lines[MOST_ARMS:])
    room = MOST_ARMS - len(lines) + any(a.arm == table.baseline for a in levels)
    others, left = levels[:room], len(levels[room:])
    along = [arm for line in lines for arm in line.arms]
    figure = new_figure(table, 5.4)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, metric in zip(panels, (PRIMARY, MAXVIO), strict=True):
        _along(axes, table, lines, others, metric)
    panels[1].set_xlabel(drawn(axis, most=80))
    base = "" if table.baseline is None else names_of(table.arms)[table.baseline]
    notes = [
        "Bars: the table's interval of the difference to the baseline, for all arms at once, drawn from the baseline's "
        f"level (dotted); filled points are findings. Baseline: {drawn(base, most=120)}, without a bar",
        "Small points beside the means: seeds; MaxVio is averaged by its logarithm",
    ] if base else ["Small points beside the means: seeds; nothing is tested without a baseline"]  # fmt: skip
    notes += [f"Not shown: {more} lines of other settings"] if more else []
    notes += [f"Not shown: {left} arms without {drawn(axis, most=80)}"] if left else []
    return finish(figure, caption(table, [*along, *others], *notes, rest=f"those with {axis}"), legend=panels[0])


def _lines(table: Table, arms: Sequence[Arm]) -> list[_Line]:
    """Arms by their other settings, each line by its x: that of the baseline first, then those with the lowest loss."""
    keys = [key for key in dict.fromkeys(k for arm in arms for k in arm.settings) if not _together(table, arms, key)]
    groups: dict[tuple[str | None, ...], list[Arm]] = {}
    known = {arm.arm for arm in arms}
    for arm in (arm for arm in ranked(table) if arm.arm in known):
        groups.setdefault(tuple(arm.settings.get(key) for key in keys), []).append(arm)
    telling = [place for place in range(len(keys)) if len({values[place] for values in groups}) > 1]
    axis = table.definition.axis
    return [
        _Line(" ".join(f"{keys[place]}={values[place]}" for place in telling if values[place] is not None),
              tuple(sorted(found, key=lambda arm: number(arm.settings[axis]) or 0.0)))
        for values, found in groups.items()
    ]  # fmt: skip


def _together(table: Table, arms: Sequence[Arm], key: str) -> bool:
    """Whether a setting is the axis, or a number that changes with it and never else."""
    pairs = {(arm.settings[table.definition.axis], arm.settings.get(key)) for arm in arms}
    values = {value for _, value in pairs}
    numeric = all(number(value) is not None for value in values)
    return numeric and len(pairs) == len(values) == len({at for at, _ in pairs})


def _along(axes: Axes, table: Table, lines: Sequence[_Line], others: Sequence[Arm], metric: Metric) -> None:
    axis = table.definition.axis
    ticks: dict[float, str] = {}
    heights: list[float] = []
    for place, line in enumerate(lines):
        found = [(arm, spot) for arm in line.arms if (spot := _spot(table, arm, metric)) is not None]
        _line_along(axes, [spot for _, spot in found], place, _line_name(table, line, metric))
        for arm, spot in found:
            _seeds(axes, spot.x, [v * metric.factor for v in arm.sample(metric.column).values.values()],
                   look(place)[0] if len(lines) > 1 else "#505050")  # fmt: skip
            ticks.setdefault(spot.x, drawn(arm.settings[axis], most=40))
        heights += [spot.y for _, spot in found]
    shade = look(0)[0] if len(lines) == 1 else "#505050"
    axes.plot([], [], "o", color=shade, label="filled: found to differ from the baseline")
    axes.plot([], [], "o", color=shade, markerfacecolor="white", label="hollow: not found to differ")
    _levels(axes, table, others, metric, len(lines))
    log_if_wide(axes, "x", [*ticks])
    axes.set_xticks(sorted(ticks), [ticks[x] for x in sorted(ticks)])
    axes.xaxis.set_minor_locator(NullLocator())
    log_if_wide(axes, "y", heights)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_ylabel(metric.axis.replace(" (", "\n("), fontsize=9)


def _line_along(axes: Axes, spots: Sequence[_Spot], place: int, label: str) -> None:
    """One line of means with the table's intervals; filled where a difference was found."""
    colour, marker, _ = look(place)
    bars = [[s.y - s.bars[0] if s.bars else 0.0 for s in spots], [s.bars[1] - s.y if s.bars else 0.0 for s in spots]]
    axes.errorbar([s.x for s in spots], [s.y for s in spots], yerr=bars, color=colour, marker=marker, capsize=4,
                  linestyle=DASHES[place % len(DASHES)], markerfacecolor="white", label=label)  # fmt: skip
    decided = [s for s in spots if s.decided]
    axes.plot([s.x for s in decided], [s.y for s in decided], linestyle="none", marker=marker, color=colour, zorder=2.5)


def _line_name(table: Table, line: _Line, metric: Metric) -> str:
    """What its points are: with pairs the baseline's level and the paired difference, which is no mean of an arm."""
    found = compared(table, metric)
    paired = any(arm.arm in found and found[arm.arm].kind == PAIRED for arm in line.arms)
    what = "baseline's level + difference" if paired else "mean"
    what += f" over {drawn(table.definition.axis, most=80)}"
    return f"{drawn(line.name, most=160)}: {what}" if line.name else what


def _seeds(axes: Axes, x: float, values: Sequence[float], colour: str) -> None:
    """The runs of an arm, beside its mean and below all else."""
    figure = axes.get_figure(root=True)
    beside = offset_copy(axes.transData, figure, x=7, units="points")
    axes.scatter([x] * len(values), values, s=12, color=colour, alpha=0.8, zorder=1, transform=beside)
    axes.update_datalim([(x, value) for value in values])  # an offset takes them out of what limits follow


def _spot(table: Table, arm: Arm, metric: Metric) -> _Spot | None:
    x, level, shown = number(arm.settings.get(table.definition.axis)), _level(arm, metric), on_axis(metric)
    if level is None:
        return None
    x = 0.0 if x is None else x
    found, base = compared(table, metric).get(arm.arm), None
    if found is not None and table.baseline is not None:
        base = _level(table.arm(table.baseline), metric)
    if found is None or base is None:
        return _Spot(x, shown(level), None, False)
    bars = (shown(base + found.low), shown(base + found.high)) if found.low is not None and found.high is not None else None  # fmt: skip  # noqa: E501
    return _Spot(x, shown(base + found.difference), bars, found.decided)


def _level(arm: Arm, metric: Metric) -> float | None:
    """The mean of its runs on the scale that they are compared on; None without a value there."""
    values = [metric.on_scale(v) for v in arm.sample(metric.column).values.values()]
    return float(np.mean(values)) if values and np.isfinite(values).all() else None


def _levels(axes: Axes, table: Table, arms: Sequence[Arm], metric: Metric, start: int) -> None:
    """The baseline, and arms without the setting of the x-axis, as horizontal lines; looks from number `start` on."""
    names = names_of(table.arms)
    if table.baseline is not None and (level := _level(table.arm(table.baseline), metric)) is not None:
        axes.axhline(on_axis(metric)(level), color="#303030", linestyle=":", linewidth=1, label="baseline")
    for place, arm in enumerate(arms, start):
        if (spot := _spot(table, arm, metric)) is not None and arm.arm != table.baseline:
            words = " (found to differ)" if spot.decided else ""
            axes.axhline(spot.y, color=look(place)[0], linestyle=DASHES[place % len(DASHES)],
                         label=names[arm.arm] + words)  # fmt: skip
