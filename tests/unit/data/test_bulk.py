"""FineWeb-Edu and own text against a reference that works in memory, with interruptions at every kind of write."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from moe_sweeps.cli.manage import main
from moe_sweeps.data import arrange, encoders, encoding, localfiles, tokenlog
from moe_sweeps.data.config import EncodedConfig, FineWebEduConfig, TextConfig, TextUnit
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.encoders import Encoder, Ids, gpt2
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import folder_name, prepared
from moe_sweeps.errors import ConfigError, DataError

WORDS = ["tree", "naïve", "数据", "🙂", "the", "of", "\n\n", "1984", "don't", "<|endoftext|>", "\t", "Ωmega", "a\u0301"]


@pytest.fixture(autouse=True)
def _offline_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network; shards, batches and commits so small that a little text has many of each."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(arrange, "SHARD_TOKENS", 1000)
    monkeypatch.setattr(encoding, "BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(encoding, "COMMIT_SECONDS", 0.0)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parquet files of the Hub's names and columns, one document of them empty."""
    root, draw = tmp_path_factory.mktemp("hub"), random.Random(0)
    (root / "sample/10BT").mkdir(parents=True)
    for number, count in enumerate((40, 1, 61)):
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 90))) for _ in range(count)]
        texts[0] = "" if number == 2 else texts[0]
        names = ("id", "dump", "url", "file_path", "language")
        table: dict[str, list[Any]] = {"text": texts} | {name: [f"{name} {i}" for i in range(count)] for name in names}
        table |= {"language_score": [0.9] * count, "token_count": [9] * count, "score": [3.1] * count}
        table["int_score"] = [3] * count
        parquet.write_table(pa.table(table), root / f"sample/10BT/{number:03d}_00000.parquet", row_group_size=17)
    return root


@pytest.fixture(scope="session")
def reference(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Both splits as the talk's own preparation makes them: datasets in memory, tiktoken's encode_ordinary."""
    import tiktoken
    from datasets import Dataset

    tables = [parquet.read_table(p) for p in sorted((sample / "sample/10BT").glob("*.parquet"))]
    split = Dataset(pa.concat_tables(tables)).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    ours = gpt2()
    ranks = {tiktoken_line_token(line): int(line.split()[1]) for line in ours.content.splitlines()}
    from tiktoken_ext.openai_public import r50k_pat_str

    bpe = tiktoken.Encoding("x", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    ids = {n: [i for text in split[n]["text"] for i in [*bpe.encode_ordinary(text), 50256]] for n in ("train", "test")}
    return np.array(ids["train"], dtype="<u2").tobytes(), np.array(ids["test"], dtype="<u2").tobytes()


def tiktoken_line_token(line: bytes) -> bytes:
    import base64

    return base64.b64decode(line.split()[0])


def fineweb(sample: Path, **changes: Any) -> FineWebEduConfig:
    values: dict[str, Any] = {"train_tokens": None, "val_tokens": None, "source": str(sample)}
    return FineWebEduConfig(**(values | changes))


def prepare(config: EncodedConfig, root: Path) -> TokenData:
    return prepared(config, root, progress=False, asked_for=True)


def content(data: TokenData) -> tuple[bytes, bytes]:
    return data.train[:].tobytes(), data.val[:].tobytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_equal_the_reference(workers: int, sample: Path, reference: tuple[bytes, bytes], tmp_path: Path) -> None:
    data = prepare(fineweb(sample, workers=workers), tmp_path)
    assert content(data) == reference
    assert len(list(data.folder.glob("train-*.bin"))) == len(reference[0]) // 2 // 1000 + 1
    assert [data.meta["splits"][s]["documents"] for s in ("train", "val")] == [101, 1]
    assert data.meta["subset"] is None
    assert sorted(p.suffix for p in data.folder.iterdir() if p.suffix != ".bin") == [".json", ".tiktoken"]


class Killed(BaseException):
    """Simulates a process that is killed."""


def after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(calls))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return function(*args, **kwargs)

    return wrapped


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(
    sample: Path, reference: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops at random calls of everything that writes; what was appended after a commit is torn."""
    draw, stops = random.Random(1), 0
    places: list[tuple[Any, str]] = [
        (tokenlog.TokenLog, "append"),
        (tokenlog.TokenLog, "commit"),
        (tokenlog, "write_json"),
        (tokenlog.TokenLog, "delete"),
        (arrange, "write_atomic"),
        (arrange, "write_json"),
        (encoding, "_ids"),
    ]
    for copy in range(4):
        root = tmp_path / str(copy)
        while not any(root.glob("*/meta.json")) or any(root.glob("*.partial")):
            owner, name = draw.choice(places)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, after(draw.randint(0, 6), getattr(owner, name)))
                try:
                    prepare(fineweb(sample, workers=draw.randint(1, 2)), root)
                except Killed:
                    stops += 1
        assert content(prepare(fineweb(sample), root)) == reference
    assert stops >= 6


