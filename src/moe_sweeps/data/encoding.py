"""Text to tokens with several threads. Documents keep their order, so every byte is the same as with one thread.

The tokenizers release Python's lock while they work, so threads use all cores without copying text to other processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from moe_sweeps.data.corpus import Document
from moe_sweeps.data.encoders import Encoder, Ids
from moe_sweeps.data.sources import Source
from moe_sweeps.data.tokenlog import EMPTY_PLACES, RECORD, TokenLog
from moe_sweeps.errors import DataError

# A batch is what one thread encodes at a time; it bounds memory together with the number of batches under way.
BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 2**20
COMMIT_SECONDS = 10.0
NO_DOMAIN = "(none)"


@dataclass(slots=True)
class Batch:
    """Consecutive rows of a unit. After it, the next row is row `row` of unit `unit`."""

    unit: int
    row: int
    documents: list[Document] = field(default_factory=list)
    characters: int = 0
    empty: list[str] = field(default_factory=list)  # places of rows without text


def encode(
    source: Source,
    encoder: Encoder,
    log: TokenLog,
    *,
    workers: int,
    max_tokens: int | None,
    keep_empty: bool,
    report: Callable[[], None],
) -> None:
    """Append to `log` the rest of `source`, or up to the last document that begins before token `max_tokens`.

    `report` is called after every batch. Memory holds 2 * `workers` + 2 batches.
    """
    progress, committed = log.progress, time.monotonic()
    batches = _batches(source, progress.unit, progress.row, keep_empty)
    with ThreadPoolExecutor(workers) as pool:
        for batch, found in _in_order(pool, batches, lambda b: [_ids(encoder, d) for d in b.documents], workers):
            _append(log, batch, found, max_tokens)
            report()
            if progress.complete:
                break
            if time.monotonic() - committed > COMMIT_SECONDS:
                log.commit()
                committed = time.monotonic()
    progress.complete = True
    log.commit()


def _ids(encoder: Encoder, document: Document) -> Ids:
    try:
        ids = encoder.ids(document.text)
    except Exception as error:  # the libraries document no exceptions
        problem = f"{document.name} cannot be encoded by the tokenizer ({type(error).__name__}: {error})"
        raise DataError(f"{problem}. Repair or remove the document.") from error
    return np.append(ids, np.uint32(encoder.end_of_text_id))


def _append(log: TokenLog, batch: Batch, found: list[Ids], max_tokens: int | None) -> None:
    progress = log.progress
    if max_tokens is not None:
        ends = progress.tokens + np.cumsum([len(ids) for ids in found], dtype=np.int64)
        if len(ends) and ends[-1] >= max_tokens:
            found = found[: int(np.searchsorted(ends, max_tokens)) + 1]
            progress.complete = True
    records = np.zeros(len(found), dtype=RECORD)
    for record, document, ids in zip(records, batch.documents, found, strict=False):
        size = len(document.text.encode("utf-8", "surrogatepass"))
        record["tokens"], record["bytes"], record["domain"] = (
            len(ids),
            size,
            log.domain_id(document.domain or NO_DOMAIN),
        )
    if found:
        log.append(np.concatenate(found), records)
    progress.unit, progress.row = batch.unit, batch.row
    progress.empty += len(batch.empty)
    progress.empty_places = [*progress.empty_places, *batch.empty][:EMPTY_PLACES]


def _batches(source: Source, unit: int, row: int, keep_empty: bool) -> Iterator[Batch]:
    """All rows, starting with `row` of `unit`."""
    for number in range(unit, len(source.units)):
        batch = Batch(number, row)
        for document in source.rows(number, batch.row):
            batch.row += 1
            if keep_empty or document.text.strip():
                batch.documents.append(document)
                batch.characters += len(document.text)
            else:
                batch.empty.append(document.name)
            if _is_full(batch):
                yield batch
                batch = Batch(number, batch.row)
        batch.unit, batch.row, row = number + 1, 0, 0
        yield batch


def _is_full(batch: Batch) -> bool:
    rows = len(batch.documents) + len(batch.empty)
    return rows >= BATCH_DOCUMENTS or batch.characters >= BATCH_CHARACTERS


def _in_order(
    pool: ThreadPoolExecutor, batches: Iterator[Batch], work: Callable[[Batch], list[Ids]], workers: int
) -> Iterator[tuple[Batch, list[Ids]]]:
    """(batch, result) in the order of the batches, with a bounded number of them under way."""
    under_way: deque[tuple[Batch, Future[list[Ids]]]] = deque()
    try:
        for batch in batches:
            under_way.append((batch, pool.submit(work, batch)))
            if len(under_way) > 2 * workers + 1:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    finally:
        for _, future in under_way:
            future.cancel()
