"""What an optimizer needs to know of the ranks that train one model together.

Axes: N matrices of one stack, D their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Ranks(Protocol):
    """The processes of one run."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape and dtype, in order of rank."""


@dataclass(frozen=True, slots=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def gather(self, tensor: Tensor) -> list[Tensor]:
        return [tensor]


ALONE = Alone()


def shared(
    ranks: Ranks, matrix_NDD: Tensor, work: Callable[[Tensor], tuple[Tensor, Tensor]], first: int = 0
) -> tuple[Tensor, Tensor]:
    """`work` on a stack: a matrix (N, D, D) and a flag, bool (N,), for each; every rank does its share and gets all.

    Matrices go round the ranks, beginning with rank `first`, so that stacks of one do not all fall to the same.
    """
    if ranks.size == 1:
        return work(matrix_NDD)
    shares = [slice((rank - first) % ranks.size, None, ranks.size) for rank in range(ranks.size)]
    mine_NDD = matrix_NDD[shares[ranks.rank]]
    longest = -(-len(matrix_NDD) // ranks.size)
    own_NDD, own_N = matrix_NDD.new_zeros(longest, *matrix_NDD.shape[1:]), matrix_NDD.new_zeros(longest)
    if len(mine_NDD):
        done_NDD, good_N = work(mine_NDD)
        own_NDD[: len(mine_NDD)], own_N[: len(mine_NDD)] = done_NDD, good_N.to(own_N.dtype)
    all_NDD, all_N = torch.empty_like(matrix_NDD), matrix_NDD.new_empty(len(matrix_NDD))
    for share, theirs_NDD, theirs_N in zip(shares, ranks.gather(own_NDD), ranks.gather(own_N), strict=True):
        count = len(all_N[share])
        all_NDD[share], all_N[share] = theirs_NDD[:count], theirs_N[:count]
    return all_NDD, all_N.bool()
