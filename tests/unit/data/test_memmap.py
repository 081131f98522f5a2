from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_sweeps.data.memmap import Shards, TokenData
from moe_sweeps.errors import DataError


def write(folder: Path, dtype: str = "<u2") -> Path:
    """A prepared folder with known tokens: 0..99 in train, 7..16 in val."""
    folder.mkdir()
    spans = {"train": (("a", 0, 60), ("b", 60, 100)), "val": (("a", 0, 4), ("b", 4, 10))}
    meta: dict[str, Any] = {
        "dtype": dtype,
        "vocab_size": 100,
        "fingerprint": "f00",
        "domains": ["a", "b"],
        "splits": {},
    }
    for split, first in (("train", 0), ("val", 7)):
        tokens = np.arange(first, first + spans[split][-1][2], dtype=dtype)
        tokens.tofile(folder / f"{split}.bin")
        domains = [{"name": name, "start": start, "end": end} for name, start, end in spans[split]]
        meta["splits"][split] = {"file": f"{split}.bin", "tokens": len(tokens), "domains": domains}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_open_maps_what_meta_describes(dtype: str, tmp_path: Path) -> None:
    data = TokenData.open(write(tmp_path / "data", dtype))
    assert data.train[:].tolist() == list(range(100))
    assert data.val[:].tolist() == list(range(7, 17))
    assert data.train.dtype == np.dtype(dtype)
    assert (data.vocab_size, data.fingerprint, data.domains) == (100, "f00", ["a", "b"])
    assert data.domain_spans("train") == [("a", 0, 60), ("b", 60, 100)]
    assert data.domain_spans("val") == [("a", 0, 4), ("b", 4, 10)]
    assert data.tokens("train") is data.train
    assert data.tokens("val") is data.val


def test_tokens_cannot_be_changed(tmp_path: Path) -> None:
    data = TokenData.open(write(tmp_path / "data"))
    with pytest.raises(ValueError, match="read-only"):
        data.train[:][0] = 1


@pytest.mark.parametrize(("split", "size"), [("train", 198), ("train", 202), ("val", 0), ("val", 19)])
def test_a_file_of_the_wrong_size_is_refused(split: str, size: int, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    os.truncate(folder / f"{split}.bin", size)
    count = {"train": 100, "val": 10}[split]
    with pytest.raises(DataError) as caught:
        TokenData.open(folder)
    for part in (f"{split}.bin has {size} bytes", f"says {count} tokens of 2 bytes", f"Delete {folder}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("file", ["meta.json", "train.bin", "val.bin"])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / file).unlink()
    with pytest.raises(DataError, match=f"{file}.* is missing.*Delete .*prepared again"):
        TokenData.open(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere holds no prepared data"):
        TokenData.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    ['{"vocab_size": 1', "[]", "{}", '{"vocab_size":1,"fingerprint":"","domains":[],"dtype":"<u2"}'],
)
def test_damaged_meta_is_refused(content: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "meta.json").write_text(content)
    with pytest.raises(DataError, match=r"meta\.json is damaged.*Delete"):
        TokenData.open(folder)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    meta = json.loads((folder / "meta.json").read_text())
    meta["splits"]["val"]["tokens"] = 0
    (folder / "meta.json").write_text(json.dumps(meta))
    os.truncate(folder / "val.bin", 0)
    with pytest.raises(DataError, match=r"val\.bin"):
        TokenData.open(folder)


@pytest.mark.parametrize("span", [(0, 0), (0, 4), (3, 5), (4, 6), (2, 10), (9, 10), (0, 10), (7, 99), (5, 3)])
def test_shards_read_as_one_sequence(span: tuple[int, int]) -> None:
    whole = np.arange(10, dtype=np.uint16)
    shards = Shards([whole[:4], whole[4:5], whole[5:]])
    assert len(shards) == 10
    assert shards[slice(*span)].tolist() == whole[slice(*span)].tolist()
    assert shards[slice(*span)].dtype == shards.dtype == np.uint16
