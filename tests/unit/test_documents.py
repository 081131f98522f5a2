"""What holds for every page: short lines, links that lead somewhere, and a first screen that says what this is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moe_sweeps.paths import REPOSITORY

WIDTH = 120
README, GLOSSARY = REPOSITORY / "README.md", REPOSITORY / "docs" / "glossary.md"
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), README, REPOSITORY / "CONTRIBUTING.md"]
PAGES += [REPOSITORY / "results" / "README.md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
FIRST_SCREEN = 30  # lines
FEWEST_WORDS = 20


def too_long(text: str) -> list[int]:
    """Numbers of lines over WIDTH that could be broken: not a table's row, and not one long word."""
    lines = enumerate(text.splitlines(), start=1)
    return [n for n, line in lines if len(line) > WIDTH and not line.lstrip().startswith("|") and _has_a_gap(line)]


def _has_a_gap(line: str) -> bool:
    words = re.sub(r"^\s*(?:[-*+]|\d+\.)?\s*", "", line)
    return " " in words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_lines_are_short(page: Path) -> None:
    assert too_long(page.read_text()) == []


def test_what_counts_as_too_long() -> None:
    word, prose = "x" * 121, "x " * 61
    assert too_long(f"short\n{prose}\n- {word}\n| {prose} |\n```\n{prose}\n```\n  1. a {word}") == [2, 6, 8]
    assert too_long("é" * 60 + " " + "é" * 59) == []  # characters, not bytes


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    linked = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in linked if not (page.parent / target).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    linked = set(LINK.findall(README.read_text()))
    pages = {p.relative_to(REPOSITORY).as_posix() for p in PAGES} - {"README.md"}
    assert sorted(pages - linked) == []


def test_the_first_screen_says_what_for_whom_and_what_one_gets() -> None:
    first = "\n".join(README.read_text().splitlines()[:FIRST_SCREEN])
    assert all(said in first for said in ("Find out", "**For**", "**You type**", "**You get**"))
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", first)
    content = (REPOSITORY / picture).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 200_000


def test_the_picture_is_one_that_the_tool_keeps() -> None:
    """`make results` writes it with its table, so that it cannot grow old beside newer numbers.

    The other one shows the page, whose picture docs/page/ has.
    """
    picture, of_page = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text())
    assert of_page == "docs/page/explorer.png"
    assert picture.startswith(("results/proxy/tables/", "results/suite/tables/"))
    table = (REPOSITORY / picture).with_name("table.md").read_text()
    assert Path(picture).name in table


def test_the_glossary_explains_the_words_of_a_newcomer() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\*.* \| (.+) \|$", GLOSSARY.read_text(), re.MULTILINE)
    words = [word for word, _ in rows]
    assert len(words) == len(set(words)) >= FEWEST_WORDS
    assert {"router", "balancer", "MaxVio", "run", "arm", "sweep", "noise floor", "claim"} <= {
        part for word in words for part in word.split(", ")
    }
    assert all(len(meaning) > 20 for _, meaning in rows)
