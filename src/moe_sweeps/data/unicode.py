"""Text that all tokenizer libraries read the same way."""

from __future__ import annotations


def without_half_pairs(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair, as tiktoken's encode_ordinary reads it.

    JSON can spell such halves, and the libraries differ in what they do about them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
