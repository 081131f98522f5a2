"""Figures as files, drawn in the project's style."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from moe_sweeps.reports.drawing.shorten import shorten
from moe_sweeps.reports.drawing.style import STYLE
from moe_sweeps.results.history import NotRecorded

T = TypeVar("T")
Files = dict[str, dict[str, bytes]]
LEAST = 0.5  # inches; a panel that is lower or narrower shows nothing


class Drawn(NamedTuple):
    """PNG and SVG of each figure by name and suffix; why others are missing; what is wrong with some that are there."""

    files: Files
    left_out: dict[str, str]
    faults: dict[str, str]


def draw_files(figures: Mapping[str, Callable[[], Figure]]) -> Drawn:
    """Each figure as files. A warning of the plotting library is a fault of the figure (an error where warnings are).

    What keeps one figure from being drawn is a reason and never an exception, so that no table is lost for a picture.
    """
    drawn: Files = {}
    left_out: dict[str, str] = {}
    faults: dict[str, str] = {}
    style: dict[Any, Any] = dict(matplotlib.rcParamsDefault) | STYLE  # the user's own settings do not count
    style.pop("backend", None)
    for name, draw in figures.items():
        with matplotlib.rc_context(style), warnings.catch_warnings(record=True) as warned:
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for what the font does not have
            try:
                figure = _guarded(draw)
                drawn[name] = _guarded(partial(_files, figure))
                words = [*dict.fromkeys(str(each.message) for each in warned), *cramped(figure)]
                faults |= {name: "; ".join(words)} if words else {}
            except NotRecorded as reason:
                left_out[name] = str(reason)
    return Drawn(drawn, left_out, faults)


def _guarded(draw: Callable[[], T]) -> T:
    """What `draw` makes; records with content that no run writes are treated like missing ones."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return draw()
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise NotRecorded(f"what is recorded has unexpected content ({text})") from error


def cramped(figure: Figure) -> list[str]:
    """What a reader of a figure that was drawn could not see: panels without room, legends beyond its edge."""
    whole, least = figure.bbox, LEAST * figure.dpi
    found = []
    panels = [axes.get_window_extent() for axes in figure.axes if axes.axison and not hasattr(axes, "_colorbar")]
    if any(min(box.width, box.height) < least for box in panels):
        found.append("a panel has no room")
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for box in (legend.get_window_extent() for legend in legends if legend is not None):
        if box.x0 < whole.x0 or box.y0 < whole.y0 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1:
            found.append("a legend reaches beyond the edge")
    return list(dict.fromkeys(found))


def _files(figure: Figure) -> dict[str, bytes]:
    png, svg = io.BytesIO(), io.BytesIO()
    figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
    raster: Any = FigureCanvasAgg(figure)
    raster.print_png(png)  # print_figure would draw each a second time
    vector: Any = FigureCanvasSVG(figure)
    vector.print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": shorten(svg.getvalue())}
