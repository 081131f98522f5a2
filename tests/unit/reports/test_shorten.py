"""SVG files that are shorter draw the same picture."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from moe_sweeps.reports.drawing.shorten import shorten

NUMBER = re.compile(r"-?\d+\.?\d*")


@pytest.fixture(scope="module")
def svg() -> bytes:
    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.plot([0, 0.123456, 1, 3], [-1e-4, 2.987654, 1, 4], marker="o", label="scale(0.015625) translate(1.23456 2)")
    axes.fill_between([0, 1, 2], [0, 1, 2], [1, 3, 2.5], alpha=0.2)
    axes.legend()
    held = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(held, metadata={"Date": None})
    return held.getvalue()


def drawn(svg: bytes) -> list[tuple[str, ...]]:
    """Tag and drawing attributes of what is seen, in order."""
    seen: list[tuple[str, ...]] = []
    for element in ElementTree.fromstring(svg).iter():
        tag = element.tag.split("}")[-1]
        if tag in ("path", "use", "clipPath", "rect"):
            seen.append((tag, element.get("d", ""), element.get("style", ""), element.get("clip-path", "")))
    return seen


def test_every_shape_stays_within_a_hundredth_of_a_point(svg: bytes) -> None:
    before, after = drawn(svg), drawn(shorten(svg))
    assert len(before) == len(after) > 40
    for (tag, path, style, clip), (new_tag, new_path, new_style, new_clip) in zip(before, after, strict=True):
        assert (tag, style, clip) == (new_tag, new_style, new_clip)
        assert re.findall("[A-Za-z]", path) == re.findall("[A-Za-z]", new_path)
        numbers, new = ([float(n) for n in NUMBER.findall(text)] for text in (path, new_path))
        assert new == pytest.approx(numbers, abs=0.0051)


def test_a_glyph_keeps_its_scale_and_its_place(svg: bytes) -> None:
    text = shorten(svg).decode()
    assert "scale(0.015625)" in text
    names = set(re.findall(r'id="(D-[0-9a-f]+)"', text))
    assert set(re.findall(r'href="#(D-[0-9a-f]+)"', text)) == names
    places = [float(x) for x in re.findall(r"<use [^>]*transform=\"translate\(([\d.]+)", svg.decode())]
    assert [float(x) for x in re.findall(r'<use xlink:href="#D-[^>]* x="([\d.]+)"', text)] == pytest.approx(
        places, abs=0.0051
    )


def test_every_reference_is_there(svg: bytes) -> None:
    text = shorten(svg).decode()
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= ids


def test_it_is_shorter_and_doing_it_twice_changes_nothing(svg: bytes) -> None:
    once = shorten(svg)
    assert len(once) < 0.75 * len(svg)
    assert shorten(once) == once
