"""What a terminal or a pipe cannot show becomes something that it can."""

from __future__ import annotations

import ast
import io
import logging
import sys

import pytest
from rich.table import Table
from rich.text import Text

from moe_sweeps.host.consoles import PlainFormatter, make_console, say
from moe_sweeps.paths import REPOSITORY


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "1–2 ±3 × naïve … 数 \ufffd"),
        ("latin-1", "1-2 ±3 × naïve . ? ?"),
        ("ascii", "1-2 ~3 x na?ve . ? ?"),
    ],
)
def test_one_character_stands_for_one(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    make_console().print("1–2 ±3 × naïve … 数 \udce9", highlight=False)
    sys.stdout.flush()
    assert raw.getvalue().decode(encoding) == f"{shown}\n"


def test_a_stream_of_another_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    make_console().print("–")
    assert stream.getvalue() == "–\n"


ACTING = "a\x1b[31mb\x1b]8;;http://127.0.0.1/\x07c\u202ed\x9be\tf"
SHOWN = "a\ufffd[31mb\ufffd]8;;http://127.0.0.1/\ufffdc\ufffdd\ufffde"


def test_nothing_that_is_said_acts_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    table = Table(box=None)
    table.add_column(ACTING)
    table.add_row(ACTING)
    console = make_console()
    console.print(ACTING)
    console.print(Text(ACTING))
    console.out(ACTING)
    console.print(table)
    say(ACTING)
    say(ACTING, stderr=True)
    said = capsys.readouterr()
    assert said.out.count(SHOWN) == 5  # the sixth is a Text, from which rich itself leaves the bell out
    assert said.err == f"{SHOWN}\tf\n"
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said.out)


def test_markup_is_obeyed_where_the_caller_says_so_and_never_a_link(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    console, text = make_console(), "[red]x[/] [link=http://127.0.0.1/]y[/] :smile:"
    console.print(text, highlight=False)
    console.print(text, highlight=False, markup=True)
    plain, marked = capsys.readouterr().out.splitlines()
    assert plain == text
    assert "\x1b[31mx\x1b[0m" in marked
    assert "8;" not in marked


def test_log_lines_keep_their_lines_and_nothing_that_acts() -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s\n%s", (ACTING, "b"), None)
    assert PlainFormatter("%(message)s").format(record) == f"{SHOWN}\tf\nb"


def test_everything_is_said_through_consoles() -> None:
    """A print() or a Console of one's own would be a second border."""
    found = []
    for path in (REPOSITORY / "src" / "moe_sweeps").rglob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {f.id for f in calls if isinstance(f, ast.Name)} & {"print", "Console"}
        found += [f"{path.stem}: {name}" for name in names]
    assert found == ["consoles: print"]
