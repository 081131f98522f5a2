"""The base of all documents: declared fields, the envelope around them, and how they become JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from moe_sweeps import __version__


def told(doc: str) -> Any:
    """A field of a document, with what docs/json.md says of it."""
    return dataclasses.field(metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document. Its fields are all there always; what is not known is null."""


@dataclass(frozen=True, slots=True)
class Trouble(Part):
    """Something that could not be read. The rest of the document does without it."""

    path: str = told("the file or folder")
    reason: str = told("what is wrong with it")


@dataclass(frozen=True, slots=True)
class Document(Part):
    """One document. `SCHEMA` is its name; `VERSION` grows when a field is removed or changes its meaning."""

    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int] = 1


def troubles(problems: Sequence[tuple[Path, str]]) -> list[Trouble]:
    """Problems as every reader of run folders reports them."""
    return [Trouble(str(path), reason) for path, reason in problems]


def print_document(console: Console, document: Document) -> None:
    """Write one document to stdout, in characters that every terminal and file can hold."""
    console.file.write(as_json(document) + "\n")


def as_json(document: Document) -> str:
    """The document as JSON: ASCII alone, keys in the order of the declarations, numbers unrounded."""
    head = {"schema": document.SCHEMA, "schema_version": document.VERSION, "program": f"moe_sweeps {__version__}"}
    return json.dumps(head | plain_data(document), indent=2, allow_nan=False)


def plain_data(value: Any) -> Any:
    """Mappings, lists, texts, numbers and null alone. A number that JSON cannot hold becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain_data(value.value)
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [plain_data(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # numpy's, too
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
