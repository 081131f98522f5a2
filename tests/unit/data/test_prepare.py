from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from moe_sweeps.data import corpus, prepare, tokenizer
from moe_sweeps.data.config import CorpusConfig, DataConfig
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.memmap import SplitName, TokenData
from moe_sweeps.data.prepare import folder_name, prepared
from moe_sweeps.errors import DataError

# Prepares the tiny corpus in a process of its own; {patch} changes the modules first, {root} is the data folder.
SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from conftest import TINY, tiny_documents
from moe_sweeps.data import corpus, prepare
def documents():
    with open({log!r}, "a") as log:
        log.write("prepared\\n")
    time.sleep(1)
    yield from tiny_documents()
corpus.documents = documents
{patch}
print(prepare.prepared(TINY, prepare.Path({root!r})).fingerprint)
"""


def start(root: Path, patch: str = "") -> subprocess.Popen[str]:
    log, tests = str(root.parent / "log"), str(Path(__file__).parent)
    code = SCRIPT.format(tests=tests, log=log, patch=patch, root=str(root))
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code], stdout=pipe, stderr=pipe, text=True)


def documents_of(data: TokenData, split: SplitName) -> list[str]:
    """Texts of a split, decoded from its tokens."""
    bpe = tokenizer.load(data.tokenizer_path)
    ends = np.flatnonzero(data.tokens(split) == data.meta["end_of_text_id"])
    assert ends[-1] == len(data.tokens(split)) - 1
    return [bpe.decode(part[part != 0].tolist()) for part in np.split(data.tokens(split)[:], ends + 1)[:-1]]


def test_tokens_decode_to_exactly_the_documents_of_each_side(tiny_data: TokenData, tiny_corpus: list[Document]) -> None:
    train, val = documents_of(tiny_data, "train"), documents_of(tiny_data, "val")
    assert Counter(train + val) == Counter(d.text for d in tiny_corpus)
    assert len(val) == tiny_data.meta["splits"]["val"]["documents"] > 0


def test_tokenizer_is_trained_on_the_training_side_only(tiny_data: TokenData, tiny_config: CorpusConfig) -> None:
    own = tokenizer.train(documents_of(tiny_data, "train"), tiny_config.vocab_size)
    assert tiny_data.tokenizer_path.read_bytes() == tokenizer.serialize(own)


def test_meta_describes_the_files(tiny_data: TokenData, tiny_corpus: list[Document]) -> None:
    meta = tiny_data.meta
    assert meta["config"] == {"kind": "corpus", "vocab_size": 300, "val_fraction": 0.1}
    assert meta["preparation_version"] == prepare.PREPARATION_VERSION
    assert meta["vocab_size"] == tiny_data.vocab_size == 300
    assert meta["dtype"] == "<u2"
    assert meta["sources"] == corpus.source_versions()
    assert meta["tokenizer_sha256"] == hashlib.sha256(tiny_data.tokenizer_path.read_bytes()).hexdigest()
    for domain in ("north", "south"):
        entries = [e for s in meta["splits"].values() for e in s["domains"] if e["name"] == domain]
        assert sum(e["documents"] for e in entries) == 30
        assert sum(e["bytes"] for e in entries) == sum(len(d.text) for d in tiny_corpus if d.domain == domain)


@pytest.mark.parametrize("split", ["train", "val"])
def test_domain_spans_cover_the_split_and_hold_their_domain(tiny_data: TokenData, split: SplitName) -> None:
    spans = tiny_data.domain_spans(split)
    assert [name for name, _, _ in spans] == tiny_data.domains == ["north", "south"]
    assert spans[0][1] == 0
    assert spans[0][2] == spans[1][1]
    assert spans[1][2] == len(tiny_data.tokens(split))
    bpe = tokenizer.load(tiny_data.tokenizer_path)
    for name, start_at, end in spans:
        text = bpe.decode(tiny_data.tokens(split)[start_at:end].tolist())
        assert set(text) <= set("abcdefghij " if name == "north" else "klmnopqrst ")


def test_second_call_reads_what_the_first_prepared(
    tiny_data: TokenData, tiny_config: CorpusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "documents", lambda: pytest.fail("prepared twice"))
    again = prepared(tiny_config, tiny_data.folder.parent)
    assert again.fingerprint == tiny_data.fingerprint
    assert np.array_equal(again.train[:], tiny_data.train[:])


def test_preparing_elsewhere_gives_the_same_fingerprint_and_files(
    tiny_data: TokenData, tiny_config: CorpusConfig, tmp_path: Path
) -> None:
    other = prepared(tiny_config, tmp_path / "elsewhere", progress=False)
    assert other.fingerprint == tiny_data.fingerprint
    for file in tiny_data.folder.iterdir():
        assert (other.folder / file.name).read_bytes() == file.read_bytes()


def test_fingerprint_follows_the_content(
    tiny_data: TokenData, tiny_config: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [*corpus.documents(), Document("south", "new", "klm nop")]
    monkeypatch.setattr(corpus, "documents", lambda: iter(changed))
    assert prepared(tiny_config, tmp_path / "changed", progress=False).fingerprint != tiny_data.fingerprint


def test_folder_name_follows_config_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {folder_name(c) for c in (CorpusConfig(), CorpusConfig(vocab_size=1024), CorpusConfig(val_fraction=0.1))}
    monkeypatch.setattr(prepare, "PREPARATION_VERSION", prepare.PREPARATION_VERSION + 1)
    assert len(names | {folder_name(CorpusConfig())}) == 4
    assert all(name.startswith("corpus-") for name in names)


# Both go on when both have imported what they need.
MEET = """
meeting = prepare.Path({folder!r})
(meeting / f"here-{{os.getpid()}}").touch()
while len(list(meeting.glob("here-*"))) < 2:
    time.sleep(0.001)
