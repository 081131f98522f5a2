"""The blocks of docs/results.md that are rendered from the committed rows; a test holds the page to them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from simulated import beside, calibration, looking, promises, real, resampled, scorecards, store
from simulated.rates import Row

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
LINES: dict[str, Callable[[list[Row]], list[str]]] = {
    "calibration": calibration.lines, "rivals": beside.lines, "looks": looking.lines, "promises": promises.lines,
    "resampled": resampled.lines, "scorecards": scorecards.lines, "proposals": real.lines,
}  # fmt: skip


def rendered(text: str) -> str:
    """The page with every block as the committed rows have it.

    Raises:
        ValueError: a part has not exactly one block.
    """
    for part, lines in LINES.items():
        block = re.compile(rf"(<!-- evidence: {part} -->\n).*?(<!-- end of {part} -->\n)", re.DOTALL)
        body = "\n".join(["", *map(_wrapped, lines(store.load(part))), "", ""])
        text, times = block.subn(lambda found, body=body: f"{found[1]}{body}{found[2]}", text)  # type: ignore[misc]
        if times != 1:
            raise ValueError(f"docs/results.md has {times} blocks of {part}, and must have one")
    return text


def _wrapped(line: str) -> str:
    """A paragraph in lines of the page's width; rows of tables as they are."""
    indent = "  " if line.startswith("- ") else ""
    return line if line.startswith("|") else textwrap.fill(line, 120, subsequent_indent=indent, break_on_hyphens=False)
