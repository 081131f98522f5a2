"""Code that is not ours runs without a word: what it prints reaches nobody, and nobody can be asked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

STANDARD = (0, 1, 2)  # stdin, stdout, stderr


class Muted(io.TextIOBase):
    """Stands in the place of a stream and drops what is written, until `is_over`; then it passes everything on.

    It passes on because the code may have kept it: `logging.basicConfig` does.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream, self.is_over = stream, False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return self.stream.write(text) if self.is_over else len(text)

    def flush(self) -> None:
        if self.is_over:
            self.stream.flush()


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what is printed until the block ends, below Python, too; stdin is empty."""
    out, err = Muted(sys.stdout), Muted(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), _descriptors_to_nowhere():
        try:
            yield
        finally:
            out.is_over = err.is_over = True


@contextmanager
def _descriptors_to_nowhere() -> Iterator[None]:
    """For what writes without Python's streams: C libraries, child processes, sys.__stdout__."""
    _flush()
    kept = {fd: copy for fd in STANDARD if (copy := _copy(fd)) is not None}
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        for fd in kept:
            os.dup2(nowhere, fd)
        yield
    finally:
        _flush()
        for fd, copy in kept.items():
            os.dup2(copy, fd)
        for copy in (*kept.values(), nowhere):
            os.close(copy)


def _copy(fd: int) -> int | None:
    """Another descriptor of the same file; None where the process was started without it."""
    try:
        return os.dup(fd)
    except OSError:
        return None


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
