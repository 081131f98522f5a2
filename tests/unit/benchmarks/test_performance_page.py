"""docs/performance.md is what benchmarks/results/ say, and every recorded case says where it was measured."""

from __future__ import annotations

from typing import Any

import pytest
from record import load
from render import PAGE, cell, page, section

CASES = load()
CASE: dict[str, Any] = {
    "case": "waiting",
    "title": "Waiting",
    "date": "2026-11-25",
    "machine": {"cpu": "a cpu", "cores": 2, "load": 0.1},
    "versions": {"python": "3.11"},
    "threads": 1,
    "rows": [{"what": "a", "ours": 2.0, "rival": 3.0}, {"what": "b", "ours": 12345.6, "held": "no"}],
}


def test_the_page_is_the_rendering_of_the_data() -> None:
    assert PAGE.read_text() == page(CASES), "python benchmarks/render.py"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]))
def test_a_case_says_where_it_was_measured(case: dict[str, Any]) -> None:
    assert set(case) >= {"case", "date", "machine", "versions", "threads", "rows"}
    assert case["rows"]
    assert case["versions"]["torch"]


def test_a_section_has_the_columns_of_all_its_rows() -> None:
    assert section(CASE).splitlines() == [
        "## Waiting",
        "",
        "`waiting`, 2026-11-25; cpu a cpu, cores 2, load 0.1; threads 1; python 3.11.",
        "",
        "| what | ours | rival | held |",
        "|---|---|---|---|",
        "| a | 2 | 3 | – |",
        "| b | 12,346 | – | no |",
    ]


def test_cells() -> None:
    assert [cell(v) for v in (None, 0.01234, 12, 123456, "x")] == ["–", "0.0123", "12", "123,456", "x"]
