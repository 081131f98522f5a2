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
from moe_sweeps.host.files import write_json
from moe_sweeps.host.reading import read_json

TOKENS_FILE, DOCUMENTS_FILE, PROGRESS_FILE = "encoded.bin", "documents.bin", "progress.json"
# One record a document: its tokens with end-of-text, the bytes of its text, its domain's number.
RECORD = np.dtype([("tokens", "<u4"), ("bytes", "<u4"), ("domain", "<u2")])
MOST_DOMAINS = 256
EMPTY_PLACES = 20

Records = npt.NDArray[np.void]


@dataclass(slots=True)
class Progress:
    """How far encoding came: the next row is row `row` of unit `unit`. Everything before it is on disk."""

    stamps: list[str]  # of the source's units: with another source nothing can be resumed
    unit: int = 0
    row: int = 0
    documents: int = 0
    tokens: int = 0
    complete: bool = False
    domains: list[str] = field(default_factory=list)
    empty: int = 0  # documents without text that were left out
    empty_places: list[str] = field(default_factory=list)  # the first of them


class TokenLog:
    """The growing files of one preparation. There is one writer: the caller holds the lock of the folder."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], stamps: Sequence[str]) -> None:
        """Open new files or resume old ones. Raises `DataError` when the source has changed since they were written."""
        self.folder, self.dtype = folder, dtype
        self.progress = read_progress(folder) or Progress(list(stamps))
        if self.progress.stamps != list(stamps):
            changed = f"{folder} was started from text that has changed since: other files, sizes or revision"
            raise DataError(f"{changed}. Delete it to restart, or bring the text back.")
        for name in (TOKENS_FILE, DOCUMENTS_FILE):  # both before one is open
            self._require_file(folder / name)
        self._tokens = self._open(TOKENS_FILE, self.progress.tokens * dtype.itemsize)
        self._documents = self._open(DOCUMENTS_FILE, self.progress.documents * RECORD.itemsize)

    def _require_file(self, path: Path) -> None:
        """Refuse what would be written through or waited for: a link, a FIFO, a device."""
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise DataError(f"{path} is no regular file. Delete {self.folder}; preparation then restarts.")

    def _open(self, name: str, committed: int) -> IO[bytes]:
        path = self.folder / name
        file = path.open("r+b" if path.exists() else "w+b")
        if file.seek(0, os.SEEK_END) < committed:
            raise DataError(
                f"{path} is shorter than {PROGRESS_FILE} says. Delete {self.folder}; preparation then restarts."
            )
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
        """Close the files; what was not committed is lost."""
        self._tokens.close()
        self._documents.close()

    def records(self) -> Records:
        """(documents,) of `RECORD`, in source order."""
        self._documents.flush()
        return np.fromfile(self.folder / DOCUMENTS_FILE, dtype=RECORD, count=self.progress.documents)

    def delete(self) -> None:
        """Remove the files, once the shards hold their content."""
        self.close()
        for name in (TOKENS_FILE, DOCUMENTS_FILE, PROGRESS_FILE):
            (self.folder / name).unlink(missing_ok=True)


def read_progress(folder: Path) -> Progress | None:
    """How far the preparation in `folder` came, or None before its first commit."""
    try:
        found = Progress(**read_json(folder / PROGRESS_FILE, links=True))
        _require_types(found)
        return found
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        problem = f"{folder / PROGRESS_FILE} is damaged ({type(error).__name__}: {error})"
        raise DataError(f"{problem}. Delete {folder}; preparation then restarts.") from error


def _require_types(progress: Progress) -> None:
    """Raise ValueError for a value that no preparation writes: offsets in files follow from them."""
    counts = (progress.unit, progress.row, progress.documents, progress.tokens, progress.empty)
    lists = (progress.stamps, progress.domains, progress.empty_places)
    is_sound = all(type(count) is int and count >= 0 for count in counts) and type(progress.complete) is bool
    if not is_sound or not all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in lists):
        raise ValueError("it holds values of other types")
