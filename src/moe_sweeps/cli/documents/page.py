"""docs/json.md, from the declarations: `python -m moe_sweeps.cli.documents.page` writes it to stdout."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from moe_sweeps.cli.documents.compare import CompareDocument
from moe_sweeps.cli.documents.decide import DecideDocument
from moe_sweeps.cli.documents.document import Document, Part
from moe_sweeps.cli.documents.explain import CellDocument, ExplainDocument
from moe_sweeps.cli.documents.judgement import JudgementDocument
from moe_sweeps.cli.documents.knobs import KnobsDocument
from moe_sweeps.cli.documents.plan import PlanDocument
from moe_sweeps.cli.documents.refusal import ErrorDocument
from moe_sweeps.cli.documents.state import StatusDocument
from moe_sweeps.cli.documents.tables import TablesDocument
from moe_sweeps.cli.documents.why import WhyDocument

COMMANDS: dict[type[Document], str] = {
    StatusDocument: "moe-sweeps status [WHAT ...] --json",
    PlanDocument: "moe-sweeps plan KEY=VALUES ... --json",
    TablesDocument: "moe-sweeps tables [SWEEP] --json",
    CompareDocument: "moe-sweeps compare RUN RUN ... --json",
    JudgementDocument: "moe-sweeps judge A B --json",
    DecideDocument: "moe-sweeps decide sweep=NAME --budget TIME --json",
    WhyDocument: "moe-sweeps why A B --json",
    ExplainDocument: "moe-sweeps explain RUN --json",
    CellDocument: "moe-sweeps explain TABLE:ROW,COLUMN --json",
    KnobsDocument: "moe-sweeps knobs [WORD] --json",
    ErrorDocument: "any of these, where it is refused",
}
_HEAD = """# Output for programs

Written by `make format` from the declarations in `src/moe_sweeps/cli/documents/`; a test holds every command to them.

With `--json` a command writes one JSON document to stdout and nothing else; progress, warnings and errors go to stderr.
The exit code is that of the command without `--json`. A document has these fields before its own:

| field | type | what it is |
|---|---|---|
| `schema` | string | which document this is |
| `schema_version` | integer | grows when a field is removed or changes its meaning; new fields may come without |
| `program` | string | name and version of the program |

All fields are there always. What is not known is null, as is a number that JSON cannot hold (NaN, infinity). Numbers
are not rounded. Text is escaped to ASCII and is otherwise as it was found: it may hold what somebody wrote into a run
folder. Options that a command does not know are refused in words, on stderr, with exit code 2.
"""
_WIDTH = 120
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for cls, command in COMMANDS.items() for line in _section(cls, command))])


def type_name(hint: Any) -> str:
    """A type as the page names it: integer, list of string, RunState or null."""
    if hint in _NAMES:
        return _NAMES[hint]
    parts = get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint.__name__
    if getattr(hint, "__origin__", None) is list:
        return f"list of {type_name(parts[0])}"
    if getattr(hint, "__origin__", None) is dict:
        return f"object, each value {type_name(parts[1])}"
    return " or ".join(map(type_name, parts))


def parts_of(cls: type[Part]) -> list[type[Part]]:
    """The kinds of parts in a document, each once, in the order in which they first occur."""
    found: dict[type[Part], None] = {}
    for hint in get_type_hints(cls).values():
        for one in _classes(hint):
            found |= dict.fromkeys([one, *parts_of(one)])
    return list(found)


def _classes(hint: Any) -> Iterator[type[Part]]:
    if isinstance(hint, type) and not get_args(hint) and issubclass(hint, Part):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)


def _section(cls: type[Document], command: str) -> Iterator[str]:
    yield from (f"## {cls.SCHEMA}, version {cls.VERSION}", "", _said(command, cls), "", *_fields(cls), "")
    for part in parts_of(cls):
        yield from (_said(part.__name__, part), "", *_fields(part), "")


def _said(name: str, cls: type[Part]) -> str:
    return textwrap.fill(f"`{name}`: {cls.__doc__}", _WIDTH, break_long_words=False, break_on_hyphens=False)


def _fields(cls: type[Part]) -> Iterator[str]:
    hints = get_type_hints(cls)
    yield from ("| field | type | what it is |", "|---|---|---|")
    for field in dataclasses.fields(cls):
        yield f"| `{field.name}` | {type_name(hints[field.name])} | {field.metadata['doc']} |"


if __name__ == "__main__":
    sys.stdout.write(page())
