"""Headings show just their text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from unit.hostile import HOSTILE

from moe_sweeps.host.plain import plain
from moe_sweeps.reports.headings import heading

MARKS = st.text(st.sampled_from("\\`*_<>[]()|~$&#!@:/=+-.'\"%^{}\n\t 1ax;w\x1b\u202e"), max_size=30)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@given(st.one_of(st.text(), MARKS, st.sampled_from(HOSTILE)))
@example("a #")
@example("a ##")
@example("#######")
@example("a\t#")
@example("# #")
@example("a #b #")
def test_a_heading_shows_just_the_text(text: str) -> None:
    if not (shown := plain(text).strip()):
        return
    opened, inline, closed = MARKDOWN.parse(heading(text))
    assert (opened.type, closed.type) == ("heading_open", "heading_close")
    assert [(child.type, child.content) for child in inline.children or ()] == [("text", shown)]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (heading("aux.coef", 2), "## aux.coef"),
        (heading("C #", before="Costs of "), "# Costs of C \\#"),
        (heading("C#"), "# C#"),
    ],
)
def test_levels_and_words_before(line: str, wanted: str) -> None:
    assert line == wanted
