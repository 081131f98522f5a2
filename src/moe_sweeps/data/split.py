"""Which documents are held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from moe_sweeps.data.corpus import Document
from moe_sweeps.errors import DataError


@dataclass(frozen=True, slots=True)
class Split:
    """Documents of both sides, domain after domain; within a domain in the order in which they came."""

    train: list[Document]
    val: list[Document]


def split_documents(documents: Iterable[Document], val_fraction: float) -> Split:
    """Hold out whole documents that make up `val_fraction` of each domain's bytes.

    The choice is a function of the documents' names and sizes. Raises `DataError` when a domain has one document only.
    """
    split = Split([], [])
    for domain, members in _by_domain(documents).items():
        if len(members) < 2:
            raise DataError(f"the domain {domain} has one document, and a split needs two. Add text to the domain.")
        held_out = _held_out(members, val_fraction)
        split.train.extend(d for d in members if d.name not in held_out)
        split.val.extend(d for d in members if d.name in held_out)
    return split


def _by_domain(documents: Iterable[Document]) -> dict[str, list[Document]]:
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(document.domain, []).append(document)
    return groups


def _held_out(members: list[Document], val_fraction: float) -> set[str]:
    """Names for validation: documents in an order drawn by hash, each taken while it still fits the share.

    A share by size, because a domain of a hundred articles of very different length would miss a share by count widely.
    """
    sizes = {d.name: len(d.text.encode("utf-8")) for d in members}
    names = sorted(sizes, key=lambda name: _draw(members[0].domain, name))
    room = val_fraction * sum(sizes.values())
    chosen: set[str] = set()
    for name in names:
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    return chosen or {min(names, key=sizes.__getitem__)}


def _draw(domain: str, name: str) -> bytes:
    return hashlib.sha256(f"{domain}/{name}".encode()).digest()
