from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from moe_sweeps.data import tokenizer
from moe_sweeps.errors import DataError

TEXTS = ["the cat sat on the mat, the rat ran at the cat", "a cat that sat there then ran"] * 3


@pytest.fixture
def bpe() -> Tokenizer:
    return tokenizer.train(TEXTS, 270)


@pytest.mark.parametrize(
    "text",
    [
        "the cat",
        "  leading, double  and trailing space \n\n",
        "tabs\tand\r\nwindows lines",
        "Ωμέγα, 日本語, 🦊, e\u0301",
        "\x00 control \x7f",
        "it says <|endoftext|> in the middle",
        "",
    ],
)
def test_ids_give_back_the_text(bpe: Tokenizer, text: str) -> None:
    *ids, last = tokenizer.encode(bpe, text)
    assert bpe.decode(ids, skip_special_tokens=False) == text
    assert last == tokenizer.end_of_text_id(bpe) == 0
    assert 0 not in ids  # a document that mentions the token is not cut in two


def test_layout_of_the_vocabulary(bpe: Tokenizer) -> None:
    assert bpe.get_vocab_size() == 270
    assert bpe.id_to_token(0) == "<|endoftext|>"
    pieces = [bpe.id_to_token(i) or "" for i in range(1, 270)]
    assert len(set(pieces)) == 269
    assert all(len(piece) == 1 for piece in pieces[:256])
    assert all(len(piece) > 1 for piece in pieces[256:])


def test_frequent_words_become_single_tokens(bpe: Tokenizer) -> None:
    assert len(tokenizer.encode(bpe, " the")) == 2  # the word and the end
    assert len(tokenizer.encode(bpe, " xyz")) == 5


def test_training_again_gives_the_same_bytes(bpe: Tokenizer) -> None:
    assert tokenizer.serialize(bpe) == tokenizer.serialize(tokenizer.train(TEXTS, 270))


def test_training_in_processes_with_other_hash_seeds_gives_the_same_bytes(bpe: Tokenizer) -> None:
    script = f"from moe_sweeps.data import tokenizer; print(tokenizer.serialize(tokenizer.train({TEXTS!r}, 270)))"
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert output.strip() == repr(tokenizer.serialize(bpe))


def test_load_reads_what_was_serialized(bpe: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.serialize(bpe))
    loaded = tokenizer.load(path)
    for text in (*TEXTS, "it says <|endoftext|>"):
        assert tokenizer.encode(loaded, text) == tokenizer.encode(bpe, text)


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.vocab_size=4000 is refused.*Use data\.vocab_size<=\d+"):
        tokenizer.train(TEXTS, 4000)


def test_a_tokenizer_without_the_end_token_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(DataError, match="endoftext"):
        tokenizer.end_of_text_id(Tokenizer(models.BPE()))


@pytest.mark.parametrize("setting", [None, "true"])
def test_the_environment_is_left_as_it_was(setting: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if setting:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", setting)
    tokenizer.encode(tokenizer.train(TEXTS, 270), "text")
    assert os.environ.get("TOKENIZERS_PARALLELISM") == setting
