"""meta.json of prepared data: what preparation writes passes, and each wrong field is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moe_sweeps.data.memmap import META_FILE, TokenData
from moe_sweeps.data.meta import require_meta

SPAN = {"name": "text", "start": 0, "end": 4}
PART = {"file": "train-00000.bin", "tokens": 4}


def meta(**changes: Any) -> dict[str, Any]:
    """As small as one can be, with `changes`."""
    split = {"files": [PART], "domains": [SPAN]}
    content = {"vocab_size": 256, "fingerprint": "f", "domains": ["text"], "dtype": "<u2"}
    return content | {"splits": {"train": split, "val": split}} | changes


def train(**changes: Any) -> dict[str, Any]:
    return {"splits": meta()["splits"] | {"train": {"files": [PART], "domains": [SPAN]} | changes}}


def test_what_preparation_writes_passes(tiny_data: TokenData) -> None:
    written = json.loads((tiny_data.folder / META_FILE).read_text())
    assert require_meta(written) is written


def test_all_that_is_optional(tiny_data: TokenData) -> None:
    account = {"read": 3, "bytes": 9, "roots": ["/x"], "passed_over": {"hidden": 1}, "examples": {"hidden": ".a"}}
    more = {"files": account, "duplicates": {"val_in_train": 0, "val": 4}, "subset": {"documents": 3}, "source": ["a"]}
    assert require_meta(meta(**more)) == meta(**more)
    assert require_meta(meta(files=None, subset=None)) == meta(files=None, subset=None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"vocab_size": True}, "vocab_size is no count"),
        ({"vocab_size": -1}, "vocab_size is no count"),
        ({"fingerprint": None}, "fingerprint is no text"),
        ({"domains": ["a", 1]}, "domains is no list of names"),
        ({"dtype": "<u8"}, "dtype is none of <u2, <u4"),
        ({"tokenizer_file": "../x"}, "tokenizer_file is no name of a file"),
        ({"source": "x"}, "source is no list of texts"),
        ({"splits": []}, "splits is no object"),
        ({"splits": {"train": meta()["splits"]["train"]}}, "splits.val is no object"),
        (train(files=[]), "splits.train names no files of tokens"),
        (train(files=[PART | {"file": "/etc/passwd"}]), "splits.train names no files of tokens"),
        (train(files=[PART | {"tokens": 1.5}]), "splits.train names no files of tokens"),
        (train(domains=[{}]), "splits.train.domains is no list of spans"),
        (train(domains=[SPAN | {"end": None}]), "splits.train.domains is no list of spans"),
        ({"subset": {"max_tokens": 5}}, "subset has no number of documents"),
        ({"files": {"read": 1}}, "files is no account of files"),
        (
            {"files": {"read": 1, "bytes": 1, "roots": [], "passed_over": {"hidden": 1}, "examples": {}}},
            "files.examples lacks a reason",
        ),
        ({"duplicates": {"val_in_train": 1}}, "duplicates has no counts"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        require_meta(meta(**changes))


def test_a_list_is_no_meta() -> None:
    with pytest.raises(ValueError, match="it holds no object"):
        require_meta([])