"""


def test_processes_that_start_together_prepare_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "data", MEET.format(folder=str(tmp_path))) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    assert (tmp_path / "log").read_text() == "prepared\n"
    assert sum("waiting for the process" in error for _, error in outputs) == 1


@pytest.mark.parametrize("file", ["train.bin", "meta.json"])
def test_a_killed_preparation_leaves_nothing_that_looks_complete(
    file: str, tmp_path: Path, tiny_corpus: list[Document], tiny_config: CorpusConfig
) -> None:
    kill = "write = prepare._write\n"
    kill += f"prepare._write = lambda p, c: os.kill(os.getpid(), 9) if p.name == {file!r} else write(p, c)"
    process = start(tmp_path / "data", kill)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "data" / folder_name(tiny_config)
    assert (tmp_path / "data" / f"{folder.name}.partial").is_dir()
    assert not folder.exists()
    assert len(prepared(tiny_config, tmp_path / "data", progress=False).train) > 0
    assert [path.name for path in (tmp_path / "data").iterdir() if path.is_dir()] == [folder.name]


def test_a_folder_without_meta_is_prepared_again(tiny_data: TokenData, tiny_config: CorpusConfig) -> None:
    (tiny_data.folder / "meta.json").unlink()
    os.truncate(tiny_data.folder / "train.bin", 10)
    assert prepared(tiny_config, tiny_data.folder.parent, progress=False).fingerprint == tiny_data.fingerprint


def test_a_failed_preparation_can_be_repeated(
    tmp_path: Path, tiny_config: CorpusConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise DataError("the package gensim is not installed")

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "documents", missing)
        for _ in range(2):  # the second finds the lock free
            with pytest.raises(DataError, match="gensim"):
                prepared(tiny_config, tmp_path, progress=False)
    assert not (tmp_path / folder_name(tiny_config)).exists()


def test_progress_goes_to_stderr_and_can_be_silent(
    tiny_corpus: list[Document], tiny_config: CorpusConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepared(tiny_config, tmp_path / "silent", progress=False)
    assert capfd.readouterr() == ("", "")
    prepared(tiny_config, tmp_path / "loud", progress=True)
    out, error = capfd.readouterr()
    assert out == ""
    assert "preparing" in error


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, tiny_config: CorpusConfig) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"paths\.data=.*file cannot be written to.*MOE_SWEEPS_DATA"):
        prepared(tiny_config, tmp_path / "file", progress=False)


def test_a_config_that_is_not_of_the_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data=other has no preparation"):
        prepared(DataConfig(kind="other"), tmp_path, progress=False)


def test_real_corpus(real_data: TokenData, tmp_path: Path) -> None:
    assert real_data.domains == ["wikipedia", "bible", "python"]
    assert real_data.vocab_size == 2048
    assert int(real_data.train[:].max()) == 2047
    assert 3e6 < len(real_data.train) < 4.5e6
    for train, val in zip(real_data.domain_spans("train"), real_data.domain_spans("val"), strict=True):
        tokens = {"train": train[2] - train[1], "val": val[2] - val[1]}
        assert 0.04 < tokens["val"] / sum(tokens.values()) < 0.06, train[0]
        assert tokens["train"] > 0.25 * len(real_data.train), train[0]
    train_texts, val_texts = documents_of(real_data, "train"), documents_of(real_data, "val")
    assert not set(train_texts) & set(val_texts)
    assert any(text.startswith("In the beginning God created") for text in train_texts + val_texts)


def test_real_meta_is_plain_json(real_data: TokenData) -> None:
    assert json.loads((real_data.folder / "meta.json").read_text()) == real_data.meta
    assert sorted(p.name for p in real_data.folder.iterdir()) == [
        "meta.json",
        "tokenizer.json",
        "train.bin",
        "val.bin",
    ]


def test_prepared_folder_can_be_copied(tiny_data: TokenData, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_data.folder, tmp_path / "copy")
    assert np.array_equal(TokenData.open(copy).val[:], tiny_data.val[:])
