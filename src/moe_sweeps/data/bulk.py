"""Preparation of text of any size: encode in source order, then write both splits. It resumes where it was stopped.

Memory does not grow with the size of the text, only with the number of documents: 30 to 60 bytes for each.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moe_sweeps.data import arrange, encoders, tokenizer
from moe_sweeps.data.account import sentences
from moe_sweeps.data.arrange import Arrangement
from moe_sweeps.data.config import EncodedConfig, FineWebEduConfig, TextConfig
from moe_sweeps.data.duplicates import count_duplicates
from moe_sweeps.data.encoders import Encoder
from moe_sweeps.data.encoding import encode
from moe_sweeps.data.memmap import META_FILE
from moe_sweeps.data.sources import Source
from moe_sweeps.data.tokenlog import RECORD, TokenLog, read_progress
from moe_sweeps.errors import ConfigError, DataError, MoeSweepsError
from moe_sweeps.host.files import write_atomic, write_json

# Increase it with every change to the output: each version has folders of its own.
BULK_VERSION = 1
FINEWEB_SPLIT = (0.0005, 2357)  # test_size and seed of train_test_split
UINT16_IDS = 2**16
BYTES_PER_TOKEN = 3.0  # of text; a low guess, so that the disk estimate is high


def prepare_bulk(config: EncodedConfig, partial: Path, console: Console) -> None:
    """Fill the folder `partial`, resuming what an earlier call left there. The caller holds the lock.

    Raises `DataError` when text or tokenizer cannot be read, the disk is too small, or the counts are not the published
    ones.
    """
    if (partial / META_FILE).is_file():
        return
    encoder = _encoder(config)
    dtype = np.dtype("<u2" if encoder.size <= UINT16_IDS else "<u4")
    source = open_source(config)
    partial.mkdir(parents=True, exist_ok=True)
    _announce_disk(config, source, partial, dtype, console)
    log = TokenLog(partial, dtype, [unit.stamp for unit in source.units])
    try:
        with tokenizer.one_thread(), _progress_bar(console) as bar:
            _encode(config, source, encoder, log, bar)
            records = log.records()
            splits = arrange.arrange(records, *_split(config))
            _check_counts(config, splits, partial)
            duplicates = count_duplicates(partial, splits, records, dtype)
            report = _shard_report(bar, sum(s.tokens for s in splits))
            digests = arrange.write_shards(partial, splits, records, dtype, report)
        _finish(config, encoder, log, splits, digests, dtype, {"files": source.account, "duplicates": duplicates})
    finally:
        log.close()
    _say_what_was_left_out(log, console)
    for sentence in sentences({"duplicates": duplicates}):
        console.print(sentence, highlight=False, markup=False)


def how_far(partial: Path, config: EncodedConfig) -> str:
    """How far an interrupted preparation came, as one phrase."""
    progress = read_progress(partial)
    if progress is None or not progress.tokens:
        return "nothing is encoded yet"
    if progress.complete:
        return f"all {progress.tokens:,} tokens are encoded, but not yet in their final order"
    total = config.total_tokens if isinstance(config, FineWebEduConfig) else config.max_tokens
    if total is None:
        return f"{progress.tokens:,} tokens are encoded"
    return f"{progress.tokens / total:.1%} is encoded ({progress.tokens:,} of {total:,} tokens)"


def source_stamps(config: EncodedConfig) -> list[str] | None:
    """Current stamps of the local text files; None for text that is missing or not local."""
    if not isinstance(config, TextConfig) or not config.files:
        return None
    try:
        return [unit.stamp for unit in open_source(config).units]
    except MoeSweepsError:
        return None


def _encoder(config: EncodedConfig) -> Encoder:
    if isinstance(config, TextConfig):
        encoder = encoders.load_encoder(config.tokenizer, pattern=config.pattern, end_of_text=config.end_of_text)
    else:
        encoder = encoders.gpt2()
    if encoder.size > config.vocab_size:
        rule = f"the tokenizer's ids go up to {encoder.size - 1:,}"
        fix = f"Use data.vocab_size={-(-encoder.size // 128) * 128} (a multiple of 128) or at least {encoder.size}."
        raise ConfigError("data.vocab_size", config.vocab_size, rule, fix)
    return encoder


def _split(config: EncodedConfig) -> tuple[float, int]:
    return (config.val_fraction, config.split_seed) if isinstance(config, TextConfig) else FINEWEB_SPLIT


def _encode(config: EncodedConfig, source: Source, encoder: Encoder, log: TokenLog, bar: Progress) -> None:
    if log.progress.complete:
        return
    total = config.total_tokens if isinstance(config, FineWebEduConfig) else config.max_tokens
    sizes = [unit.size for unit in source.units]
    by_bytes = None if total is not None or None in sizes else sum(filter(None, sizes))
    task = bar.add_task("encoding", total=total or by_bytes, tokens=log.progress.tokens)

    def report() -> None:
        progress = log.progress
        done = sum(filter(None, sizes[: progress.unit])) if by_bytes else progress.tokens
        bar.update(task, completed=done, tokens=progress.tokens)

    report()
    bar.reset(task, completed=int(bar.tasks[task].completed), total=bar.tasks[task].total, tokens=log.progress.tokens)
    workers = config.workers or _cores()
    keep = config.KEEP_EMPTY
    encode(source, encoder, log, workers=workers, max_tokens=config.max_tokens, keep_empty=keep, report=report)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shard_report(bar: Progress, total: int) -> Callable[[int], None]:
    task = bar.add_task("writing both splits", total=total, tokens=0)
    return lambda tokens: bar.update(task, advance=tokens, tokens=int(bar.tasks[task].completed) + tokens)


def _check_counts(config: EncodedConfig, splits: list[Arrangement], partial: Path) -> None:
    """Refuse a full sample that is not the published one, before its shards are written."""
    if not isinstance(config, FineWebEduConfig) or config.max_tokens:
        return
    for arrangement, expected in zip(splits, (config.train_tokens, config.val_tokens), strict=True):
        if expected is not None and arrangement.tokens != expected:
            field = f"data.{arrangement.split}_tokens"
            found = f"{arrangement.tokens:,} tokens of {len(arrangement.order):,} documents"
            fix = f"A file is missing, or the Hub's sample changed. Delete {partial} and restart, or set {field}="
            raise DataError(
                f"{field}={expected:,} is not what came out: {found}. {fix}{arrangement.tokens} to accept it."
            )


def _finish(
    config: EncodedConfig,
    encoder: Encoder,
    log: TokenLog,
    splits: list[Arrangement],
    digests: dict[str, str],
    dtype: np.dtype[Any],
    found: dict[str, Any],
) -> None:
    """Write the tokenizer, then meta.json, whose presence means complete. `found`: more fields for meta.json."""
    write_atomic(log.folder / encoder.file, encoder.content, durable=True)
    tokenizer_digest = hashlib.sha256(encoder.content).hexdigest()
    meta = {
        **_meta(config, encoder, log, dtype),
        "tokenizer_sha256": tokenizer_digest,
        **found,
        "splits": {s.split: s.meta(log.progress.domains) for s in splits},
        "sha256": digests,
        "fingerprint": fingerprint(digests | {encoder.file: tokenizer_digest}),
    }
    write_json(log.folder / META_FILE, meta, durable=True)
    log.delete()
    (log.folder / arrange.DIGESTS_FILE).unlink(missing_ok=True)


def _meta(config: EncodedConfig, encoder: Encoder, log: TokenLog, dtype: np.dtype[Any]) -> dict[str, Any]:
    """What is known of the tokens before they are in their final order."""
    progress = log.progress
    return {
        "preparation_version": BULK_VERSION,
        "config": config.preparation(),
        "subset": {"max_tokens": config.max_tokens, "documents": progress.documents} if config.max_tokens else None,
        "source": progress.stamps,
        "sources": {name: importlib.metadata.version(name) for name in ("tokenizers", "tiktoken", "datasets")},
        "dtype": dtype.str,
        "vocab_size": config.vocab_size,
        "end_of_text_id": encoder.end_of_text_id,
        "tokenizer_file": encoder.file,
        "domains": progress.domains,
        "empty_documents": progress.empty,
    }


def fingerprint(digests: dict[str, str]) -> str:
    """sha256 over names and digests of files, so that no content can move from one file to the next unnoticed."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _announce_disk(
    config: EncodedConfig, source: Source, partial: Path, dtype: np.dtype[Any], console: Console
) -> None:
    """Print the disk space needed (twice the tokens, while they are put in order), and refuse when there is less."""
    total = config.total_tokens if isinstance(config, FineWebEduConfig) else config.max_tokens
    sizes = [unit.size for unit in source.units]
    if total is None and None in sizes:
        console.print("disk: the size of the text is not known beforehand; 4 bytes a token are needed", highlight=False)
        return
    tokens = total or sum(filter(None, sizes)) / BYTES_PER_TOKEN
    final = tokens * dtype.itemsize
    there = sum(file.stat().st_size for file in partial.glob("*.bin"))
    need, free = 2 * final + tokens / 1000 * RECORD.itemsize - there, shutil.disk_usage(partial).free
    sizes_text = (
        f"{final / 1e9:.1f} GB in the end, {max(need, 0) / 1e9:.1f} GB more while preparing, {free / 1e9:.1f} GB free"
    )
    console.print(f"disk: {'' if total else 'about '}{sizes_text}", highlight=False)
    if total and free < need:
        fix = "Set paths.data or MOE_SWEEPS_DATA to a larger disk, or make a subset with --max-tokens."
        raise DataError(f"paths.data={partial.parent} has too little room: {sizes_text}. {fix}")


def _say_what_was_left_out(log: TokenLog, console: Console) -> None:
    progress = log.progress
    if progress.empty:
        places = ", ".join(progress.empty_places[:3]) + (", ..." if progress.empty > 3 else "")
        console.print(f"left out {progress.empty:,} empty documents: {places}", highlight=False, markup=False)


def _progress_bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[tokens]:,} tokens"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=console.quiet)


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
