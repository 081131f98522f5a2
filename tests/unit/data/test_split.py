from __future__ import annotations

import random

import pytest

from moe_sweeps.data.corpus import Document
from moe_sweeps.data.split import split_documents
from moe_sweeps.errors import DataError


def size(documents: list[Document], domain: str) -> int:
    return sum(len(d.text.encode()) for d in documents if d.domain == domain)


def test_every_document_is_on_exactly_one_side(tiny_corpus: list[Document]) -> None:
    split = split_documents(tiny_corpus, 0.1)
    assert sorted(split.train + split.val, key=repr) == sorted(tiny_corpus, key=repr)
    assert not {d.text for d in split.train} & {d.text for d in split.val}


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3])
def test_share_of_each_domain_is_close_to_the_fraction_and_never_above(
    fraction: float, tiny_corpus: list[Document]
) -> None:
    split = split_documents(tiny_corpus, fraction)
    for domain in ("north", "south"):
        share = size(split.val, domain) / size(tiny_corpus, domain)
        assert fraction - 0.02 < share <= fraction


def test_choice_depends_neither_on_the_order_nor_on_the_other_domains(tiny_corpus: list[Document]) -> None:
    held_out = {d.name for d in split_documents(tiny_corpus, 0.1).val}
    shuffled = random.Random(1).sample(tiny_corpus, len(tiny_corpus))
    north = [d for d in tiny_corpus if d.domain == "north"]
    assert {d.name for d in split_documents(shuffled, 0.1).val} == held_out
    assert {d.name for d in split_documents(north, 0.1).val} == {n for n in held_out if n.startswith("north")}


def test_domains_stay_together_and_in_order(tiny_corpus: list[Document]) -> None:
    interleaved = [d for pair in zip(tiny_corpus[:30], tiny_corpus[30:], strict=True) for d in pair]
    split = split_documents(interleaved, 0.1)
    assert split == split_documents(tiny_corpus, 0.1)
    for side in (split.train, split.val):
        assert side == [d for d in tiny_corpus if d in side]


def test_a_domain_of_large_documents_holds_out_the_smallest() -> None:
    documents = [Document("d", str(n), "x" * n) for n in (300, 200, 100)]
    split = split_documents(documents, 0.05)
    assert [d.name for d in split.val] == ["100"]
    assert [d.name for d in split.train] == ["300", "200"]


def test_a_domain_of_one_document_is_refused() -> None:
    with pytest.raises(DataError, match="the domain d has one document"):
        split_documents([Document("d", "only", "text")], 0.05)
