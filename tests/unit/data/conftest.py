"""A corpus small enough to prepare in a fraction of a second, in place of the real one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_sweeps.data import corpus
from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared

TINY = CorpusConfig(vocab_size=300, val_fraction=0.1)


def tiny_documents() -> Iterator[Document]:
    """Two domains of 30 documents each; every domain writes with words of its own."""
    draw = random.Random(0)
    for domain, letters in (("north", "abcdefghij"), ("south", "klmnopqrst")):
        words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(60)]
        for number in range(30):
            yield Document(domain, f"{domain} {number}", " ".join(draw.choices(words, k=draw.randint(40, 160))))


@pytest.fixture
def tiny_corpus(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """Replaces the real documents by the tiny ones, and returns these."""
    monkeypatch.setattr(corpus, "documents", tiny_documents)
    return list(tiny_documents())


@pytest.fixture
def tiny_config() -> CorpusConfig:
    return TINY


@pytest.fixture
def tiny_data(tiny_corpus: list[Document], tmp_path: Path) -> TokenData:
    """The tiny corpus, prepared."""
    return prepared(TINY, tmp_path / "data", progress=False)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    """The real corpus with the default config, prepared once a session (20 s), by one of pytest-xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    return prepared(CorpusConfig(), (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real", False)
