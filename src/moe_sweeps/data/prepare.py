"""From text to tokens on disk, once: the first process prepares, all others wait and read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from moe_sweeps.data import corpus, tokenizer
from moe_sweeps.data.config import CorpusConfig, DataConfig, EncodedConfig
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.memmap import META_FILE, TOKENIZER_FILE, TokenData
from moe_sweeps.data.split import Split, split_documents
from moe_sweeps.errors import DataError, NotWritable
from moe_sweeps.host.consoles import make_console
from moe_sweeps.host.files import make_folder, sync_folder
from moe_sweeps.host.locks import Busy, locked

# Increase it with every change to the output: each version has folders of its own.
PREPARATION_VERSION = 1
DTYPE = np.dtype("<u2")


def prepared(config: DataConfig, root: Path, progress: bool = True, *, asked_for: bool = False) -> TokenData:
    """The prepared data of `config` below `root`, prepared now if it is not there yet.

    Any number of processes may call this at once: one prepares, the others wait for it. With `progress` a bar is drawn
    on stderr. Raises `DataError` when text is missing, the folder is damaged, or the data are so large that they are
    prepared only when they are `asked_for`.
    """
    folder = root / folder_name(config)
    if not _is_complete(folder):
        if not (config.ON_FIRST_USE or asked_for):
            _refuse_incomplete(config, folder)
        console = make_console(stderr=True, quiet=not progress)
        with _only_process(folder, console):
            if not _is_complete(folder):
                _prepare(config, folder, console)
    data = TokenData.open(folder)
    _require_same_text(config, data)
    return data


def folder_name(config: DataConfig) -> str:
    """The folder of `config`: equal names mean equal settings and the same version of the preparation."""
    version = PREPARATION_VERSION
    if isinstance(config, EncodedConfig):
        from moe_sweeps.data.bulk import BULK_VERSION as version  # noqa: N811
    content = json.dumps([config.preparation(), version], sort_keys=True)
    label = "-subset" if isinstance(config, EncodedConfig) and config.max_tokens else ""
    return f"{config.kind}{label}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def prepare_command(config: DataConfig) -> str:
    """What to type to prepare the data of `config`."""
    defaults = type(config)()
    changed = {f.name: getattr(config, f.name) for f in fields(config)}
    changed = {name: value for name, value in changed.items() if value != getattr(defaults, name)}
    settings = [f"data.{name}={getattr(value, 'name', value)}" for name, value in changed.items()]
    return " ".join(["moe-sweeps data prepare", config.kind, *settings])


def _refuse_incomplete(config: DataConfig, folder: Path) -> None:
    assert isinstance(config, EncodedConfig)  # before the import, by which code versions know that others never need it
    from moe_sweeps.data.bulk import how_far

    state = how_far(_partial(folder), config)
    fix = f"Run: {prepare_command(config)} (it can be interrupted, and resumes where it stopped)"
    raise DataError(f"data={config.kind} is not prepared in {folder}: {state}. {fix}.")


def _require_same_text(config: DataConfig, data: TokenData) -> None:
    """Refuse local files that changed since they were prepared. Files that are missing here are no reason to refuse."""
    if not isinstance(config, EncodedConfig) or "source" not in data.meta:
        return
    from moe_sweeps.data.bulk import source_stamps

    stamps = source_stamps(config)
    if stamps is not None and stamps != data.meta["source"]:
        rule = f"its files changed after they were prepared in {data.folder}"
        raise DataError(f"data={config.kind} is refused: {rule}. Delete that folder, or bring the files back.")


def _is_complete(folder: Path) -> bool:
    return (folder / META_FILE).is_file()


@contextmanager
def _only_process(folder: Path, console: Console) -> Iterator[None]:
    try:
        make_folder(folder.parent)
        stack, path = ExitStack(), folder.parent / f".{folder.name}.lock"
        try:
            stack.enter_context(locked(path))
        except Busy:
            console.print(f"waiting for the process that prepares {folder}")
            stack.enter_context(locked(path, wait=None))
    except (OSError, NotWritable) as error:
        fix = "Set paths.data or MOE_SWEEPS_DATA to a folder that you can write to."
        raise DataError(f"paths.data={folder.parent} cannot be written to: {error}. {fix}") from error
    with stack:
        yield


def _prepare(config: DataConfig, folder: Path, console: Console) -> None:
    """Build beside `folder` and rename: what lies at the final name is complete. The caller holds the lock."""
    partial = _partial(folder)
    shutil.rmtree(folder, ignore_errors=True)
    console.print(f"preparing {folder} (once)")
    if isinstance(config, EncodedConfig):
        from moe_sweeps.data.bulk import prepare_bulk

        prepare_bulk(config, partial, console)
    elif isinstance(config, CorpusConfig):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with _progress_bar(console) as bar:
            _build(config, partial, bar)
    else:
        raise DataError(f"data={config.kind} has no preparation. Use data=corpus.")
    sync_folder(partial)
    partial.replace(folder)
    sync_folder(folder.parent)


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _build(config: CorpusConfig, folder: Path, bar: Progress) -> None:
    documents = bar.track(corpus.documents(), description="reading text")
    split = split_documents(documents, config.val_fraction)
    texts = [document.text for document in split.train]  # the tokenizer must not see what it is judged on
    bpe = tokenizer.train(bar.track(texts, description="training the tokenizer"), config.vocab_size)
    files = {TOKENIZER_FILE: tokenizer.serialize(bpe)}
    meta = _meta(config, bpe, files[TOKENIZER_FILE], split)
    for name, members in _sides(split):
        ids = [_ids(bpe, document) for document in bar.track(members, description=f"encoding {name}")]
        files[f"{name}.bin"] = np.concatenate(ids).tobytes()
        meta["splits"][name] = _split_meta(f"{name}.bin", members, [len(part) for part in ids])
    meta["fingerprint"] = _fingerprint(files)
    for file, content in files.items():
        _write(folder / file, content)
    _write(folder / META_FILE, json.dumps(meta, indent=2).encode())  # last: its presence means complete


def _sides(split: Split) -> list[tuple[str, list[Document]]]:
    return [("train", split.train), ("val", split.val)]


def _ids(bpe: Tokenizer, document: Document) -> npt.NDArray[np.uint16]:
    return np.array(tokenizer.encode(bpe, document.text), dtype=DTYPE)


def _meta(config: CorpusConfig, bpe: Tokenizer, tokenizer_json: bytes, split: Split) -> dict[str, Any]:
    return {
        "preparation_version": PREPARATION_VERSION,
        "config": config.preparation(),
        "sources": corpus.source_versions(),
        "dtype": DTYPE.str,
        "vocab_size": bpe.get_vocab_size(),
        "end_of_text_id": tokenizer.end_of_text_id(bpe),
        "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
        "domains": list(dict.fromkeys(document.domain for document in split.train)),
        "splits": {},
    }


def _split_meta(file: str, members: list[Document], lengths: list[int]) -> dict[str, Any]:
    """Counts of one split. A domain's `bytes` are those of its text, so that losses can be given in bits per byte."""
    domains: dict[str, dict[str, Any]] = {}
    end = 0
    for document, length in zip(members, lengths, strict=True):
        empty = {"name": document.domain, "start": end, "end": end, "documents": 0, "bytes": 0}
        domain = domains.setdefault(document.domain, empty)
        end += length
        domain["end"] = end
        domain["documents"] += 1
        domain["bytes"] += len(document.text.encode("utf-8"))
    return {"file": file, "tokens": end, "documents": len(members), "domains": list(domains.values())}


def _fingerprint(files: dict[str, bytes]) -> str:
    """sha256 over names and contents, so that no content can move from one file to the next unnoticed."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write through to the disk: the rename that follows must not outlive the content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<24}", markup=False), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=console.quiet)
