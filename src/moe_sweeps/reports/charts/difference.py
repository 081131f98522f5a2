"""Differences to the baseline over training: a panel an arm, with the interval of the table's own test at each step.

Each evaluation is compared as the table compares its numbers: by seed where seeds are blocks, with the same lent
spreads and the same correction over arms. The last point is the table's number with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moe_sweeps.host.plain import drawn
from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.reports.charts.canvas import caption, elsewhere, finish, names_of, new_figure, wrapped
from moe_sweeps.reports.charts.over import course, lost_sentence, shared
from moe_sweeps.reports.charts.shown import ranked
from moe_sweeps.reports.drawing.style import COLOURS, STEP, plain_axes
from moe_sweeps.results.compare import Comparison, Sample, compare_all
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.tables import Arm, Table

MOST_PANELS = 15
_ACROSS = 3


@dataclass(frozen=True, slots=True)
class Path:
    """The comparisons of one arm with the baseline over the steps at which every run of both was evaluated."""

    arm: Arm
    steps: tuple[float, ...]
    found: tuple[Comparison, ...]
    final: Comparison | None  # the table's own, at `end`
    end: float


def difference(table: Table) -> Figure:
    """Loss minus that of the baseline over steps, a panel an arm, with the interval of the table's test."""
    every = paths(table)
    shown = [path for path in every if path.arm in ranked(table)[: MOST_PANELS + 1]]
    if not shown or table.baseline is None:
        raise NotRecorded(_why_none(table))
    columns = min(_ACROSS, len(shown))
    rows = math.ceil(len(shown) / columns)
    arms = [path.arm for path in shown]
    names = names_of([*arms, table.arm(table.baseline)])
    titles = {arm.arm: wrapped(names[arm.arm], 96 // columns) for arm in arms}
    deepest = max(title.count("\n") + 1 for title in titles.values())
    figure = new_figure(table, 0.9 + rows * (1.5 + 0.16 * deepest) + (0.8 if rows == 1 else 0))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, path in zip(grid.flat, shown, strict=False):
        _panel(axes, path, shown)
        axes.set_title(titles[path.arm.arm], fontsize=9)
    cut = _limits(grid[0, 0], shown)
    _outer(grid, len(shown))
    return finish(figure, caption(table, [*arms, table.arm(table.baseline)], *_notes(table, names, cut, every)),
                  legend=grid[0, 0])  # fmt: skip


def paths(table: Table) -> list[Path]:
    """The comparisons over training of every arm that has curves in common with the baseline."""
    if table.baseline is None:
        return []
    lines = _lines(table)
    if table.baseline not in lines:
        return []
    ends = {arm: frame["x"].max() for arm, frame in lines.items() if len(frame)}
    steps_of = {arm: set(shared(line)) for arm, line in lines.items()}
    by_step = {step: _at(table, lines, step) for step in sorted(steps_of[table.baseline])}
    made = []
    for arm in table.arms:
        here = steps_of.get(arm.arm, set())
        over = [(step, found[arm.arm]) for step, found in by_step.items() if arm.arm in found and step in here]
        if over:
            steps, comparisons = zip(*over, strict=True)
            end = max(float(row.get("step") or 0) for row in arm.rows) or ends[arm.arm]
            made.append(Path(arm, steps, comparisons, table.differences.get(arm.arm), end))
    return made


def _lines(table: Table) -> dict[str, pd.DataFrame]:
    """The evaluations on the way of every arm's finished runs, those of other sweeps among them."""
    return {arm.arm: course(arm.every_row, "val", "loss", "step").line for arm in table.arms if arm.done}


def _why_none(table: Table) -> str:
    """Why there is nothing to draw."""
    lines = _lines(table)
    both = len(lines.pop(table.baseline or "", ())) and any(map(len, lines.values()))
    why = ": at no step all runs of an arm and of the baseline were evaluated" if both else ""
    return f"no arm has curves to compare with those of a baseline{why}"


def _at(table: Table, lines: Mapping[str, pd.DataFrame], step: float) -> dict[str, Comparison]:
    """Every arm against the baseline at one evaluation."""
    assert table.baseline is not None
    samples = {arm.arm: _sample(arm, lines[arm.arm], step) for arm in table.arms if arm.arm in lines}
    lent = table.alike.lent(PRIMARY, samples)
    return compare_all(samples, table.baseline, PRIMARY, lent=lent, look=table.looks)


def _sample(arm: Arm, line: pd.DataFrame, step: float) -> Sample:
    here = line.loc[(line["x"] == step) & np.isfinite(line["y"])]
    by_run = {run_id: float(loss) for run_id, loss in zip(here["run_id"], here["y"], strict=True)}
    return arm.sample_of(lambda row: by_run.get(row["run_id"]))


def _panel(axes: Axes, path: Path, shown: Sequence[Path]) -> None:
    others = [(other.steps, [c.difference for c in other.found]) for other in shown if other is not path]
    if others:  # one line with gaps
        x, y = (np.concatenate([[*each[i], np.nan] for each in others]) for i in (0, 1))
        axes.plot(x, y, color="#c8c8c8", linewidth=0.8, zorder=1, label="the other arms")
    plain_axes(axes).axhline(0.0, color="#303030", linewidth=1.0, zorder=1.5, label="baseline")
    known = [(step, c) for step, c in zip(path.steps, path.found, strict=True) if c.low is not None]
    if known:
        low, high = ([float(c.low or 0.0) for _, c in known], [float(c.high or 0.0) for _, c in known])
        axes.fill_between([step for step, _ in known], low, high, color=COLOURS[0], alpha=0.18, linewidth=0,
                          label="interval at each evaluation")  # fmt: skip
    axes.plot(path.steps, [c.difference for c in path.found], color=COLOURS[0], marker="o", markersize=3.5,
              label="this arm minus the baseline")  # fmt: skip
    if path.final is not None:
        _final(axes, path.final, path.end)


def _final(axes: Axes, found: Comparison, x: float) -> None:
    bars = None
    if found.low is not None and found.high is not None:
        bars = [[found.difference - found.low], [found.high - found.difference]]
    axes.errorbar([x], [found.difference], yerr=bars, fmt="D", color=COLOURS[1], capsize=3, markersize=6, zorder=4,
                  markerfacecolor=COLOURS[1] if found.decided else "white",
                  label="final evaluation: the table's number (filled: found to differ)")  # fmt: skip


def _limits(axes: Axes, shown: Sequence[Path]) -> bool:
    """Scale the panels to the last 60% of training and the final numbers; whether intervals are cut at their edge."""
    end = max(path.end for path in shown)
    late = [c for path in shown for step, c in zip(path.steps, path.found, strict=True) if step >= 0.4 * end]
    late += [path.final for path in shown if path.final is not None]
    late = late or [c for path in shown for c in path.found]
    middle = [abs(c.difference) for c in late]
    halves = [c.high - c.low for c in late if c.high is not None and c.low is not None]
    typical = float(np.median(halves)) / 2 if halves else 0.0
    reach = max(max(middle), typical) + 2 * typical or 1.0
    low, high = (pick([bound for c in late for bound in (c.low, c.high, c.difference, 0.0) if bound is not None])
                 for pick in (min, max))  # fmt: skip
    bottom, top = max(low, -reach), min(high, reach)
    margin = 0.06 * (top - bottom) or 0.5
    axes.set_ylim(bottom - margin, top + margin)
    every = [
        bound for path in shown for c in path.found for bound in (c.low, c.high, c.difference) if bound is not None
    ]
    return min(every) < bottom - margin or max(every) > top + margin


def _outer(grid: NDArray[Any], count: int) -> None:
    """Axis labels at the outside alone; panels that nothing is in vanish."""
    rows, columns = grid.shape
    lowest_row = (rows - 1) * columns
    label = "Δ " + PRIMARY.axis.replace(" (", "\n(")
    for place, axes in enumerate(grid.flat):
        if place >= count:
            axes.set_axis_off()
            continue
        lowest = place + columns >= count
        axes.tick_params(labelbottom=lowest)
        axes.set_xlabel(STEP if place >= lowest_row else "")
        axes.set_ylabel(label if place % columns == 0 else "")


def _steps_sentence(table: Table, every: Sequence[Path]) -> str:
    """Which evaluations are left out, and which arms have none in common with the baseline; empty where none."""
    lines = _lines(table)
    known = {path.arm.arm for path in every}
    base = set(lines[table.baseline]["x"]) if table.baseline in lines else set()
    some = any((base | set(lines[path.arm.arm]["x"])) - set(path.steps) for path in every)
    none = sum(bool(len(line)) and arm not in known and arm != table.baseline for arm, line in lines.items())
    parts = [
        "Steps are those at which all runs of an arm and of the baseline were evaluated" if some else "",
        f"Not drawn: {none} arms that have no such step" if none else "",
    ]
    return ". ".join(filter(None, parts))


def _notes(table: Table, names: Mapping[str, str], cut: bool, every: Sequence[Path]) -> list[str]:
    level = 1 - level_of_look(table.looks)
    return [
        f"Baseline: {drawn(names[table.baseline or ''], most=120)}. Below 0 is a better model",
        f"Shade: the {level:.1%} interval of the table's own test at each evaluation, for all arms at once but not for "
        "all steps at once; the spread of runs alike to these is taken from their end. The final evaluation is on other"
        " windows than those on the way",
        _steps_sentence(table, every),
        "What leaves a panel is cut at its edge" if cut else "",
        elsewhere(table),
        lost_sentence(table),
    ]
