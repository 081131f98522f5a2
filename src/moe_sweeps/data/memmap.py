"""Prepared tokens on disk: memory maps of both splits, and a meta file that says what they are."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_sweeps.data.meta import require_meta
from moe_sweeps.errors import DataError
from moe_sweeps.host.reading import read_json

META_FILE = "meta.json"
META_BYTES = 256 << 20
TOKENIZER_FILE = "tokenizer.json"

SplitName = Literal["train", "val"]
TokenArray = npt.NDArray[np.unsignedinteger[Any]]


class Shards:
    """Several memory maps read as one sequence of ids."""

    def __init__(self, parts: Sequence[TokenArray]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the ids."""
        return self._parts[0].dtype

    def __getitem__(self, span: slice) -> TokenArray:
        """A contiguous range of ids; a copy where it lies in more than one shard. The step must be 1."""
        start, stop, step = span.indices(len(self))
        assert step == 1, "shards are read in contiguous ranges"
        found: list[TokenArray] = []
        shard = bisect.bisect_right(self._ends, start)
        while start < stop:
            first = self._ends[shard] - len(self._parts[shard])
            end = min(stop, self._ends[shard])
            found.append(self._parts[shard][start - first : end - first])
            start, shard = end, shard + 1
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else self._parts[0][:0]


Tokens = TokenArray | Shards


@dataclass(frozen=True, slots=True)
class TokenData:
    """Tokens of one prepared folder. `train` (N,) and `val` (M,) are read-only ids, mapped from its files."""

    folder: Path
    meta: dict[str, Any]
    train: Tokens
    val: Tokens

    @classmethod
    def open(cls, folder: Path) -> TokenData:
        """Open a prepared folder. Raises `DataError` when it is missing, or not what its meta.json says."""
        meta = _read_meta(folder)
        return cls(folder, meta, train=_map(folder, meta, "train"), val=_map(folder, meta, "val"))

    @property
    def vocab_size(self) -> int:
        """Every id is below this number."""
        return int(self.meta["vocab_size"])

    @property
    def fingerprint(self) -> str:
        """sha256 over the tokens of both splits and the tokenizer: equal data, equal fingerprint."""
        return str(self.meta["fingerprint"])

    @property
    def domains(self) -> list[str]:
        """Names of the domains; their positions are the domain ids."""
        return list(self.meta["domains"])

    @property
    def end_of_text_id(self) -> int:
        """The id that closes every document."""
        return int(self.meta["end_of_text_id"])

    @property
    def tokenizer_path(self) -> Path:
        """The file that the tokenizer can be loaded from."""
        return self.folder / str(self.meta.get("tokenizer_file", TOKENIZER_FILE))

    def tokens(self, split: SplitName) -> Tokens:
        """The ids of one split."""
        return self.train if split == "train" else self.val

    def domain_spans(self, split: SplitName) -> list[tuple[str, int, int]]:
        """(domain, start, end) in tokens, end exclusive; the spans are in order and cover the split."""
        spans = self.meta["splits"][split]["domains"]
        return [(span["name"], span["start"], span["end"]) for span in spans]


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META_FILE
    try:
        return require_meta(read_json(path, META_BYTES, links=True))  # users keep data on other disks
    except FileNotFoundError:
        raise DataError(f"{folder} holds no prepared data: {META_FILE} is missing. {_fix(folder)}") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {_fix(folder)}") from error


def _map(folder: Path, meta: dict[str, Any], split: SplitName) -> Tokens:
    """The maps of a split, whose sizes are checked against meta.json."""
    entry, dtype = meta["splits"][split], np.dtype(meta["dtype"])
    files = entry.get("files", [entry])
    parts = [_map_file(folder / part["file"], part["tokens"], dtype, split) for part in files]
    return parts[0] if len(parts) == 1 else Shards(parts)


def _map_file(path: Path, count: int, dtype: np.dtype[Any], split: SplitName) -> TokenArray:
    expected, actual = count * dtype.itemsize, path.stat().st_size if path.is_file() else None
    if actual is None or actual != expected or not count:
        found = "is missing" if actual is None else f"has {actual:,} bytes"
        rule = f"splits.{split} in {META_FILE} says {count:,} tokens of {dtype.itemsize} bytes, {expected:,} bytes"
        raise DataError(f"{path} {found}: {rule}. {_fix(path.parent)}")
    return np.memmap(path, dtype=dtype, mode="r")


def _fix(folder: Path) -> str:
    return f"Delete {folder}; it is prepared again on the next run, or by moe-sweeps data prepare."
