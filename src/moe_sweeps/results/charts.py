"""The pictures of a table: each function draws a Table, or raises NotRecorded with the reason.

Arms differ in dash and marker besides colour, and heat maps get lighter all the way and carry their numbers, so that
all of it can be read in black and white. The caption says what n is.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from moe_sweeps.results.columns import BY_COLUMN, PRIMARY, Metric
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.drawing.style import COLOURS, DASHES, MARKERS, STEP, WIDTH, plain_axes
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.layout import axis_values, grid_arms
from moe_sweeps.results.tables import Arm, Table

MOST_ARMS = 8  # lines that can be told apart
MAXVIO = BY_COLUMN["val_maxvio_global"]


@dataclass(frozen=True, slots=True)
class Chart:
    """One kind of picture: its heading, how to read it, and its function."""

    title: str
    reading: str
    draw: Callable[[Table], Figure]


def curves(table: Table) -> Figure:
    """Validation loss over steps: the mean of the seeds, and a band from the lowest to the highest."""
    return _over(table, "val", "loss", "step", STEP, "validation loss (nats a token)", tail=True)


def maxvio(table: Table) -> Figure:
    """MaxVio of the training batches over steps."""
    return _over(table, "train", "maxvio_batch", "step", STEP, "MaxVio of a batch (0 = balanced)")


def equal_time(table: Table) -> Figure:
    """Validation loss over seconds of training."""
    label = "seconds in training steps"
    return _over(table, "val", "loss", "train_seconds", label, "validation loss (nats a token)", tail=True)


def tradeoff(table: Table) -> Figure:
    """Loss against balance: the mean of each arm large, its seeds small."""
    arms = [arm for arm in table.arms if _pairs(arm)]
    if not arms:
        raise NotRecorded("no finished run has both a loss and a MaxVio")
    figure, axes = _canvas(table, arms, "Small points are seeds, large ones their means")
    for place, arm in enumerate(arms):
        points = np.array(_pairs(arm))
        colour, marker, filled = _look(place)
        axes.scatter(points[:, 0], points[:, 1], s=14, color=colour, marker=marker, alpha=0.5, linewidths=0)
        x, y = points.mean(axis=0)
        axes.scatter(x, y, s=70, marker=marker, label=_short(arm.label), edgecolors=colour,
                     facecolors=colour if filled else "white")  # fmt: skip
    axes.set(xlabel=MAXVIO.axis, ylabel=PRIMARY.axis)
    _log_if_wide(axes, "x", [x for arm in arms for x, _ in _pairs(arm)])
    _legend(axes)
    return figure


def turning_point(table: Table) -> Figure:
    """Loss and MaxVio along one setting, with intervals; arms without that setting are level lines."""
    axis = table.definition.axis
    along = [a for a in table.arms if _number(a.settings.get(axis)) is not None and a.cells[PRIMARY.column].n]
    others = [a for a in table.arms if axis not in a.settings and a.cells[PRIMARY.column].n]
    if len(along) < 2:
        raise NotRecorded(f"fewer than two finished arms have a value of {axis or 'an axis'}")
    figure = _figure(table, [*along, *others], "Bars: 95% t-interval; small points: seeds", 6.4)
    panels = figure.subplots(2, 1, sharex=True)
    along.sort(key=lambda a: _number(a.settings[axis]) or 0.0)
    for axes, metric in zip(panels, (PRIMARY, MAXVIO), strict=True):
        _along(axes, along, others, axis, metric)
    panels[1].set_xlabel(axis)
    _legend(panels[0])
    return figure


def heat(table: Table) -> Figure:
    """The grid of two settings as cells with their numbers, a panel a metric."""
    grid = table.definition.grid
    if grid is None:
        raise NotRecorded("the table is no grid")
    lines, tops = axis_values(table, grid.rows), axis_values(table, grid.columns)
    if not lines or not tops or not any(arm.done for arm in table.arms):
        raise NotRecorded("no run of the grid is done")
    figure = _figure(table, list(table.arms), "×: not asked for; words: why there is no number", 1.7 + 0.7 * len(lines))
    panels = figure.subplots(1, len(grid.metrics), squeeze=False)[0]
    for axes, name in zip(panels, grid.metrics, strict=True):
        _heat_panel(table, axes, BY_COLUMN[name], lines, tops)
        axes.set(xlabel=grid.columns, ylabel=grid.rows if axes is panels[0] else "", title=BY_COLUMN[name].axis)
    return figure


CHARTS = {
    "curves": Chart("Loss over training", "Lower is better. Bands reach from the lowest to the highest seed.", curves),
    "heat": Chart("Grid", "Lighter is higher; for a loss or MaxVio darker is better.", heat),
    "turning_point": Chart("Along the setting", "Where loss begins to rise, the setting costs quality.", turning_point),
    "maxvio": Chart("Balance over training", "0 is balanced; lower is better.", maxvio),
    "tradeoff": Chart("Loss against balance", "Down is a better model, left is better balanced.", tradeoff),
    "equal_time": Chart("Loss at equal time", "Read from bottom to top at one second: who is lower then?", equal_time),
}  # fmt: skip


# --- parts ------------------------------------------------------------------------------------------------------------


def _over(table: Table, split: str, key: str, x: str, xlabel: str, ylabel: str, *, tail: bool = False) -> Figure:
    """One line an arm of `key` over `x`. `tail`: the axis begins where the first tenth of the way is over."""
    arms = _chosen(table)
    frames = {arm.arm: _records(arm, split, key, x) for arm in arms}
    arms = [arm for arm in arms if len(frames[arm.arm])]
    if not arms:
        raise NotRecorded(f"no finished run has recorded {key} over {x}")
    note = "Bands reach from the lowest to the highest seed" if any(arm.done > 1 for arm in arms) else ""
    figure, axes = _canvas(table, arms, note)
    plain_axes(axes)
    for place, arm in enumerate(arms):
        _band_line(axes, frames[arm.arm], place, f"{_short(arm.label)} (n={frames[arm.arm]['run_id'].nunique()})")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if tail:
        _zoom(axes, list(frames.values()))
    else:
        _log_if_wide(axes, "y", [float(v) for frame in frames.values() for v in frame["y"]])
    _legend(axes)
    return figure


def _records(arm: Arm, split: str, key: str, x: str) -> pd.DataFrame:
    """run_id, x, y of the finished runs of an arm."""
    files = [Path(str(row["folder"])) / "metrics.jsonl" for row in arm.rows]
    found = _curves_of(tuple((file, file.stat().st_mtime_ns if file.exists() else 0) for file in files))
    found = found.reindex(columns=["run_id", "split", "tokens", x, key])
    found = found.loc[found["split"] == split]
    if split == "val" and len(
        sizes := found["tokens"].mode()
    ):  # the last evaluation takes more windows than the others
        found = found.loc[found["tokens"] == sizes.max()]
    found = found[["run_id", x, key]].dropna()
    return found.set_axis(["run_id", "x", "y"], axis=1).astype({"x": float, "y": float})


@functools.lru_cache(maxsize=MOST_ARMS)
def _curves_of(files: tuple[tuple[Path, int], ...]) -> pd.DataFrame:
    """The curves of runs whose files changed at these times: several charts of one table show them."""
    return load_curves([file.parent for file, _ in files]).frame


def _band_line(axes: Axes, frame: pd.DataFrame, place: int, label: str) -> None:
    """The mean over runs on a common axis, from where all have begun to where the first one ends."""
    runs = [run.sort_values("x") for _, run in frame.groupby("run_id")]
    low, high = max(r["x"].iloc[0] for r in runs), min(r["x"].iloc[-1] for r in runs)
    x = np.unique(np.concatenate([r["x"].to_numpy() for r in runs]))
    x = x[(x >= low) & (x <= high)]
    if not len(x):
        return
    y_RN = np.array([np.interp(x, r["x"], r["y"]) for r in runs])
    colour, marker, filled = _look(place)
    axes.plot(x, y_RN.mean(axis=0), label=label, color=colour, linestyle=DASHES[place % len(DASHES)], marker=marker,
              markerfacecolor=colour if filled else "white", markevery=max(1, len(x) // 8))  # fmt: skip
    if len(runs) > 1:
        axes.fill_between(x, y_RN.min(axis=0), y_RN.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def _zoom(axes: Axes, frames: Sequence[pd.DataFrame]) -> None:
    """Leave out the steep beginning, in which all arms look alike."""
    every = pd.concat([f for f in frames if len(f)])
    late = every.loc[every["x"] >= every["x"].max() * 0.4, "y"]
    if len(late) > 1 and late.max() > late.min():
        margin = 0.05 * (late.max() - late.min())
        axes.set_ylim(late.min() - margin, late.max() + margin)


def _log_if_wide(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis where values span more than a factor of 20, with plain numbers on it."""
    if not values or min(values) <= 0 or max(values) < 20 * min(values):
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _along(axes: Axes, along: Sequence[Arm], others: Sequence[Arm], axis: str, metric: Metric) -> None:
    shown = [a for a in along if a.cells[metric.column].mean is not None]
    x = [float(a.settings[axis]) for a in shown]
    mean = [(a.cells[metric.column].mean or 0.0) * metric.factor for a in shown]
    half = [(a.cells[metric.column].half_width or 0.0) * metric.factor for a in shown]
    axes.errorbar(x, mean, yerr=half, color=COLOURS[0], marker=MARKERS[0], capsize=4, label=f"mean over {axis}")
    for value, arm in zip(x, shown, strict=True):
        seeds = [float(r[metric.column]) * metric.factor for r in arm.rows if r.get(metric.column) is not None]
        axes.scatter([value] * len(seeds), seeds, s=12, color="#505050", zorder=3)
    for place, arm in enumerate(others, start=1):
        level = arm.cells[metric.column].mean
        if level is not None:
            axes.axhline(
                level * metric.factor,
                color=_look(place)[0],
                linestyle=DASHES[place % len(DASHES)],
                label=_short(arm.label),
            )
    _log_if_wide(axes, "x", x)
    axes.set_xticks(x, [a.settings[axis] for a in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    _log_if_wide(axes, "y", mean)
    axes.grid(True)
    axes.set_ylabel(metric.axis, fontsize=9)


def _heat_panel(table: Table, axes: Axes, metric: Metric, lines: list[str], tops: list[str]) -> None:
    grid = table.definition.grid
    assert grid is not None
    cells = [[grid_arms(table, grid.rows, grid.columns, line, top) for top in tops] for line in lines]
    means_RC = np.array([[_mean(arms, metric) for arms in row] for row in cells])
    mesh = axes.imshow(np.ma.masked_invalid(means_RC), cmap="cividis", aspect="auto")
    axes.figure.colorbar(mesh, ax=axes, shrink=0.8)
    middle = np.nanmean([np.nanmin(means_RC), np.nanmax(means_RC)]) if np.isfinite(means_RC).any() else 0.0
    for (i, j), mean in np.ndenumerate(means_RC):
        if np.isfinite(mean):
            n = cells[i][j][0].cells[metric.column].n
            axes.text(j, i, f"{mean:.{metric.digits}f}\n(n={n})", ha="center", va="center", fontsize=8.5,
                      color="black" if mean > middle else "white")  # fmt: skip
        else:
            axes.text(j, i, _why_empty(cells[i][j]), ha="center", va="center", fontsize=8.5)
    axes.set_xticks(range(len(tops)), tops)
    axes.set_yticks(range(len(lines)), lines)


def _why_empty(arms: Sequence[Arm]) -> str:
    return "\n".join(f"{n} {outcome}" for arm in arms for outcome, n in arm.counts.items()) or "×"


def _mean(arms: Sequence[Arm], metric: Metric) -> float:
    mean = arms[0].cells[metric.column].mean if len(arms) == 1 else None
    return math.nan if mean is None else mean * metric.factor


def _pairs(arm: Arm) -> list[tuple[float, float]]:
    keys = (MAXVIO.column, PRIMARY.column)
    return [(float(r[keys[0]]), float(r[keys[1]])) for r in arm.rows if all(r.get(k) is not None for k in keys)]


def _chosen(table: Table) -> list[Arm]:
    """All arms, or the baseline and the best of many, in the order of the design."""
    arms = [arm for arm in table.arms if arm.done]
    if len(arms) <= MOST_ARMS:
        return arms
    ranked = sorted(arms, key=lambda a: (a.arm != table.baseline, a.cells[PRIMARY.column].mean or math.inf))
    return [arm for arm in arms if arm in ranked[:MOST_ARMS]]


def _canvas(table: Table, arms: Sequence[Arm], note: str) -> tuple[Figure, Axes]:
    figure = _figure(table, arms, note, max(4.8, 1 + 0.42 * len(arms)))
    axes = figure.add_subplot()
    axes.grid(True)
    axes.set_axisbelow(True)
    return figure, axes


def _figure(table: Table, arms: Sequence[Arm], note: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(table.definition.title or table.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    text = f"{caption(table, arms)} {note}{'.' if note else ''}"
    figure.supxlabel(textwrap.fill(text, 140), x=0.01, ha="left", fontsize=9, color="#505050")
    return figure


def caption(table: Table, arms: Sequence[Arm]) -> str:
    """What the points are means of."""
    counts = sorted({arm.done for arm in arms if arm.done})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}" if counts else "n = 0"
    seeds = "seed" if counts == [1] else "seeds"
    finished = [arm for arm in table.arms if arm.done]
    some = f" {len(arms)} of {len(finished)} arms: the baseline and the best." if len(arms) < len(finished) else ""
    gaps = sum(n for k, n in table.counts.items() if k != "done")
    missing = f" {gaps} of {table.counts.total()} runs have no number and are not drawn." if gaps else ""
    return f"{table.title}, scale {', '.join(table.scales)}; {n} {seeds} an arm.{some}{missing}"


def _look(place: int) -> tuple[str, str, bool]:
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], place < len(COLOURS)


def _short(label: str) -> str:
    """A label that fits beside a figure."""
    return label.replace(" ", "\n") if len(label) > 24 else label


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=3, fontsize=9)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
