"""The figure of all statements: panels, places, borders, and texts that nobody would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.axes import Axes
from unit.results.suite import make_suite

from moe_sweeps.records.manifest import load_manifests
from moe_sweeps.records.words import CONTRADICTED, NOT_JUDGED, REPRODUCED, UNDECIDED
from moe_sweeps.reports.charts.statements import MOST_ROWS, statements
from moe_sweeps.reports.drawing.files import draw_files
from moe_sweeps.reports.suite import Page, Picture, open_suite
from moe_sweeps.reports.write import write_tables
from moe_sweeps.results.findings import Effect, Verdict
from moe_sweeps.results.history import NotRecorded
from moe_sweeps.results.tables import Table

LOSS = Effect(-0.02, -0.03, -0.01, "difference", (4, 11), "paired by seed", (-0.005,), -1)
RATIO = Effect(7.0, 5.5, 9.0, "ratio", (4, 4), "independent", (5.0,), 1)
MARGIN = Effect(0.004, -0.02, 0.03, "difference", (3, 3), "independent", (-0.01, 0.01), 0)
BARE = Effect(0.1, None, None, "difference", (1, 1), "one seed")


def one(claim: str, effect: Effect | None, verdict: str = REPRODUCED, metric: str = "val_loss") -> Verdict:
    return Verdict(claim, metric, "", verdict, "why", effect)


def judged(*verdicts: Verdict, name: str = "mine") -> list[tuple[Table, list[Verdict]]]:
    return [(cast("Table", SimpleNamespace(manifest=SimpleNamespace(name=name))), [*verdicts])]


def panels(*verdicts: Verdict) -> list[Axes]:
    return list(statements(judged(*verdicts)).axes)


def lines(axes: Axes) -> list[list[float]]:
    """The x of every line that is drawn."""
    return [[float(x) for x in np.asarray(line.get_xdata())] for line in axes.lines if np.size(line.get_xdata())]


def borders(axes: Axes) -> list[float]:
    found: list[Any] = [each for each in axes.collections if hasattr(each, "get_segments")]
    return [float(segment[0][0]) for each in found for segment in each.get_segments()]


def test_statements_about_one_number_share_a_panel_and_keep_its_unit() -> None:
    loss, ratio = panels(one("a", LOSS), one("b", RATIO, metric="val_maxvio_global"), one("c", MARGIN, UNDECIDED))
    assert loss.get_xlabel() == "difference in validation loss (nats a token)"
    assert ratio.get_xlabel().startswith("ratio of MaxVio")
    assert [text.get_text() for text in loss.get_yticklabels()] == ["a [mine]", "c [mine]"]
    assert borders(loss) == pytest.approx([-0.005, -0.01, 0.01])
    assert borders(ratio) == pytest.approx([5.0])
    assert [-0.03, -0.01] in [pytest.approx(x) for x in lines(loss)]
    assert [7.0] in [pytest.approx(x) for x in lines(ratio)]
    assert [text.get_text() for text in loss.texts] == ["reproduced, n 4, 11", "undecided, n 3, 3"]


def test_what_is_decided_comes_first_and_each_verdict_has_a_mark_of_its_own() -> None:
    (axes,) = panels(one("a", LOSS, UNDECIDED), one("b", LOSS, CONTRADICTED), one("c", LOSS, REPRODUCED))
    assert [text.get_text()[0] for text in axes.get_yticklabels()] == ["c", "b", "a"]
    marks = [(line.get_marker(), line.get_markerfacecolor()) for line in axes.lines if line.get_markersize() == 7]
    assert len(set(marks)) == 3


def test_what_has_no_number_is_counted_and_what_has_no_interval_is_a_point() -> None:
    figure = statements(judged(one("a", BARE, UNDECIDED), one("b", None, UNDECIDED), one("c", None, NOT_JUDGED)))
    assert "Not shown, as they have no number: 2 of 3." in " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert lines(figure.axes[0]) == [[pytest.approx(0.1)]]
    with pytest.raises(NotRecorded):
        statements(judged(one("b", None, UNDECIDED)))
    with pytest.raises(NotRecorded):
        statements([])


def test_a_statement_that_was_not_judged_but_has_a_number_is_drawn_and_told() -> None:
    (axes,) = panels(one("a", LOSS, NOT_JUDGED))
    assert axes.texts[0].get_text().startswith(NOT_JUDGED)


def test_one_wild_interval_does_not_press_the_others_into_a_line() -> None:
    wild = replace(LOSS, low=-50.0, high=50.0)
    figure = statements(judged(*(one(f"{i}", LOSS) for i in range(4)), one("wild", wild, UNDECIDED)))
    low, high = figure.axes[0].get_xlim()
    assert high - low < 0.3
    assert "Lines that end at the edge go on" in " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "effect",
    [
        replace(RATIO, value=0.0, low=0.0, high=0.0, borders=(0.0,)),
        replace(RATIO, value=float("inf"), low=None, high=None),
        replace(RATIO, borders=(0.0,)),
        replace(LOSS, value=0.0, low=0.0, high=0.0, borders=(0.0,)),
        replace(LOSS, value=1e300, low=-1e300, high=1e300),
        replace(LOSS, value=float("nan"), low=float("nan"), high=float("nan")),
        replace(MARGIN, borders=(-1e9, 1e9)),
    ],
)
def test_numbers_that_no_axis_holds_end_no_page(effect: Effect) -> None:
    drawn = draw_files({"claims": lambda: statements(judged(one("a", effect), one("b", LOSS)))})
    assert drawn.files or drawn.left_out
    assert drawn.faults == {}


def test_texts_are_drawn_as_they_are_and_many_statements_in_part() -> None:
    hostile = "$\\frac{1}{0}$ <script>alert(1)</script>\n\x1b[31m \u202egnol " + "w" * 300
    drawn = draw_files({"claims": lambda: statements(judged(one(hostile, LOSS)))})
    assert set(drawn.files["claims"]) == {"png", "svg"}
    assert b"<script" not in drawn.files["claims"]["svg"]
    assert b"\x1b" not in drawn.files["claims"]["svg"]
    figure = statements(judged(*(one(f"statement {i}", LOSS) for i in range(MOST_ROWS + 5))))
    assert len(figure.axes[0].get_yticklabels()) == MOST_ROWS
    assert f"{MOST_ROWS} of {MOST_ROWS + 5} statements" in " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]


def test_it_lies_beside_the_scorecard_and_on_the_page_and_goes_with_the_last_statement(tmp_path: Path) -> None:
    root, reports = tmp_path / "runs", tmp_path / "reports"
    make_suite(root)
    assert any(m.expect for m in load_manifests(root)[0])
    write_tables(root, reports)
    assert (reports / "claims.png").read_bytes().startswith(b"\x89PNG")
    assert "](claims.png)" in (reports / "claims.md").read_text()
    assert "and the border where each turns" in (reports / "index.html").read_text()
    assert isinstance(open_suite(root).statements(), Picture)
    for manifest in (root / "sweeps").rglob("manifest.json"):
        manifest.unlink()
    write_tables(root, reports)
    assert not (reports / "claims.png").exists()
    assert isinstance(open_suite(root).statements(), Page)
