"""Where text is read from: an ordered list of units (files), each a sequence of rows; reading can start at any row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moe_sweeps.data.corpus import Document


@dataclass(frozen=True, slots=True)
class Unit:
    """A file. `stamp` changes when its content does; `size` in bytes, where it is known."""

    name: str
    stamp: str
    size: int | None = None


class Source(Protocol):
    """Text in a fixed order: unit after unit, row after row."""

    @property
    def units(self) -> Sequence[Unit]:
        """The files or shards, in the order in which they are read."""
        ...

    @property
    def account(self) -> dict[str, Any] | None:
        """Which files are read and which are passed over (`Found.account`); None unless the text is local."""
        ...

    def rows(self, unit: int, skip: int) -> Iterator[Document]:
        """The documents of a unit in order, without its first `skip`. A document's name is its place: file and line.

        Raises `DataError`, with the place, for text that cannot be read.
        """
        ...
