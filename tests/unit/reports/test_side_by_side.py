"""The picture of runs side by side: what it draws, from their records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from unit.results.suite import make_suite_run

from moe_sweeps.records.rundir import RunDir
from moe_sweeps.reports.side_by_side import curves
from moe_sweeps.results.side_by_side import side_by_side


def numbers(data: object) -> list[float]:
    return [float(value) for value in np.asarray(data)]


def with_wider_end(run: RunDir, loss: float) -> RunDir:
    """Its last evaluation takes more windows, and has a loss of its own."""
    path = run.path / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[-1] |= {"tokens": 4096, "loss": loss}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def test_no_line_joins_the_final_evaluation_to_those_on_the_way(tmp_path: Path) -> None:
    runs = [
        with_wider_end(make_suite_run(tmp_path, {"aux.coef": coef}, 0, loss=loss, maxvio=0.1), loss + 0.5)
        for coef, loss in (("0.1", 4.0), ("0.2", 4.125))
    ]
    figure = curves(side_by_side([("a", runs[0]), ("b", runs[1])]), "loss")
    above, below = figure.axes
    lines = [line for line in above.lines if line.get_linestyle() != "None"]
    assert [numbers(line.get_xdata()) for line in lines] == [list(range(40, 361, 40))] * 2
    ends = [line for line in above.lines if line.get_linestyle() == "None"]
    assert [(numbers(p.get_xdata()), numbers(p.get_ydata())) for p in ends] == [([400], [4.5]), ([400], [4.625])]
    apart = below.lines[1:]
    assert [numbers(line.get_xdata()) for line in apart] == [list(range(40, 361, 40)), [400]]
    assert numbers(apart[0].get_ydata()) == pytest.approx([0.125] * 9)
    assert numbers(apart[1].get_ydata()) == pytest.approx([0.125])
    note = " ".join(figure._supxlabel.get_text().split())  # type: ignore[attr-defined]
    assert "Large points: the final evaluation" in note
