"""The picture of runs side by side: their curves, and below them what each is minus the first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_sweeps.host.files import write_atomic
from moe_sweeps.host.plain import drawn
from moe_sweeps.records.numbers import IN_EVALUATIONS
from moe_sweeps.reports.charts.canvas import finish
from moe_sweeps.reports.drawing.files import draw_files
from moe_sweeps.reports.drawing.style import STEP, WIDTH, end_point, line, plain_axes
from moe_sweeps.results.evaluations import Evaluations, parted
from moe_sweeps.results.history import METRICS, History, NotRecorded, Series
from moe_sweeps.results.side_by_side import SideBySide

MOST_RUNS = 8  # lines that can be told apart
LETTERS = "ABCDEFGH"
HEIGHT = 6.4  # inches of both panels
SPLITS = ("val", "train")


class Pictures(NamedTuple):
    """The files of the picture, or why there is none."""

    paths: list[Path]
    left_out: str | None


def write_curves(found: SideBySide, reports_root: Path, metric: str = "loss") -> Pictures:
    """Draw `metric` of metrics.jsonl over training into compare/<ids>/ below the reports folder, as PNG and SVG."""
    drawn_files = draw_files({metric: partial(curves, found, metric)})
    if metric not in drawn_files.files:
        return Pictures([], drawn_files.left_out[metric])
    folder = reports_root / "compare" / _name(found)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, content in drawn_files.files[metric].items():
        paths.append(folder / f"{_file(metric)}.{suffix}")
        write_atomic(paths[-1], content)
    return Pictures(paths, None)


def curves(found: SideBySide, metric: str) -> Figure:
    """Every run's curve of `metric`, and its difference to the first run's where both have a record of one step.

    Raises:
        NotRecorded: no run has recorded it.
    """
    split, by_run = _recorded(found, metric)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    title = f"{metric} of {'evaluations' if split == 'val' else 'training'}, run by run"
    figure.suptitle(drawn(title), x=0.01, ha="left", fontsize=14, fontweight="bold").set_in_layout(False)
    above, below = (plain_axes(axes) for axes in figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)))
    for place, (side, series) in enumerate(zip(found.sides, by_run, strict=True)):
        if series is not None:
            name = side.label if side.label == side.folder.path.name else f"{side.label} ({side.folder.run_id})"
            _draw(above, series, f"{LETTERS[place]}: {name}", place)
    below.axhline(0.0, color="#505050", linewidth=1.0)
    first = by_run[0]
    for place, series in enumerate(by_run[1:], 1):
        if first is not None and series is not None:
            _draw(below, Evaluations(*map(difference, first, series)), "_", place)
    above.set(ylabel=drawn(metric))
    below.set(ylabel=f"minus {LETTERS[0]}", xlabel=STEP)
    missing = [LETTERS[place] for place, series in enumerate(by_run) if series is None]
    note = f" Not recorded by {', '.join(missing)}." if missing else ""
    if any(series is not None and len(series.final.steps) for series in by_run):
        note += " Large points: the final evaluation, on other windows than those on the way, so no line joins them."
    text = (
        f"One run each, so nothing here tells a difference from that of a seed. Below: steps that both recorded.{note}"
    )
    return finish(figure, text, legend=above)


def _draw(axes: Axes, found: Evaluations, label: str, place: int) -> None:
    """A run's line, and its final evaluation as a point of its own."""
    if len(found.line.steps):
        line(axes, found.line, label, place)
    if len(found.final.steps):
        end_point(axes, found.final, "_" if len(found.line.steps) else label, place)


def difference(first: Series, other: Series) -> Series:
    """`other` minus `first` at the steps that both have."""
    steps, at_first, at_other = np.intersect1d(first.steps, other.steps, return_indices=True)
    return Series(steps, other.values[at_other] - first.values[at_first])


def _recorded(found: SideBySide, metric: str) -> tuple[str, list[Evaluations | None]]:
    """The split that has the metric, evaluations before training, and its series by run."""
    histories = [History.read(side.folder) for side in found.sides]
    name = metric.removeprefix(IN_EVALUATIONS)
    splits = ("val",) if name != metric else SPLITS
    for split in splits:
        series = [_series(history, split, name) for history in histories]
        if any(one is not None for one in series):
            return split, series
    raise NotRecorded(f"no run has recorded {metric} in metrics.jsonl")


def _series(history: History, split: str, name: str) -> Evaluations | None:
    """The records of one split; of training there is no final one."""
    if not history.has(split, name, METRICS):
        return None
    if split == "val":
        found = parted(history, name)
    else:
        steps, values = history.series(split, name, METRICS)
        found = Evaluations(Series(steps, values), Series(steps[:0], values[:0]))
    return found if found.line.values.ndim == 1 else None


def _name(found: SideBySide) -> str:
    ids: Sequence[str] = [side.folder.run_id for side in found.sides]
    return (
        "-".join(ids) if len(ids) <= 4 else f"{len(ids)}-runs-{hashlib.sha256('-'.join(ids).encode()).hexdigest()[:12]}"
    )


def _file(metric: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in metric).strip(".") or "curves"
