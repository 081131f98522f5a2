"""Each border by itself, over all of Unicode: what comes out shows the text and does nothing."""

from __future__ import annotations

import csv
import io
import string
import unicodedata
from html import unescape
from html.parser import HTMLParser
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from unit.hostile import HOSTILE, latex_problems

from moe_sweeps.host.plain import csv_cell, drawn, file_name, html_link, html_text, markdown_text, plain
from moe_sweeps.reports.latex import escape

MARKS = st.text(st.sampled_from("\\`*_<>[]()|~$&#!@:/=+-.'\"%^{}\n\t 1ax;w\x1b\u202e"), max_size=30)
TEXTS = st.one_of(st.text(), MARKS, st.sampled_from(HOSTILE))
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@given(TEXTS)
def test_nothing_that_acts_is_left_and_what_is_shown_is_kept(text: str) -> None:
    one, lines = plain(text), plain(text, lines=True)
    assert not {unicodedata.category(c) for c in one} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(lines) == len(text)
    assert all(a == b or (b == "\ufffd" and not a.isprintable()) for a, b in zip(text, lines, strict=True))
    assert plain(one) == one
    one.encode()


@given(TEXTS)
def test_markdown_shows_just_the_text(text: str) -> None:
    """In a paragraph, behind a word; headings are those of reports/headings.py."""
    if not (shown := plain(text).strip()):
        return
    opened, inline, closed = MARKDOWN.parse(f"so {markdown_text(text)}")
    assert (opened.type, closed.type) == ("paragraph_open", "paragraph_close")
    assert [(child.type, child.content) for child in inline.children or ()] == [("text", f"so {shown}")]


@given(TEXTS)
def test_markdown_at_the_start_of_a_line_and_in_a_cell_is_text(text: str) -> None:
    shown = plain(text).strip()
    types = [token.type for token in MARKDOWN.parse(markdown_text(text))]
    assert types == (["paragraph_open", "inline", "paragraph_close"] if shown else [])
    tokens = MARKDOWN.parse(f"| a | b |\n| --- | --- |\n| {markdown_text(text)} | end |\n")
    cells = [token for token in tokens if token.type == "inline"][2:]
    assert [cell.content for cell in cells][1:] == ["end"]
    assert "".join(child.content for child in cells[0].children or ()) == shown


class _Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.data = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.data += data


@given(TEXTS)
def test_html_has_our_tag_and_our_attribute_alone(text: str) -> None:
    parsed = _Parsed(f'<td data-v="{html_text(text)}">{html_text(text)}</td>')
    assert parsed.tags == [("td", [("data-v", plain(text))])]
    assert parsed.data == plain(text)


@given(st.one_of(st.text().map(lambda t: t.encode(errors="replace").decode()), st.sampled_from(HOSTILE)))
def test_a_link_is_the_path_and_nothing_else(text: str) -> None:
    name = text.replace("/", "").replace("\0", "").encode(errors="replace").decode() or "x"
    found = urlsplit(unescape(html_link(name)))
    assert (found.scheme, found.netloc, found.query, found.fragment) == ("", "", "", "")
    assert unquote(found.path) == name


@given(TEXTS)
@example("x;=1+1;y")
@example('x, "y";"=1+1;"" @SUM(A1);-2')
@example("-1;x")
def test_a_spreadsheet_computes_no_cell(text: str) -> None:
    """Whether it reads commas or semicolons as separators."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([csv_cell(text), "end"])
    [[cell, end]] = csv.reader(io.StringIO(out.getvalue()))
    assert end == "end"
    for found, part in zip(cell.split(";"), plain(text).split(";"), strict=True):
        assert found in (part, f"'{part}")
    if cell.lstrip()[:1] in tuple("=+-@＝＋－＠") and cell.strip():
        float(cell)  # a number with a sign
    [[first, *rest]] = csv.reader(io.StringIO(out.getvalue()), delimiter=";")
    assert not any(found.lstrip().startswith(tuple("=+-@＝＋－＠")) for found in rest)
    assert not first.startswith(tuple("=+-@＝＋－＠")) or not rest


@pytest.mark.parametrize(
    "value", [None, 1, -1.5, True, "-1", "+2.5e-3", "-inf", "a-b", "a=b", "n = 3; p = 0.1", "a;b-c"]
)
def test_numbers_and_settings_stay_as_they_are_in_csv(value: object) -> None:
    assert csv_cell(value) == value


@given(TEXTS)
def test_latex_has_no_command_that_is_not_ours(text: str) -> None:
    assert latex_problems(escape(text)) == []


@given(TEXTS, TEXTS)
def test_names_of_files_are_names_and_different(one: str, other: str) -> None:
    name = file_name(one)
    assert PurePosixPath(name).name == name
    assert name.strip("._- ") or name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert len(name.encode()) <= 140
    assert all(c.isalnum() or c in "._-" for c in name)
    if one.replace(" ", "_") != other.replace(" ", "_"):
        assert file_name(other) != name


@pytest.mark.parametrize("name", ["aux_coef-0b30c773aae9", "proxy-lossfree-b0.01", string.ascii_letters, "größe-1.5"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert file_name(name) == name
    assert drawn(name) == html_link(name) == html_text(name) == csv_cell(name) == name or not name.isascii()
    assert markdown_text(name) == name.replace("_", "\\_")
