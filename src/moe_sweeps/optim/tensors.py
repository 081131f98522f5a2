"""Tensors in nested containers, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested mappings, lists and tuples, in order. A tensor that occurs twice comes twice."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def storage_bytes(value: Any) -> int:
    """Bytes of memory of the tensors in `value`. Memory that several of them share counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(value))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
