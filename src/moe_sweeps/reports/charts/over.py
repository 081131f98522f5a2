"""Figures over training: numbers of metrics.jsonl, ending where the table's numbers are.

The final evaluation takes more windows than those on the way, and the table shows its loss: it is a point of its own at
the end of the line, and no part of the line.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moe_sweeps.records.problem import Problem
from moe_sweeps.reports.charts.canvas import caption, finish, log_if_wide, look, names_of, new_figure
from moe_sweeps.reports.charts.shown import MOST_ARMS, chosen
from moe_sweeps.reports.drawing.style import DASHES, STEP, plain_axes
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.evaluations import usual_size
from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.history import Floats, NotRecorded
from moe_sweeps.results.runs import Row
from moe_sweeps.results.tables import Table
from moe_sweeps.results.timing import unlike

_LOSS = "validation loss (nats a token)"
_OFTEN = 60  # records of a line beyond which its markers are spread


@dataclass(frozen=True, slots=True)
class Course:
    """run_id, x, y of an arm's finished runs: evaluations of the usual size, and those of another size at the end."""

    line: pd.DataFrame
    final: pd.DataFrame
    tokens: tuple[int, int] | None = None  # of an evaluation on the way and of the final one, if they differ


def curves(table: Table) -> Figure:
    """Validation loss over steps: the mean of the seeds, and a band from the lowest to the highest."""
    return _over(table, "val", "loss", "step", STEP, _LOSS, tail=True)


def maxvio(table: Table) -> Figure:
    """MaxVio of the training batches over steps."""
    return _over(table, "train", "maxvio_batch", "step", STEP, "MaxVio of a batch (0 = balanced)")


def equal_time(table: Table) -> Figure:
    """Validation loss over seconds of training.

    Raises:
        NotRecorded: the seconds are those of different machines.
    """
    if why := unlike([row for arm in table.arms for row in arm.rows]):
        raise NotRecorded(f"times cannot be compared: {why}")
    return _over(table, "val", "loss", "train_seconds", "seconds in training steps", _LOSS, tail=True)


def _over(table: Table, split: str, key: str, x: str, xlabel: str, ylabel: str, *, tail: bool = False) -> Figure:
    """One line an arm of `key` over `x`. `tail`: the y-axis fits the last part of training."""
    courses = {arm.arm: course(arm.rows, split, key, x) for arm in chosen(table)}
    arms = [arm for arm in chosen(table) if len(courses[arm.arm].line) + len(courses[arm.arm].final)]
    lost = lost_sentence(table)
    if not arms:
        raise NotRecorded("; ".join(filter(None, (f"no finished run has recorded {key} over {x}", lost))))
    figure = new_figure(table, 4.0)
    axes = plain_axes(figure.add_subplot())
    names = names_of(arms)
    for place, arm in enumerate(arms):
        found = courses[arm.arm]
        runs = pd.concat([found.line["run_id"], found.final["run_id"]]).nunique()
        _band_line(axes, found, place, f"{names[arm.arm]} (n={runs})", exact=x == "step")
    shown = [courses[arm.arm] for arm in arms]
    final = final_sentence(shown)
    if final:
        axes.plot([], [], linestyle="none", marker="o", markersize=9, color="#505050", markeredgecolor="black",
                  label="final evaluation: the table's number")  # fmt: skip
    axes.set(xlabel=xlabel, ylabel=ylabel)
    cut = _zoom(axes, shown) if tail else ""
    if not tail:
        log_if_wide(axes, "y", [float(v) for found in shown for v in found.line["y"]])
    bands = "Lines are means over seeds, bands reach from the lowest to the highest seed and test nothing"
    bands = bands if any(arm.done > 1 for arm in arms) else ""
    gaps = _gaps_sentence(shown) if x == "step" else ""
    return finish(figure, caption(table, arms, bands, final, gaps, cut, lost), legend=axes)


def _gaps_sentence(courses: Sequence[Course]) -> str:
    """What becomes of steps that some runs of an arm have and others have not; empty where there are none."""
    lines = [(set(found.line["x"]), shared(found.line)) for found in courses]
    loose = sum(bool(every) and not common for every, common in lines)
    some = any(common and len(common) < len(every) for every, common in lines)
    parts = [
        "Lines have the steps alone that all runs of their arm recorded" if some else "",
        f"No step was recorded by all runs of {loose} arms, whose lines are linear between records" if loose else "",
    ]
    return ". ".join(filter(None, parts))


def final_sentence(courses: Sequence[Course]) -> str:
    """What the large points are; empty where the final evaluation is one like all others."""
    sizes = {found.tokens for found in courses if found.tokens is not None}
    if not sizes:
        return ""
    usual, final = max(sizes)
    text = (
        f"Large points: the final evaluation, the table's number, on {final:,} tokens; lines: evaluations on {usual:,}"
    )
    return f"{text} tokens. The windows differ, too, so no line joins them"


