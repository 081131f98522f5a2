"""What text is read from: an ordered list of units (files), each a sequence of rows that can be entered anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_sweeps.data.config import EncodedConfig, FineWebEduConfig, TextConfig
from moe_sweeps.data.corpus import Document
from moe_sweeps.errors import DataError


@dataclass(frozen=True, slots=True)
class Unit:
    """A file. `stamp` changes when its content does; `size` in bytes, where it is known."""

    name: str
    stamp: str
    size: int | None = None


class Source(Protocol):
    """Text in a fixed order: unit after unit, row after row."""

    @property
    def units(self) -> Sequence[Unit]: ...

    def rows(self, unit: int, skip: int) -> Iterator[Document]:
        """The documents of a unit in order, without its first `skip`. A document's name is its place: file and line.

        Raises `DataError`, with the place, for text that cannot be read.
        """
        ...


def open_source(config: EncodedConfig) -> Source:
    """The text of `config`. Raises `DataError` when it is not there or cannot be reached."""
    # The libraries take a second to import, and only preparation needs them.
    if isinstance(config, FineWebEduConfig):
        from moe_sweeps.data.streamed import fineweb_edu

        return fineweb_edu(config.source)
    if isinstance(config, TextConfig) and config.files:
        from moe_sweeps.data.localfiles import LocalFiles

        return LocalFiles(config)
    if isinstance(config, TextConfig) and config.hub:
        from moe_sweeps.data.streamed import hub_dataset

        return hub_dataset(config)
    raise DataError(f"data={config.kind} names no text. Set data.files or data.hub.")
