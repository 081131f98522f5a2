"""Encoded documents in source order, appended to files whose committed length survives any interruption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from moe_sweeps.errors import DataError
from moe_sweeps.files import read_json, write_json

TOKENS_FILE, DOCUMENTS_FILE, PROGRESS_FILE = "encoded.bin", "documents.bin", "progress.json"
# One record a document: its tokens with end-of-text, the bytes of its text, its domain's number.
RECORD = np.dtype([("tokens", "<u4"), ("bytes", "<u4"), ("domain", "<u2")])
MOST_DOMAINS = 256
EMPTY_PLACES = 20

Records = npt.NDArray[np.void]


@dataclass(slots=True)
class Progress:
    """How far encoding came: the next row is row `row` of unit `unit`. Everything before it is on disk."""

    stamps: list[str]  # of the source's units: a source that changed cannot be continued
    unit: int = 0
    row: int = 0
    documents: int = 0
    tokens: int = 0
    complete: bool = False
    domains: list[str] = field(default_factory=list)
    empty: int = 0  # documents without text that were left out
    empty_places: list[str] = field(default_factory=list)  # the first of them


class TokenLog:
    """The growing files of one preparation. One writer; the caller holds the lock of the folder."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], stamps: Sequence[str]) -> None:
        """Open or continue. Raises `DataError` when what is there was read from a source that has changed since."""
        self.folder, self.dtype = folder, dtype
        self.progress = read_progress(folder) or Progress(list(stamps))
        if self.progress.stamps != list(stamps):
            changed = f"{folder} was begun from text that has changed since: other files, sizes or revision"
            raise DataError(f"{changed}. Delete it to begin again, or bring the text back.")
        self._tokens = self._open(TOKENS_FILE, self.progress.tokens * dtype.itemsize)
        self._documents = self._open(DOCUMENTS_FILE, self.progress.documents * RECORD.itemsize)

    def _open(self, name: str, committed: int) -> IO[bytes]:
        path = self.folder / name
        file = path.open("r+b" if path.exists() else "w+b")
        if file.seek(0, os.SEEK_END) < committed:
            raise DataError(f"{path} is shorter than {PROGRESS_FILE} says. Delete {self.folder}; it is begun again.")
        file.truncate(committed)  # what was written after the last commit is written again
        file.seek(committed)
        return file

    def domain_id(self, name: str) -> int:
        """The number of a domain, a new one for a name that was not seen before."""
        domains = self.progress.domains
        if name not in domains:
            if len(domains) == MOST_DOMAINS:
                rule = f"the column has more than {MOST_DOMAINS} different values, the last {name!r}"
                raise DataError(f"data.domain_column is refused: {rule}. Use a coarser column.")
            domains.append(name)
        return domains.index(name)

    def append(self, tokens: npt.NDArray[Any], records: Records) -> None:
        """Add documents; they count once `commit` has returned."""
        self._tokens.write(tokens.astype(self.dtype, copy=False).data.cast("B"))
        self._documents.write(records.tobytes())
        self.progress.documents += len(records)
        self.progress.tokens += len(tokens)

    def commit(self) -> None:
        """Everything so far is on disk when this returns."""
        for file in (self._tokens, self._documents):
            file.flush()
            os.fsync(file.fileno())
        write_json(self.folder / PROGRESS_FILE, asdict(self.progress), durable=True)

    def close(self) -> None:
        self._tokens.close()
        self._documents.close()

    def records(self) -> Records:
        """(documents,) of `RECORD`, in source order."""
        self._documents.flush()
        return np.fromfile(self.folder / DOCUMENTS_FILE, dtype=RECORD, count=self.progress.documents)

    def delete(self) -> None:
        """Remove the files, when their content lies elsewhere."""
        self.close()
        for name in (TOKENS_FILE, DOCUMENTS_FILE, PROGRESS_FILE):
            (self.folder / name).unlink(missing_ok=True)


def read_progress(folder: Path) -> Progress | None:
    """How far the preparation in `folder` came, or None before its first commit."""
    try:
        return Progress(**read_json(folder / PROGRESS_FILE))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        problem = f"{folder / PROGRESS_FILE} is damaged ({type(error).__name__}: {error})"
        raise DataError(f"{problem}. Delete {folder}; it is begun again.") from error
