"""What a command prints with --json in place of its document when it cannot do what it was asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from moe_sweeps.cli.documents.document import Document, print_document, told
from moe_sweeps.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ErrorDocument(Document):
    """A refusal. The same words go to stderr, and the exit code is that of the command without --json."""

    SCHEMA: ClassVar[str] = "moe-sweeps/error"

    kind: str = told("the class of the error; ConfigError: a setting was refused")
    message: str = told("the whole sentence")
    field: str | None = told("the key or option that was refused")
    value: str | None = told("its value, as text; *** where it is a secret")
    rule: str | None = told("what it breaks")
    fix: str | None = told("what to type instead")
    notes: list[str] = told("more lines of the message")
    exit_code: int = told("of the command")


def print_refusal(arguments: argparse.Namespace, console: Console, error: Exception, code: int, said: str = "") -> int:
    """Print the document where --json was given, beside the words on stderr; returns the exit code."""
    if getattr(arguments, "json", False):
        print_document(console, error_document(error, code, said))
    return code


def error_document(error: Exception, exit_code: int, message: str = "") -> ErrorDocument:
    """The document of an error that a person would see as a message."""
    notes = [str(note) for note in getattr(error, "__notes__", [])]
    parts = (None, None, None, None)
    if isinstance(error, ConfigError):
        parts = (error.field, str(error.value), error.rule, error.fix)  # type: ignore[assignment]
    return ErrorDocument(type(error).__name__, message or str(error), *parts, notes, exit_code)
