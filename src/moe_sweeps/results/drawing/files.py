"""Figures as files, drawn in the project's style."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from moe_sweeps.results.drawing.style import STYLE
from moe_sweeps.results.history import NotRecorded

Files = dict[str, dict[str, bytes]]


def draw_files(figures: Mapping[str, Callable[[], Figure]]) -> tuple[Files, dict[str, str]]:
    """PNG and SVG of each figure by its name and suffix, and the reasons for those that cannot be drawn."""
    drawn: Files = {}
    left_out: dict[str, str] = {}
    style: dict[Any, Any] = dict(matplotlib.rcParamsDefault) | STYLE  # whatever the user's own settings are
    style.pop("backend", None)
    for name, draw in figures.items():
        with matplotlib.rc_context(style):
            try:
                drawn[name] = _files(draw())
            except NotRecorded as reason:
                left_out[name] = str(reason)
    return drawn, left_out


def _files(figure: Figure) -> dict[str, bytes]:
    png, svg = io.BytesIO(), io.BytesIO()
    figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
    raster: Any = FigureCanvasAgg(figure)
    raster.print_png(png)  # print_figure would draw each a second time
    vector: Any = FigureCanvasSVG(figure)
    vector.print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}
