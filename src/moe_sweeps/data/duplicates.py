"""Documents that are in both training and validation, word for word: there validation measures memorisation."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_sweeps.data.arrange import Arrangement, Order, starts_of
from moe_sweeps.data.tokenlog import TOKENS_FILE, Records

END_ALONE = 1  # the tokens of an empty document


def count_duplicates(folder: Path, splits: list[Arrangement], records: Records, dtype: np.dtype[Any]) -> dict[str, int]:
    """How many documents of validation have the tokens of one of training, and how many there are.

    `records` are those of the log in `folder`, in its order. Only documents of equal size are read and compared.
    """
    train, val = (next(s for s in splits if s.split == name) for name in ("train", "val"))
    sizes = _sizes(records)
    shared = np.intersect1d(sizes[train.order], sizes[val.order])
    starts = starts_of(records["tokens"])
    with (folder / TOKENS_FILE).open("rb") as encoded:

        def digests(order: Order) -> list[bytes]:
            chosen = np.sort(order[np.isin(sizes[order], shared) & (records["tokens"][order] > END_ALONE)])
            return [_digest(encoded.fileno(), int(starts[i]), int(records["tokens"][i]), dtype) for i in chosen]

        known = set(digests(val.order))
        in_train = known.intersection(digests(train.order)) if known else set()
        found = sum(digest in in_train for digest in digests(val.order)) if in_train else 0
    return {"val_in_train": found, "val": len(val.order)}


def _sizes(records: Records) -> npt.NDArray[np.uint64]:
    """One number a document that equal documents have in common: tokens and bytes."""
    return records["tokens"].astype(np.uint64) << np.uint64(32) | records["bytes"].astype(np.uint64)


def _digest(encoded: int, start: int, tokens: int, dtype: np.dtype[Any]) -> bytes:
    return hashlib.blake2b(os.pread(encoded, tokens * dtype.itemsize, start * dtype.itemsize), digest_size=16).digest()
