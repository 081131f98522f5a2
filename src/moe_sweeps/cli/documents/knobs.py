"""`moe-sweeps knobs --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, told
from moe_sweeps.cli.knobs import Knob


@dataclass(frozen=True, slots=True)
class KnobData(Part):
    """One key of the config."""

    key: str = told("dotted")
    options: list[str] = told("the kinds of its group that have it so; empty: all")
    default: str = told("as it is typed")
    values: str = told("type and bounds, or the choices")
    meaning: str = told("what it does")


@dataclass(frozen=True, slots=True)
class KnobsDocument(Document):
    """Keys of the config. Exit code 1 when none has the word."""

    SCHEMA: ClassVar[str] = "moe-sweeps/knobs"

    knobs: list[KnobData] = told("in the order of the config; one that kinds declare differently stands once for each")


def knobs_document(found: Sequence[Knob]) -> KnobsDocument:
    """The document of these knobs."""
    return KnobsDocument([KnobData(k.key, list(k.options), k.default, k.values, k.meaning) for k in found])
