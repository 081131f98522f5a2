"""What meta.json of a prepared folder holds, checked before anything relies on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moe_sweeps.host.reading import is_name

DTYPES = ("<u2", "<u4")


def require_meta(content: Any) -> dict[str, Any]:
    """`content` as it is.

    Raises:
        ValueError: a field that is read is missing or has another type; the message names it.
    """
    _require(isinstance(content, dict), "it holds no object")
    meta: dict[str, Any] = content
    _require(_is_count(meta.get("vocab_size")), "vocab_size is no count")
    _require(isinstance(meta.get("fingerprint"), str), "fingerprint is no text")
    _require(_is_list_of(meta.get("domains"), _is_text), "domains is no list of names")
    _require(meta.get("dtype") in DTYPES, f"dtype is none of {', '.join(DTYPES)}")
    _require(is_name(meta.get("tokenizer_file", "tokenizer.json")), "tokenizer_file is no name of a file")
    _require(_is_list_of(meta.get("source", []), _is_text), "source is no list of texts")
    splits: Any = meta.get("splits")
    _require(isinstance(splits, dict), "splits is no object")
    for name in ("train", "val"):
        _require_split(splits.get(name), name)
    _require_account(meta)
    return meta


def _require_split(split: Any, name: str) -> None:
    _require(isinstance(split, dict), f"splits.{name} is no object")
    files = split.get("files", [split])
    _require(_is_list_of(files, _is_part) and bool(files), f"splits.{name} names no files of tokens")
    _require(_is_list_of(split.get("domains"), _is_span), f"splits.{name}.domains is no list of spans")


def _require_account(meta: dict[str, Any]) -> None:
    """What is only said to the user: a subset, the files that were read, duplicates."""
    subset, files, duplicates = (meta.get(key) or {} for key in ("subset", "files", "duplicates"))
    _require(_has(subset, documents=_is_count), "subset has no number of documents")
    counts = {"read": _is_count, "bytes": _is_count, "roots": lambda roots: _is_list_of(roots, _is_text)}
    texts = {"passed_over": _is_table_of(_is_count), "examples": _is_table_of(_is_text)}
    _require(_has(files, **counts, **texts), "files is no account of files")
    _require(not files or set(files["passed_over"]) <= set(files["examples"]), "files.examples lacks a reason")
    _require(_has(duplicates, val_in_train=_is_count, val=_is_count), "duplicates has no counts")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _has(content: Any, **checks: Callable[[Any], bool]) -> bool:
    """Whether an object is empty, or has all of these keys with values that pass."""
    return content == {} or (
        isinstance(content, dict) and all(key in content and check(content[key]) for key, check in checks.items())
    )


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and is_name(part.get("file")) and _is_count(part.get("tokens"))


def _is_span(span: Any) -> bool:
    checks = {"name": _is_text, "start": _is_count, "end": _is_count}
    return bool(span) and _has(span, **checks)


def _is_table_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda content: isinstance(content, dict) and all(map(check, content.values()))


def _is_list_of(content: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(content, list) and all(map(check, content))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
