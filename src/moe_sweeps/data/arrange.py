"""From encoded documents in source order to the shards of both splits.

The split is that of `datasets`' train_test_split(test_size, seed, shuffle=True): documents are shuffled once, the first
ceil(test_size * n) are the validation side, the rest in shuffled order the training side. The text is never in memory.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_sweeps.data.memmap import SplitName
from moe_sweeps.data.tokenlog import TOKENS_FILE, Records
from moe_sweeps.errors import DataError
from moe_sweeps.host.files import write_atomic, write_json
from moe_sweeps.host.reading import is_name, read_json

SHARD_TOKENS = 2**27  # 256 MiB of uint16: what memory holds at a time
DIGESTS_FILE = "digests.json"

Order = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Documents of one split in the order in which they are written: domain after domain, shuffled within."""

    split: SplitName
    order: Order
    records: Records  # in that order

    @property
    def tokens(self) -> int:
        """Number of tokens of the split."""
        return int(self.records["tokens"].sum(dtype=np.int64))

    def shards(self) -> list[str]:
        """Names of its shard files."""
        return [f"{self.split}-{i:05d}.bin" for i in range(math.ceil(self.tokens / SHARD_TOKENS))]

    def meta(self, domains: list[str]) -> dict[str, Any]:
        """What meta.json says about the split."""
        sizes = [min(SHARD_TOKENS, self.tokens - i * SHARD_TOKENS) for i in range(len(self.shards()))]
        files = [{"file": file, "tokens": size} for file, size in zip(self.shards(), sizes, strict=True)]
        return {
            "files": files,
            "tokens": self.tokens,
            "documents": len(self.order),
            "domains": list(self._domains(domains)),
        }

    def _domains(self, names: list[str]) -> Iterator[dict[str, Any]]:
        end = 0
        for number, name in enumerate(names):
            own = self.records[self.records["domain"] == number]
            start, end = end, end + int(own["tokens"].sum(dtype=np.int64))
            if len(own):
                size = int(own["bytes"].sum(dtype=np.int64))
                yield {"name": name, "start": start, "end": end, "documents": len(own), "bytes": size}


def arrange(records: Records, val_fraction: float, seed: int) -> list[Arrangement]:
    """Both splits. Raises `DataError` when there are too few documents for two."""
    n_val = math.ceil(val_fraction * len(records))
    if len(records) - n_val < 1 or n_val < 1:
        raise DataError(f"a split needs two documents, and the text has {len(records)}. Add text; see data.document.")
    shuffled = np.random.default_rng(seed).permutation(len(records))
    sides: tuple[tuple[SplitName, Order], ...] = (("train", shuffled[n_val:]), ("val", shuffled[:n_val]))
    return [_arranged(split, side, records) for split, side in sides]


def _arranged(split: SplitName, side: Order, records: Records) -> Arrangement:
    order = side[np.argsort(records["domain"][side], kind="stable")]
    return Arrangement(split, order, records[order])


def write_shards(
    folder: Path, arrangements: list[Arrangement], records: Records, dtype: np.dtype[Any], report: Callable[[int], None]
) -> dict[str, str]:
    """Write every shard that is not there yet, and return their sha256 by file name.

    `records` are those of the log in `folder`, in its order. `report` gets the number of tokens of each shard.
    """
    digests: dict[str, str] = _digests(folder)
    starts = starts_of(records["tokens"])
    with (folder / TOKENS_FILE).open("rb") as encoded:
        for arrangement in arrangements:
            ends = np.cumsum(arrangement.records["tokens"], dtype=np.int64)
            for i, file in enumerate(arrangement.shards()):
                low, high = i * SHARD_TOKENS, min((i + 1) * SHARD_TOKENS, int(ends[-1]))
                if file not in digests:
                    shard = _gather(encoded.fileno(), arrangement, starts, ends, (low, high), dtype)
                    write_atomic(folder / file, shard.data.cast("B"), durable=True)
                    digests[file] = hashlib.sha256(shard.data).hexdigest()
                    write_json(folder / DIGESTS_FILE, digests, durable=True)
                report(high - low)
    return digests


def _digests(folder: Path) -> dict[str, str]:
    """The shards that are complete, with their sha256; none where the file is missing or damaged."""
    try:
        found = read_json(folder / DIGESTS_FILE, links=True)
    except (OSError, ValueError):
        return {}
    digests = found if isinstance(found, dict) else {}
    return {file: digest for file, digest in digests.items() if is_name(file) and (folder / file).is_file()}


def _gather(
    encoded: int,
    arrangement: Arrangement,
    starts: Order,
    ends: Order,
    span: tuple[int, int],
    dtype: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Tokens `span` of a split. Documents are read in the order in which they lie on disk."""
    low, high = span
    shard = np.empty(high - low, dtype=dtype)
    target = shard.data.cast("B")
    first, last = np.searchsorted(ends, [low, high - 1], side="right")
    positions = np.arange(first, last + 1)
    sources = starts[arrangement.order[positions]]
    for at in np.argsort(sources):
        end = int(ends[positions[at]])
        begin = end - int(arrangement.records["tokens"][positions[at]])
        cut = max(low - begin, 0)  # the document began in the shard before
        a, b = (max(begin, low) - low) * dtype.itemsize, (min(end, high) - low) * dtype.itemsize
        _read_into(encoded, target[a:b], (int(sources[at]) + cut) * dtype.itemsize)
    return shard


def _read_into(file: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(file, [target], offset)
        if count == 0:
            raise DataError(
                f"{TOKENS_FILE} ended early. Delete the folder that ends in .partial; preparation then restarts."
            )
        target, offset = target[count:], offset + count


def starts_of(lengths: npt.NDArray[Any]) -> Order:
    """Offset of each document in the log, in tokens."""
    starts = np.zeros(len(lengths), dtype=np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=starts[1:])
    return starts
