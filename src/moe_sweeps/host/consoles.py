"""Output for people: terminals, pipes and files that may not be able to show every character.

All output passes here, so that nothing in it controls the terminal: escape sequences from a run folder are shown as
text, links are removed, and `[red]` is text unless the caller passes `markup=True`.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from moe_sweeps.host.plain import plain

WIDTH_WITHOUT_TERMINAL = 140
ERRORS = "moe_sweeps.host.plain"
# One character for one, so that columns stay aligned.
PLAIN = {
    **dict.fromkeys("–—−‐‑─━╸╺", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("‘’`", "'"),
    **dict.fromkeys("“”", '"'),
    **{"×": "x", "±": "~", "…": ".", "→": ">", "←": "<", "≤": "<", "≥": ">", "·": ".", "•": "*", "✓": "+", "✗": "x"},
}


class PlainConsole(Console):
    """A console on which only rich's own control sequences have an effect."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`, cleaned before they are broken into lines and again as they leave."""
        if isinstance(renderable, Text):
            renderable = _plain_text(renderable)
        for segment in super().render(renderable, options):
            yield segment if segment.control else _plain_segment(segment)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A string as rich's Text, with control characters replaced."""
        return super().render_str(plain(text, lines=True), **settings)


class PlainFormatter(logging.Formatter):
    """Log lines without control characters, since somebody will read the file in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, with control characters replaced."""
        return plain(super().format(record), lines=True)


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console as wide as the terminal. Without a terminal it is wide enough for tables, unless COLUMNS is set.

    From here on stdout and stderr replace characters that they cannot encode by similar ones.
    """
    show_what_can_be_shown()
    stream = sys.stderr if stderr else sys.stdout
    wide = None if (stream and stream.isatty()) or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return PlainConsole(width=wide, stderr=stderr, quiet=quiet, markup=False, emoji=False)


def say(text: object, *, stderr: bool = False) -> None:
    """Print a line without a console: the last message of a command, or a line of a job's log."""
    print(plain(str(text), lines=True), file=sys.stderr if stderr else sys.stdout, flush=True)


def log_plainly(level: int = logging.INFO) -> None:
    """Let this process log to stderr, without control characters."""
    logging.basicConfig(level=level, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))


def show_what_can_be_shown() -> None:
    """Let stdout and stderr replace characters that their encoding lacks: a run of hours must not die of a dash."""
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not stream.closed:
            reconfigure(errors=ERRORS)


def _plain_text(text: Text) -> Text:
    shown = plain(text.plain, lines=True)
    if shown != text.plain:
        text = text.copy()
        text.plain = shown
    return text


def _plain_segment(segment: Segment) -> Segment:
    style = segment.style
    if style is not None and style.link is not None:
        style = style.update_link(None)
    return Segment(plain(segment.text, lines=True), style)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end
