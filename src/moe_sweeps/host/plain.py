"""Make text from run folders and manifests harmless: whatever it holds, it is shown as text and nothing else.

There is a function for each output: terminals, Markdown, HTML, CSV, figures, file names. (LaTeX has its own table of
characters in reports/latex.py, which starts from `plain`.)
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from html import escape
from typing import Any
from urllib.parse import quote

UNSHOWN = "\ufffd"
MOST_BYTES = 120  # of a file's name: with a suffix and a temporary one it stays below the 255 of file systems
_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")
# Controls, marks that turn or hide text, halves of surrogate pairs, private and unassigned, separators of lines.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Anywhere: what starts markup, an entity, a link, an address. At the start of a line: what starts a heading, a list, a
# rule or a quotation. A number with a sign or a decimal point starts none, and stays as it is.
_ANYWHERE = r"[\\`*_<\[|~$]|&(?=#|\w+;)|:(?=//)|(?<=\bwww)\.|(?<=\w)@(?=\w)"
_AT_START = r"^(?:>|#(?=#{0,5}(?:\s|$))|[+-](?=\s|$)|-(?=[-\s]*$)|=(?==*$)|\d{1,9}(?=[.)](?:\s|$)))"
_MARKDOWN = re.compile(f"{_ANYWHERE}|{_AT_START}")
_NEVER_MARKUP = " .,"  # within a line
_FORMULA = tuple("=+-@＝＋－＠")


def plain(text: str, *, lines: bool = False) -> str:
    """`text` with control characters, direction marks and halves of surrogate pairs replaced by U+FFFD.

    It is one line: breaks and tabs become spaces. With `lines` both are kept, and the length stays the same.
    """
    if text.isascii() and text.isprintable():
        return text
    if not lines:
        text = _BREAKS.sub(" ", text).replace("\t", " ")
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else UNSHOWN for c in text)


def markdown_text(text: str) -> str:
    """`text` as GitHub Markdown that shows just these characters: no markup, link, picture, HTML or formula."""
    found = plain(text).strip()  # four spaces would begin a block of code
    return _MARKDOWN.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", found)


def markdown_entities(text: str) -> str:
    """`text` in which each character that may be markup is an HTML entity, for Markdown other than GitHub's.

    TensorBoard reads Python-Markdown, where a backslash escapes neither `<` nor `~`.
    """
    return "".join(c if c.isalnum() or c in _NEVER_MARKUP or not c.isascii() else f"&#{ord(c)};" for c in plain(text))


def markdown_code(text: str) -> str:
    """`text` as a block of code of one line, whatever it begins with."""
    return f"    {plain(text).strip()}"


def html_text(text: str) -> str:
    """`text` as it stands between tags and in a quoted attribute."""
    return escape(plain(text))


def html_link(path: str) -> str:
    """A relative path as a link: all of a name is part of the path, never a scheme, query or host."""
    return escape(quote(path, safe="/", errors="surrogateescape"))


def csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet does not compute: what would be a formula gets an apostrophe first, as OWASP advises.

    A spreadsheet may be set to `;` as the separator, so what follows one within a cell may become a cell, too.
    """
    if not isinstance(value, str):
        return value
    first, *rest = plain(value).split(";")
    whole = ";".join([first, *(f"'{part}" if part.lstrip(' "').startswith(_FORMULA) else part for part in rest)])
    return f"'{whole}" if first.lstrip().startswith(_FORMULA) and not _is_number(whole) else whole


def drawn(text: str, most: int = 600) -> str:
    """A text for a figure, of at most `most` characters. A leading underscore gets a space: legends would hide the
    text."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    text = plain(text, lines=True).replace("\t", " ")
    return f" {text}" if text.startswith("_") else text


def file_name(text: str) -> str:
    """`text` as a file name or an anchor. Different texts give different names, except that a space becomes _."""
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in text).lstrip(".")
    short = kept.encode()[:MOST_BYTES].decode(errors="ignore")
    return (
        short
        if short and short == text.replace(" ", "_")
        else f"{short or '_'}-{hashlib.sha256(repr(text).encode()).hexdigest()[:8]}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
