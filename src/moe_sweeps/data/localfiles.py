"""Local text, jsonl and parquet files, read row by row; what cannot be read is reported with file and line."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from moe_sweeps.data.columns import require_column, strings, wrong_type
from moe_sweeps.data.config import TextConfig, TextFormat, TextUnit
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.finding import COMPRESSED, find_files, format_of
from moe_sweeps.data.sources import Unit
from moe_sweeps.data.unicode import without_half_pairs
from moe_sweeps.errors import DataError

MAX_DOCUMENT_BYTES = 2**28  # a document is held in memory, and encoded by one thread
DOMAIN = "text"
BYTE_ORDER_MARK = "\ufeff"


class LocalFiles:
    """The files of `data.files`, in the order of their paths."""

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        found = find_files(config)
        self.paths, self.account = found.files, found.account
        stats = [(path, path.stat()) for path in self.paths]
        self.units = [Unit(str(path), f"{s.st_size}-{s.st_mtime_ns}", s.st_size) for path, s in stats]

    def rows(self, unit: int, skip: int) -> Iterator[Document]:
        """The documents of file `unit` after the first `skip`, as `Source.rows` says."""
        path = self.paths[unit]
        try:
            yield from islice(self._reader(path)(path), skip, None)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error

    def _reader(self, path: Path) -> Callable[[Path], Iterator[Document]]:
        kind = format_of(path)
        if kind is TextFormat.jsonl:
            return self._json_lines
        if kind is TextFormat.parquet:
            return self._parquet
        if self.config.domain_column:
            rule = f"{path} is plain text, which has no columns"
            raise DataError(f"data.domain_column={self.config.domain_column} is refused: {rule}. Use jsonl or parquet.")
        return self._file if self.config.document is TextUnit.file else self._lines

    def _file(self, path: Path) -> Iterator[Document]:
        with _open(path) as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            rule = f"{path} would be one document of more than {MAX_DOCUMENT_BYTES // 2**20} MiB"
            raise DataError(f"data.document=file is refused: {rule}. Use data.document=line or paragraph.")
        text = "".join(_decoded(line, f"{path}:{n}") for n, line in enumerate(content.splitlines(True), start=1))
        yield Document(DOMAIN, f"{path}:1", text.removeprefix(BYTE_ORDER_MARK))

    def _lines(self, path: Path) -> Iterator[Document]:
        with _open(path) as file:
            lines = _numbered_lines(file, path)
            if self.config.document is TextUnit.line:
                yield from (Document(DOMAIN, f"{path}:{n}", line.rstrip("\r\n")) for n, line in lines)
            else:
                yield from (Document(DOMAIN, f"{path}:{n}", text) for n, text in _paragraphs(lines, path))

    def _json_lines(self, path: Path) -> Iterator[Document]:
        with _open(path) as file:
            for number, line in _numbered_lines(file, path):
                place = f"{path}:{number}"
                yield self._record(_parsed(line.removeprefix(BYTE_ORDER_MARK), place), place)

    def _record(self, record: Any, place: str) -> Document:
        if record is None:  # an empty line
            return Document(DOMAIN, place, "")
        if not isinstance(record, dict):
            raise DataError(f"{place} holds a {type(record).__name__}, and every line must be an object.")
        text = _field(record, self.config.column, place)
        domain_column = self.config.domain_column
        domain = _field(record, domain_column, place, is_domain=True) if domain_column else DOMAIN
        return Document(domain, place, text.removeprefix(BYTE_ORDER_MARK))

    def _parquet(self, path: Path) -> Iterator[Document]:
        import pyarrow as pa

        column, domain_column, row = self.config.column, self.config.domain_column, 0
        file, wanted = self._parquet_file(path), list(dict.fromkeys(filter(None, (column, domain_column))))
        try:
            for batch in file.iter_batches(256, columns=wanted):
                texts = strings(batch[column], str(path), row, column)
                domains = [DOMAIN] * len(texts)
                if domain_column:
                    domains = strings(batch[domain_column], str(path), row, domain_column, is_domain=True)
                for text, domain in zip(texts, domains, strict=True):
                    row += 1
                    yield Document(domain, f"{path}:row {row}", text.removeprefix(BYTE_ORDER_MARK))
        except pa.ArrowException as error:
            raise DataError(f"{path} cannot be read after row {row} ({error}).") from error

    def _parquet_file(self, path: Path) -> Any:
        """The open file. Raises `DataError` when it is no parquet file, or lacks a column that is read."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            file = ParquetFile(path)
        except pa.ArrowException as error:
            raise DataError(f"{path} is not a parquet file ({error}).") from error
        names = file.schema_arrow.names
        require_column(self.config.column, str(path), names)
        if self.config.domain_column:
            require_column(self.config.domain_column, str(path), names, is_domain=True)
        return file


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == COMPRESSED else path.open("rb")  # type: ignore[return-value]


def _field(record: dict[str, Any], column: str, place: str, *, is_domain: bool = False) -> str:
    """A text column of a record; null becomes the empty text, half a surrogate pair (which JSON can spell) U+FFFD."""
    require_column(column, place, list(record), is_domain=is_domain)
    value = record[column]
    if not isinstance(value, str | None):
        raise wrong_type(column, place, value, is_domain=is_domain)
    return without_half_pairs(value or "")


def _numbered_lines(file: IO[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line, with its line end. A byte order mark at the start of the file is dropped."""
    number = 0
    while line := file.readline(MAX_DOCUMENT_BYTES + 1):
        number += 1
        if len(line) > MAX_DOCUMENT_BYTES:
            raise DataError(f"{path}:{number} is longer than {MAX_DOCUMENT_BYTES // 2**20} MiB. Split the line.")
        text = _decoded(line, f"{path}:{number}")
        yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def _decoded(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        fix = "Convert the file with iconv, or remove the line."
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            fix = "It begins as UTF-16 does: convert it with iconv -f UTF-16 -t UTF-8."
        raise DataError(f"{place} is not UTF-8 (byte {error.start + 1} of the line: {error.reason}). {fix}") from error


def _parsed(line: str, place: str) -> Any:
    if not line.strip():
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error}). A .jsonl file has one object a line.") from error


def _paragraphs(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[tuple[int, str]]:
    """(number of the first line, text) of every run of lines that are not empty."""
    start, parts, size = 0, list[str](), 0
    for number, line in lines:
        if line.strip():
            start = start if parts else number
            parts.append(line)
            size += len(line)
            if size > MAX_DOCUMENT_BYTES:
                rule = f"the paragraph at {path}:{start} has more than {MAX_DOCUMENT_BYTES // 2**20} MiB"
                raise DataError(f"data.document=paragraph is refused: {rule}. Use data.document=line.")
        elif parts:
            yield start, "".join(parts).rstrip("\r\n")
            parts, size = [], 0
    if parts:
        yield start, "".join(parts).rstrip("\r\n")
