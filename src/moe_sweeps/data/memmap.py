"""Prepared tokens on disk: one memory map a split, and a meta file that says what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moe_sweeps.errors import DataError

META_FILE = "meta.json"
TOKENIZER_FILE = "tokenizer.json"

SplitName = Literal["train", "val"]
Tokens = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class TokenData:
    """Tokens of one prepared folder. `train` (N,) and `val` (M,) are read-only memory maps of ids."""

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
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER_FILE

    def tokens(self, split: SplitName) -> Tokens:
        return self.train if split == "train" else self.val

    def domain_spans(self, split: SplitName) -> list[tuple[str, int, int]]:
        """(domain, start, end) in tokens, end exclusive; the spans are in order and cover the split."""
        spans = self.meta["splits"][split]["domains"]
        return [(span["name"], span["start"], span["end"]) for span in spans]


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META_FILE
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = meta["vocab_size"], meta["fingerprint"], meta["domains"], meta["dtype"]
    except FileNotFoundError:
        raise DataError(f"{folder} holds no prepared data: {META_FILE} is missing. {_fix(folder)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}). {_fix(folder)}") from error
    return meta


def _map(folder: Path, meta: dict[str, Any], split: SplitName) -> Tokens:
    try:
        entry = meta["splits"][split]
        path, count, dtype = folder / entry["file"], int(entry["tokens"]), np.dtype(meta["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"splits.{split} in {folder / META_FILE} is damaged ({error!r}). {_fix(folder)}") from error
    expected, actual = count * dtype.itemsize, path.stat().st_size if path.is_file() else None
    if actual is None or actual != expected or not count:
        found = "is missing" if actual is None else f"has {actual:,} bytes"
        rule = f"splits.{split} in {META_FILE} says {count:,} tokens of {dtype.itemsize} bytes, {expected:,} bytes"
        raise DataError(f"{path} {found}: {rule}. {_fix(folder)}")
    return np.memmap(path, dtype=dtype, mode="r")


def _fix(folder: Path) -> str:
    return f"Delete {folder}; it is prepared again on the next run."