def course(rows: Sequence[Row], split: str, key: str, x: str) -> Course:
    """What these finished runs recorded of `key` over `x`."""
    found = _curves(rows).frame.reindex(columns=["run_id", "split", "tokens", x, key])
    found = found.loc[found["split"] == split].dropna(subset=[x, key])
    usual = usual_size(found["tokens"].dropna()) if split == "val" else None
    last = found.groupby("run_id")[x].transform("max")
    ends = (found["tokens"] != usual) & found["tokens"].notna() & (found[x] == last) if usual is not None else None
    found = found.rename(columns={x: "x", key: "y"}).astype({"x": float, "y": float})
    columns = ["run_id", "x", "y"]
    if usual is None or ends is None or not ends.any():
        return Course(found[columns], found.iloc[:0][columns])
    line = found.loc[~ends & (found["tokens"] == usual), columns]
    return Course(line, found.loc[ends, columns], (int(usual), int(found.loc[ends, "tokens"].max())))


def unreadable_curves(table: Table) -> list[Problem]:
    """Finished runs of the arms that charts draw over time whose metrics.jsonl is damaged: no line includes them."""
    return [problem for arm in chosen(table) for problem in _curves(arm.rows).problems]


def lost_sentence(table: Table) -> str:
    """How many finished runs no line includes; empty where there is none."""
    lost = len(unreadable_curves(table))
    runs = "1 finished run is" if lost == 1 else f"{lost} finished runs are"
    return f"{runs} left out because metrics.jsonl cannot be read" if lost else ""


def _curves(rows: Sequence[Row]) -> Loaded:
    files = [Path(str(row["folder"])) / "metrics.jsonl" for row in rows]
    return _curves_of(tuple((file, file.stat().st_mtime_ns if file.exists() else 0) for file in files))


@functools.lru_cache(maxsize=4 * MOST_ARMS)
def _curves_of(files: tuple[tuple[Path, int], ...]) -> Loaded:
    """The curves of runs whose files changed at these times: several charts of one table show them."""
    return load_curves([file.parent for file, _ in files])


def _band_line(axes: Axes, found: Course, place: int, label: str, *, exact: bool) -> None:
    """The mean over runs on a common axis, from where all have begun to where the first one ends; the final point."""
    colour, marker, filled = look(place)
    style = {"color": colour, "marker": marker, "markerfacecolor": colour if filled else "white"}
    x, y_RN = on_common_axis(found.line, exact=exact)
    every = max(1, len(x) // 8) if len(x) > _OFTEN else 1
    (line,) = axes.plot(x, y_RN.mean(axis=0) if len(x) else [], label=label, linestyle=DASHES[place % len(DASHES)],
                        markevery=every, **style)  # type: ignore[arg-type] # fmt: skip
    if len(y_RN) > 1:
        axes.fill_between(x, y_RN.min(axis=0), y_RN.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    if len(found.final):
        end = found.final[["x", "y"]].mean()
        _final(axes, line, float(end["x"]), float(end["y"]))


def _final(axes: Axes, line: Line2D, x: float, y: float) -> None:
    axes.plot([x], [y], linestyle="none", marker=line.get_marker(), markersize=9, color=line.get_color(),
              markerfacecolor=line.get_markerfacecolor(), markeredgecolor="black", zorder=4)  # fmt: skip


def shared(line: pd.DataFrame) -> list[float]:
    """The x at which every run of a line has a finite number, ascending."""
    runs_at = line.loc[np.isfinite(line["y"])].groupby("x")["run_id"].nunique()
    return [float(x) for x in runs_at.index[runs_at == line["run_id"].nunique()]]


def on_common_axis(line: pd.DataFrame, *, exact: bool = False) -> tuple[Floats, Floats]:
    """x (N) at which all runs are known and y (R, N) of each run there, linear between its records.

    `exact`: the x of records that all runs have, if there are any; a mean is then one of numbers that were logged.
    """
    if exact and (steps := shared(line)):
        by_run = line.loc[line["x"].isin(steps)].groupby(["run_id", "x"])["y"].last().unstack()
        return np.array(steps), by_run.to_numpy()
    runs = [run.sort_values("x") for _, run in line.groupby("run_id")]
    if not runs:
        return np.empty(0), np.empty((0, 0))
    low, high = max(r["x"].iloc[0] for r in runs), min(r["x"].iloc[-1] for r in runs)
    x = np.unique(np.concatenate([r["x"].to_numpy() for r in runs]))
    x = x[(x >= low) & (x <= high)]
    return x, np.array([np.interp(x, r["x"], r["y"]) for r in runs]) if len(x) else np.empty((0, 0))


def _zoom(axes: Axes, courses: Sequence[Course]) -> str:
    """Scale the y-axis to the last 60% of training, where arms differ; what the caption says of the rest."""
    every = pd.concat([frame for found in courses for frame in (found.line, found.final)])
    late = every.loc[every["x"] >= every["x"].max() * 0.4, "y"]
    if not (len(late) > 1 and late.max() > late.min()):
        return ""
    margin = 0.05 * (late.max() - late.min())
    low, high = late.min() - margin, late.max() + margin
    axes.set_ylim(low, high)
    return "The beginning lies above the panel" if every["y"].max() > high else ""
