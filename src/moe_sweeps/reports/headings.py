"""A heading of GitHub Markdown that shows just its text.

It stands apart from host/plain.py, whose code training reads: a change there makes every earlier run one of other code.
"""

from __future__ import annotations

import re

from moe_sweeps.host.plain import markdown_text

_CLOSES = re.compile(r"(?:^|(?<= ))#(?=#*$)")  # would end the heading, and not be shown


def heading(text: str, level: int = 1, *, before: str = "") -> str:
    """A heading of `text`, whatever it holds, after the words `before`."""
    shown = _CLOSES.sub(r"\\#", markdown_text(text))
    return f"{'#' * level} {before}{shown}"
