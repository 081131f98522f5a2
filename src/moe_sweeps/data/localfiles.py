"""Local text, jsonl and parquet files, read row by row; what cannot be read is reported with file and line."""

from __future__ import annotations

import glob
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from moe_sweeps.data.config import TextConfig, TextUnit
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.sources import Unit
from moe_sweeps.data.streamed import missing_column, strings
from moe_sweeps.errors import DataError
from moe_sweeps.paths import resolve

JSON_LINES, PARQUET, PLAIN = (".jsonl", ".ndjson"), (".parquet",), (".txt", ".text", ".md")
MAX_DOCUMENT_BYTES = 2**28  # a document is held in memory, and encoded by one thread
DOMAIN = "text"


class LocalFiles:
    """The files of `data.files`, in the order of their paths."""

    def __init__(self, config: TextConfig) -> None:
        assert config.files
        self.config = config
        self.paths = find_files(config.files)
        stats = [(path, path.stat()) for path in self.paths]
        self.units = [Unit(str(path), f"{s.st_size}-{s.st_mtime_ns}", s.st_size) for path, s in stats]

    def rows(self, unit: int, skip: int) -> Iterator[Document]:
        path = self.paths[unit]
        try:
            yield from islice(self._reader(path)(path), skip, None)
        except (OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error

    def _reader(self, path: Path) -> Callable[[Path], Iterator[Document]]:
        kind = _kind(path)
        if kind in JSON_LINES:
            return self._json_lines
        if kind in PARQUET:
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
        yield Document(DOMAIN, f"{path}:1", text)

    def _lines(self, path: Path) -> Iterator[Document]:
        with _open(path) as file:
            lines = ((n, _decoded(line, f"{path}:{n}")) for n, line in enumerate(file, start=1))
            if self.config.document is TextUnit.line:
                yield from (Document(DOMAIN, f"{path}:{n}", line.rstrip("\r\n")) for n, line in lines)
            else:
                yield from (Document(DOMAIN, f"{path}:{n}", text) for n, text in _paragraphs(lines))

    def _json_lines(self, path: Path) -> Iterator[Document]:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}:{number}"
                yield self._record(_parsed(_decoded(line, place), place), place)

    def _record(self, record: Any, place: str) -> Document:
        if record is None:  # an empty line
            return Document(DOMAIN, place, "")
        if not isinstance(record, dict):
            raise DataError(f"{place} holds a {type(record).__name__}, and every line must be an object.")
        text = self._field(record, self.config.column, place) or ""
        domain = self._field(record, self.config.domain_column, place) if self.config.domain_column else DOMAIN
        return Document(domain or "", place, text)

    def _field(self, record: dict[str, Any], column: str, place: str) -> str | None:
        if column not in record:
            raise missing_column(column, place, list(record), is_domain=column == self.config.domain_column)
        value = record[column]
        if not isinstance(value, str | None):
            raise DataError(f"{place} holds {type(value).__name__} in {column!r} where text is expected.")
        return value

    def _parquet(self, path: Path) -> Iterator[Document]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            file = ParquetFile(path)
        except pa.ArrowException as error:
            raise DataError(f"{path} is not a parquet file ({error}).") from error
        wanted, row = [c for c in (self.config.column, self.config.domain_column) if c], 0
        for column in wanted:
            if column not in file.schema_arrow.names:
                is_domain = column == self.config.domain_column
                raise missing_column(column, str(path), file.schema_arrow.names, is_domain=is_domain)
        for batch in file.iter_batches(256, columns=wanted):
            texts = strings(batch[self.config.column], str(path), row)
            domain_column = self.config.domain_column
            domains = strings(batch[domain_column], str(path), row) if domain_column else [DOMAIN] * len(texts)
            for text, domain in zip(texts, domains, strict=True):
                row += 1
                yield Document(domain, f"{path}:row {row}", text)


def find_files(pattern: str) -> list[Path]:
    """The files that `data.files` names, sorted, each once.

    Raises `DataError` for a part that matches nothing, or a file of a format that is not read.
    """
    found: set[Path] = set()
    for part in filter(None, pattern.split(os.pathsep)):
        path = resolve(part)
        matches = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else _matches(path)
        known = [p for p in matches if _kind(p) in (*JSON_LINES, *PARQUET, *PLAIN)]
        if not known:
            formats = ", ".join((*PLAIN, *JSON_LINES, *PARQUET))
            problem = f"{path} matches no file" if not matches else f"{matches[0]} has an ending that is not read"
            raise DataError(
                f"data.files={pattern} is refused: {problem}. Formats: {formats}, and .gz of text and jsonl."
            )
        found.update(known)
    return sorted(found)


def _matches(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]  # noqa: PTH207 (absolute)


def _kind(path: Path) -> str:
    """The ending that says the format, without that of compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _decoded(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        fix = "Convert the file with iconv, or remove the line."
        raise DataError(f"{place} is not UTF-8 (byte {error.start + 1} of the line: {error.reason}). {fix}") from error


def _parsed(line: str, place: str) -> Any:
    if not line.strip():
        return None
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON ({error}). A .jsonl file has one object a line.") from error


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """(number of the first line, text) of every run of lines that are not empty."""
    start, parts = 0, list[str]()
    for number, line in lines:
        if line.strip():
            start = start if parts else number
            parts.append(line)
        elif parts:
            yield start, "".join(parts).rstrip("\r\n")
            parts = []
    if parts:
        yield start, "".join(parts).rstrip("\r\n")
