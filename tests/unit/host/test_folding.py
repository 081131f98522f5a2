"""Tables that cut nothing, at any width."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from moe_sweeps.host.folding import Column, FoldedTable

COLUMNS = (Column("run"), Column("state", folds=True), Column("loss", right=True), Column("settings", folds=True))
ROWS = (
    (
        "proxy-aux-0123456789ab",
        "done (router collapsed)",
        "3.2500",
        "balancer=aux aux.coef=0.1 optimizer.base_lr=0.003",
    ),
    ("proxy-lossfree-ba9876543210", "running", "-", "balancer=lossfree"),
)


def shown(width: int, columns: tuple[Column, ...] = COLUMNS, rows: object = ROWS) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(FoldedTable(columns, rows))  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 140, 200])
def test_every_word_is_whole_and_no_line_is_too_long(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    for row in ROWS:
        for word in " ".join(row).split():
            if len(word) <= width - 4:
                assert any(word in line for line in lines), (width, word)
    assert not any("…" in line for line in lines)


def test_a_row_that_fits_is_one_line() -> None:
    lines = shown(140)
    assert len(lines) == 3
    assert lines[1].split() == " ".join(ROWS[0]).split()


def test_texts_stand_below_a_row_that_has_no_room() -> None:
    lines = shown(60)
    assert lines[1].startswith("proxy-aux-0123456789ab")
    assert lines[2].startswith("    ")
    assert "balancer=aux" in lines[2] + lines[3]


def test_numbers_are_aligned_to_the_right() -> None:
    lines = shown(40, (Column("name"), Column("x", right=True)), (("a", "1.25"), ("b", "100.5")))
    assert lines == ["name      x", "a      1.25", "b     100.5"]


def test_a_table_without_rows_has_its_titles_alone() -> None:
    assert shown(80, rows=()) == ["run  state  loss  settings"]


@pytest.mark.parametrize("width", [1, 7, 20, 27])
def test_a_name_longer_than_the_terminal_is_wide_is_broken_and_not_cut(width: int) -> None:
    lines = shown(width, (Column("run"), Column("x", right=True)), ((name := "proxy-lossfree-ba9876543210", "1.5"),))
    assert max(map(len, lines)) <= width
    assert name in "".join(line.strip() for line in lines)
    assert "1.5" in "".join(line.strip() for line in lines)


def test_styles_are_kept() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(FoldedTable((Column("a"),), ((Text("bad", "red"),),)))
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[31mbad\x1b[0m" in console.file.getvalue()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.text("abc =.0123456789数", max_size=60)] * 4), max_size=4),
    st.integers(min_value=20, max_value=150),
)
@example([("0" * 21, "", "", "")], 20)
@example([("", "", "0" * 21, "")], 20)
@example([("0" * 21, "", "1" * 41, "")], 20)
def test_no_character_is_lost(rows: list[tuple[str, ...]], width: int) -> None:
    printed = "".join("".join(shown(width, rows=rows)).split())
    for row in rows:
        for cell in row:
            for word in cell.split():
                assert all(printed.count(c) >= "".join(map("".join, rows)).count(c) for c in set(word))
