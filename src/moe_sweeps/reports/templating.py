"""The library behind every HTML page: templates in templates/, and whatever they set is text, and escaped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from moe_sweeps.host.plain import plain

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def environment() -> Environment:
    """The templates; a name that nobody gave a value is an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


@functools.cache
def as_it_is(name: str) -> Markup:
    """A file of ours (styles, scripts) that a template sets unescaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    """What a template sets, without control characters and marks that turn text; escaped afterwards."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
