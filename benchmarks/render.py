"""docs/performance.md from benchmarks/results/*.json: `python benchmarks/render.py`. A test holds it to the data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import load

WIDTH = 120
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """# Performance

Rendered by `python benchmarks/render.py` from `benchmarks/results/*.json`; do not edit by hand. `make bench` measures
the cases that need no GPU in under ten minutes and renders this page, `make bench NAME=start_up` measures one,
`make gpu-hour` those that need a GPU. What is compared was measured in turn, in one run; a ratio above 1 means that
ours is better. The load is the number of processes that wanted a core in the minute before the end: where it is above
the number of cores, seconds are longer than on a quiet machine, and only ratios and CPU seconds should be relied on.
"""
GPU = "gpu"  # stands for all cases of benchmarks/gpu_hour.py
# What the page says of cases for which there is no file.
MISSING = {
    GPU: "## GPU\n\nNot yet measured.\n",
    "vs_stock_hydra": "## Sweep throughput against stock Hydra\n\nNot yet recorded as data.\n",
    "tracking_cost": "## What a tracker costs\n\nNot yet recorded as data.\n",
    "at_scale": "## Large sweeps\n\nNot yet recorded as data.\n",
    "step_vs_mixtral": "## Training step\n\nNot yet recorded as data; docs/LOG.md has earlier numbers.\n",
}


def page(cases: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    there = {GPU if case["case"].startswith("gpu_") else case["case"] for case in cases}
    parts = [HEAD, *map(section, cases), *(text for name, text in MISSING.items() if name not in there)]
    return "\n".join(parts)


def section(case: dict[str, Any]) -> str:
    """One case: a heading, where and when, and a table with the columns that its rows have."""
    columns = list(dict.fromkeys(key for row in case["rows"] for key in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row.get(c)) for c in columns)} |" for row in case["rows"]]
    note = [wrapped(case["note"]), ""] if case.get("note") else []
    return "\n".join([f"## {case.get('title', case['case'])}", "", wrapped(origin(case)), "", *note, *lines, ""])


def wrapped(text: str) -> str:
    """Prose in lines as long as those of the other pages."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def origin(case: dict[str, Any]) -> str:
    """`make bench NAME=...`, date, machine, versions, threads."""
    machine = ", ".join(f"{k} {v}" for k, v in case["machine"].items()) if isinstance(case["machine"], dict) else None
    versions = ", ".join(f"{name} {version}" for name, version in case["versions"].items())
    return f"`{case['case']}`, {case['date']}; {machine or case['machine']}; threads {case['threads']}; {versions}."


def cell(value: Any) -> str:
    """A value as the table shows it: numbers with three digits, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(load()))
    print(f"wrote {PAGE}")
