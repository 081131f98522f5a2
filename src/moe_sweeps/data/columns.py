"""Columns of records: the one that holds the text, and the one that names its domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moe_sweeps.errors import DataError


def strings(column: Any, name: str, row: int, key: str, *, is_domain: bool = False) -> list[str]:
    """The Arrow column `key` as strings, null as the empty string. `row`: how many rows of the file come before it.

    Raises:
        DataError: a row is not text, or not UTF-8; with its place.
    """
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(value, f"{name}:row {row + i}") for i, value in enumerate(column, start=1)]
    for i, value in enumerate(values, start=1):
        if not isinstance(value, str | None):
            raise wrong_type(key, f"{name}:row {row + i}", value, is_domain=is_domain)
    return [value or "" for value in values]


def require_column(key: str, place: str, columns: Sequence[str], *, is_domain: bool = False) -> None:
    """Refuse text that has no such column, or more than one of that name."""
    if columns.count(key) != 1:
        found = "no such column" if key not in columns else f"{columns.count(key)} columns of that name"
        problem = f"{place} has {found}. It has {', '.join(columns) or 'none'}."
        raise DataError(f"{_field(is_domain)}={key} is refused: {problem}")


def wrong_type(key: str, place: str, value: object, *, is_domain: bool = False) -> DataError:
    """The error for a value that is not text."""
    rule = f"{place} holds {type(value).__name__} in {key!r} where text is expected"
    fix = "Write it as text, or name another column."
    return DataError(f"{_field(is_domain)}={key} is refused: {rule}. {fix}")


def _field(is_domain: bool) -> str:
    return "data.domain_column" if is_domain else "data.column"


def _decoded(value: Any, place: str) -> str | None:
    try:
        text: str | None = value.as_py()
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 ({error}). Repair or remove the row.") from error
    return text
