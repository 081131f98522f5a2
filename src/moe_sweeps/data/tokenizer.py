"""Byte-level BPE: any text has ids, and the ids give back exactly that text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from moe_sweeps.errors import DataError

END_OF_TEXT = "<|endoftext|>"


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on `texts`. The same texts in the same order give the same tokenizer, byte for byte.

    Ids: 0 is `END_OF_TEXT`, then the 256 bytes, then merges. Raises `DataError` when the text is too small to fill
    `vocab_size`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with one_thread():
        tokenizer.train_from_iterator(texts, trainer)
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        rule = f"the training text has pieces for no more than {size} tokens"
        raise DataError(f"data.vocab_size={vocab_size} is refused: {rule}. Use data.vocab_size<={size}.")
    return _literal(tokenizer)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of one document, closed by the id of `END_OF_TEXT`."""
    with one_thread():
        [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return [*encoding.ids, end_of_text_id(tokenizer)]


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """The id that closes every document."""
    token_id = tokenizer.token_to_id(END_OF_TEXT)
    if token_id is None:
        raise DataError(f"the tokenizer has no token {END_OF_TEXT}. Delete the prepared data; it is prepared again.")
    return token_id


def serialize(tokenizer: Tokenizer) -> bytes:
    """The content of tokenizer.json, which `load` and Hugging Face's own loader read."""
    return tokenizer.to_str(pretty=True).encode("utf-8")


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json."""
    return _literal(Tokenizer.from_file(str(path)))


def _literal(tokenizer: Tokenizer) -> Tokenizer:
    """Encode `END_OF_TEXT` inside a document as plain text; tokenizer.json does not store this setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the library from starting threads, unless the user chose otherwise.

    They would take the cores from runs beside this one, and the library prints a warning at every later fork of a
    process in which they ran.
    """
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