def test_goes_on_without_reading_again_what_was_encoded(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tokenlog.TokenLog, "commit", after(6, tokenlog.TokenLog.commit))
        with pytest.raises(Killed):
            prepare(fineweb(sample), tmp_path)
    done = tokenlog.read_progress(next(tmp_path.glob("*.partial")))
    assert done is not None
    assert done.documents >= 35
    encoded: list[str] = []
    ids = encoding._ids

    def counted(encoder: Encoder, document: Document) -> Ids:
        encoded.append(document.text)
        return ids(encoder, document)

    monkeypatch.setattr(encoding, "_ids", counted)
    prepare(fineweb(sample), tmp_path)
    assert len(encoded) == 102 - done.documents


def test_killed_process_goes_on(sample: Path, reference: tuple[bytes, bytes], tmp_path: Path) -> None:
    code = (
        "from moe_sweeps.data import encoding, arrange; import time\n"
        "encoding.BATCH_DOCUMENTS, encoding.COMMIT_SECONDS, arrange.SHARD_TOKENS = 7, 0.0, 1000\n"
        "ids = encoding._ids; encoding._ids = lambda *a: (time.sleep(0.02), ids(*a))[1]\n"
        "from test_bulk import *\n"
        f"prepare(fineweb(Path({str(sample)!r}), workers=1), Path({str(tmp_path)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("*.partial/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(tmp_path.glob("*.partial/progress.json"))
    assert content(prepare(fineweb(sample), tmp_path)) == reference


def test_a_run_refuses_a_partial_copy_and_says_how_to_finish_it(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fineweb(sample, max_tokens=3000)
    with pytest.raises(DataError, match="nothing is encoded yet"):
        prepared(config, tmp_path, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(tokenlog.TokenLog, "commit", after(3, tokenlog.TokenLog.commit))
        with pytest.raises(Killed):
            prepare(config, tmp_path)
    command = rf"moe-sweeps data prepare fineweb_edu data.max_tokens=3000 data.source={re.escape(str(sample))}"
    with pytest.raises(DataError, match=rf"% is encoded \([\d,]+ of 3,000 tokens\)\. Run: {command}"):
        prepared(config, tmp_path, progress=False)


def give_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Say that `free` bytes are left: the full sample wants 60 GB, which not every machine that tests has."""
    usage = shutil.disk_usage("/")._replace(free=int(free))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_too_little_disk_is_refused_before_anything_is_read(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_disk(monkeypatch, 39.9e9)
    with pytest.raises(DataError, match=r"too little room: 19\.9 GB in the end, 39\.9 GB more while .* 39\.9 GB free"):
        prepare(FineWebEduConfig(source=str(sample)), tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_counts_of_the_full_sample_are_checked(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_disk(monkeypatch, 40.0e9)
    with pytest.raises(DataError, match=r"data\.train_tokens=9,949,090,040 is not what came out: [\d,]+ tokens of 101"):
        prepare(FineWebEduConfig(source=str(sample)), tmp_path)
    assert not (tmp_path / folder_name(FineWebEduConfig(source=str(sample)))).exists()


def test_max_tokens_makes_a_labelled_subset(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(tmp_path))
    assert main(["data", "prepare", "fineweb_edu", "--max-tokens", "2k", f"data.source={sample}"]) == 0
    shown = capsys.readouterr()
    assert "disk: " in shown.err
    assert "a subset: the first" in shown.out
    [folder] = tmp_path.glob("fineweb_edu-subset-*")
    data = TokenData.open(folder)
    lengths = [len(data.train), len(data.val)]
    assert 2000 <= sum(lengths) < 2000 + 600
    assert data.meta["subset"]["max_tokens"] == 2000
    # The subset is the first documents, in whole: those of the sample up to the one that reaches 2,000.
    texts = [t for p in sorted((sample / "sample/10BT").glob("*")) for t in parquet.read_table(p)["text"].to_pylist()]
    encoder, total, count = gpt2(), 0, 0
    while total < 2000:
        total, count = total + len(encoder.ids(texts[count])) + 1, count + 1
    assert (sum(lengths), data.meta["subset"]["documents"]) == (total, count)


def test_hub_that_cannot_be_reached_is_reported_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached.*Two ways out: \(1\).*\(2\)") as caught:
        prepare(FineWebEduConfig(), tmp_path)
    assert re.search(r"\((OfflineModeIsEnabled|ConnectError) after", str(caught.value))
    assert time.monotonic() - started < 10


def test_source_that_changed_is_not_continued(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "a.txt"
    text.write_text("one\ntwo\nthree\n" * 20)
    config = TextConfig(files=str(text), document=TextUnit.line)
    with monkeypatch.context() as patch:
        patch.setattr(tokenlog.TokenLog, "commit", after(2, tokenlog.TokenLog.commit))
        with pytest.raises(Killed):
            prepare(config, tmp_path / "data")
    text.write_text("other\n" * 9)
    with pytest.raises(DataError, match="text that has changed since"):
        prepare(config, tmp_path / "data")


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def decode(data: TokenData, split: Any) -> list[str]:
    import base64

    ranks = [line.split() for line in data.tokenizer_path.read_bytes().splitlines()]
    table = {int(rank): base64.b64decode(token) for token, rank in ranks}
    ids = data.tokens(split)[:].tolist()
    return b"".join(table.get(i, b"\0") for i in ids).decode().split("\0")[:-1]


def test_jsonl_and_parquet_with_domains(tmp_path: Path) -> None:
    records = [{"body": f"text {i}", "kind": "odd" if i % 2 else "even"} for i in range(20)]
    folder = tmp_path / "in"
    folder.mkdir()
    lines(folder / "a.jsonl", *records[:12])
    parquet.write_table(pa.Table.from_pylist(records[12:]), folder / "b.parquet")
    config = TextConfig(files=str(folder), column="body", domain_column="kind", val_fraction=0.2)
    data = prepare(config, tmp_path / "data")
    found = decode(data, "train") + decode(data, "val")
    assert sorted(found) == sorted(r["body"] for r in records)
    assert data.domains == ["even", "odd"]
    spans = data.domain_spans("train")
    assert [name for name, _, _ in spans] == ["even", "odd"]
    assert spans[0][1] == 0
    assert spans[0][2] == spans[1][1]
    assert spans[1][2] == len(data.train)
    evens = [int(text.split()[1]) % 2 for text in decode(data, "train")]
    assert evens == sorted(evens)
    lines(folder / "a.jsonl", *records[:11])
    with pytest.raises(DataError, match="changed after they were prepared"):
        prepare(config, tmp_path / "data")


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (TextUnit.file, ["one\ntwo\n\n\nthree\n", "four"]),
        (TextUnit.line, ["one", "two", "three", "four"]),
        (TextUnit.paragraph, ["one\ntwo", "three", "four"]),
    ],
)
def test_plain_text(unit: TextUnit, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n")
    (tmp_path / "b.txt").write_text("four")
    data = prepare(TextConfig(files=str(tmp_path / "*.txt"), document=unit), tmp_path / "data")
    assert sorted(decode(data, "train") + decode(data, "val")) == sorted(expected)
    assert data.meta["empty_documents"] == (2 if unit is TextUnit.line else 0)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.txt", b"good\nbad \xff\n", r"a\.txt:2 is not UTF-8 \(byte 5 of the line"),
        ("a.jsonl", b'{"text": "x"}\n{"test": "y"}\n', r"a\.jsonl:2 has no such column\. It has test"),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"data\.column=text is refused: .*a\.jsonl:2 holds int in 'text'"),
        ("a.jsonl", b'{"text": "x"}\n' + b"[" * 100_000, r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\xff\n', r"a\.jsonl:2 is not UTF-8"),
        ("a.jsonl", b"", r"the text has 0"),
        ("a.txt", "\ufeffx\n".encode("utf-16-le"), r"begins as UTF-16 does: convert it with iconv"),
        ("a.txt.gz", gzip.compress(b"one two three " * 99, mtime=0)[:-20], r"a\.txt\.gz cannot be read \(EOFError"),
        ("a.txt.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 30, r"a\.txt\.gz cannot be read \(error"),
        ("a.txt.gz", b"one", r"a\.txt\.gz cannot be read \(BadGzipFile"),
        ("a.jsonl", b"\n[1]\n", r"a\.jsonl:2 holds a list"),
        ("a.parquet", b"no", r"a\.parquet is not a parquet file"),
        ("a.pdf", b"no", r"a\.pdf has an ending that is not read"),
        ("a.txt", b"one", r"a split needs two documents"),
    ],
)
def test_text_that_cannot_be_read_is_reported_with_its_place(
    name: str, raw: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=message):
        prepare(TextConfig(files=str(tmp_path / name)), tmp_path / "data")


def test_parquet_without_the_column_and_with_bad_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], "<i4").tobytes()), pa.py_buffer(b"ok\xff\xfe")]
    )
    parquet.write_table(pa.table({"body": bad}), path)
    with pytest.raises(DataError, match=r"data\.column=text is refused: .*a\.parquet has no such column\. It has body"):
        prepare(TextConfig(files=str(path)), tmp_path / "data")
    with pytest.raises(DataError, match=r"a\.parquet:row 2 is not UTF-8"):
        prepare(TextConfig(files=str(path), column="body"), tmp_path / "data")


def test_a_domain_that_is_no_text_names_the_domain_column(tmp_path: Path) -> None:
    records = [{"text": f"text {i}", "site": i} for i in range(4)]
    lines(tmp_path / "a.jsonl", *records)
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "b.parquet")
    for name, place in (("a.jsonl", ":1"), ("b.parquet", ":row 1")):
        message = rf"data\.domain_column=site is refused: .*{name}{place} holds int in 'site' where text is expected"
        with pytest.raises(DataError, match=message):
            prepare(TextConfig(files=str(tmp_path / name), domain_column="site"), tmp_path / "data")
        with pytest.raises(DataError, match=r"data\.domain_column=page is refused: .* has no such column"):
            prepare(TextConfig(files=str(tmp_path / name), domain_column="page"), tmp_path / "data")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"data\.column=text is refused: .*a\.parquet has 2 columns of that name"):
        prepare(TextConfig(files=str(tmp_path / "a.parquet")), tmp_path / "data")


@pytest.mark.parametrize("unit", list(TextUnit))
def test_a_byte_order_mark_is_no_token(unit: TextUnit, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbfone\r\n\r\ntw\0o")
    data = prepare(TextConfig(files=str(tmp_path / "*.txt"), document=unit), tmp_path / "data")
    count = data.meta["splits"]["train"]["tokens"] + data.meta["splits"]["val"]["tokens"]
    texts = ["one\r\n\r\ntw\0o"] if unit is TextUnit.file else ["one", "tw\0o"]
    assert count == 2 * sum(len(gpt2().ids(text)) + 1 for text in texts)


def test_a_byte_order_mark_of_jsonl_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\xef\xbb\xbf{"text": "\\ufefftwo"}\n')
    data = prepare(TextConfig(files=str(tmp_path / "a.jsonl")), tmp_path / "data")
    assert sorted(decode(data, "train") + decode(data, "val")) == ["one", "two"]


@pytest.mark.parametrize("unit", ["line", "paragraph", "jsonl"])
def test_a_line_that_no_memory_holds_is_refused(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localfiles, "MAX_DOCUMENT_BYTES", 1000)
    path = tmp_path / ("a.jsonl" if unit == "jsonl" else "a.txt")
    path.write_text("\n" + "x" * 1001)
    document = TextUnit.file if unit == "jsonl" else TextUnit[unit]
    with pytest.raises(DataError, match=rf"{path.name}:2 is longer than"):
        prepare(TextConfig(files=str(path), document=document), tmp_path / "data")
    if unit == "paragraph":
        path.write_text("y\n\n" + "x\n" * 501)
        with pytest.raises(DataError, match=r"the paragraph at .*a\.txt:3 has more than .*data\.document=line"):
            prepare(TextConfig(files=str(path), document=document), tmp_path / "data")


def test_half_a_surrogate_pair_is_one_thing_to_every_encoder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "abc \\ud83d", "site": "\\udc00"}\n{"text": "def", "site": "x"}\n')
    tokenizer = word_level(tmp_path / "tokenizer.json", {"abc": 0, "def": 1, "\ufffd": 2, "<|endoftext|>": 3})
    config = TextConfig(files=str(tmp_path / "a.jsonl"), domain_column="site")
    ours = prepare(config, tmp_path / "data")
    assert sorted(decode(ours, "train") + decode(ours, "val")) == ["abc \ufffd", "def"]
    theirs = prepare(replace(config, tokenizer=str(tokenizer)), tmp_path / "data")
    assert sorted(theirs.train[:].tolist() + theirs.val[:].tolist()) == [0, 1, 2, 3, 3]
    assert theirs.domains == ours.domains == ["\ufffd", "x"]


def test_a_document_that_an_encoder_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> Ids:
        raise TypeError("TextEncodeInput must be str")

    monkeypatch.setattr(encoders, "load_encoder", lambda *a, **k: replace(gpt2(), ids=refuse))
    lines(tmp_path / "a.jsonl", {"text": "x"}, {"text": "y"})
    with pytest.raises(DataError, match=r"a\.jsonl:1 cannot be encoded by the tokenizer \(TypeError: TextEncodeInput"):
        prepare(TextConfig(files=str(tmp_path / "a.jsonl")), tmp_path / "data")


def word_level(path: Path, vocabulary: dict[str, int]) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    bpe = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.save(str(path))
    return path


def test_documents_on_both_sides_of_the_split_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"text number {i}" for i in range(30)]
    lines(tmp_path / "a.jsonl", *({"text": text} for text in [*texts, *texts[:20], "other", "other"]))
    config = TextConfig(files=str(tmp_path / "a.jsonl"), val_fraction=0.3)
    data = prepared(config, tmp_path / "data")
    train, val = decode(data, "train"), decode(data, "val")
    expected = sum(text in set(train) for text in val)
    assert 0 < expected < len(val)
    assert data.meta["duplicates"] == {"val_in_train": expected, "val": len(val)}
    assert f"duplicates: {expected} of {len(val)} documents of validation stand in training" in capsys.readouterr().err
    assert data.meta["files"]["read"] == 1
    lines(tmp_path / "b.jsonl", *({"text": text} for text in texts))
    alone = prepare(replace(config, files=str(tmp_path / "b.jsonl")), tmp_path / "data")
    assert alone.meta["duplicates"] == {"val_in_train": 0, "val": 9}


def test_what_is_read_does_not_depend_on_how_a_folder_is_spelled(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl"):
        lines(folder / name, *({"text": f"text {i}"} for i in range(9)))
    (tmp_path / "link").symlink_to(folder)
    spelled = [f"{folder}", f"{folder}/", f"{tmp_path}/link", f"{folder}:{folder}/../link", f"{tmp_path}/w*"]
    found = {prepare(TextConfig(files=files), tmp_path / "data").fingerprint for files in spelled}
    assert len(found) == 1


def test_vocabulary_beyond_uint16(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {f"w{i}": i for i in range(70_000)} | {"<|endoftext|>": 70_000}
    bpe = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    bpe.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("w69999 w5\nw65536\n")
    config = TextConfig(
        files=str(tmp_path / "a.txt"), document=TextUnit.line, tokenizer=str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ConfigError, match=r"data\.vocab_size=50304.*ids go up to 70,000.*vocab_size=70016"):
        prepare(config, tmp_path / "data")
    config.vocab_size = 70_016
    data = prepare(config, tmp_path / "data")
    both = sorted([data.train[:].tolist(), data.val[:].tolist()])
    assert both == [[65536, 70_000], [69999, 5, 70_000]]
    assert data.train.dtype == np.dtype("<u4")
