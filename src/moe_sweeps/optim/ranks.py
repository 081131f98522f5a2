"""What an optimizer needs to know of the ranks that train one model together.

Axes: N matrices of one stack, D their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """The processes of one run."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum in place over all ranks."""


@dataclass(frozen=True, slots=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor


ALONE = Alone()


def shared(
    ranks: Ranks, matrix_NDD: Tensor, work: Callable[[Tensor], tuple[Tensor, Tensor]], first: int = 0
) -> tuple[Tensor, Tensor]:
    """`work` on a stack: a matrix (N, D, D) and a flag, bool (N,), for each; each rank does its share, all get all.

    Rank `first` takes the first matrix, so that stacks of one do not all fall to the same rank. A result is summed with
    zeros, which is exact: all ranks hold the same bits.
    """
    if ranks.size == 1:
        return work(matrix_NDD)
    mine = slice((ranks.rank - first) % ranks.size, None, ranks.size)
    result_NDD, flag_N = matrix_NDD.new_zeros(matrix_NDD.shape), matrix_NDD.new_zeros(len(matrix_NDD))
    if len(matrix_NDD[mine]):
        own_NDD, own_N = work(matrix_NDD[mine])
        result_NDD[mine], flag_N[mine] = own_NDD, own_N.to(flag_N.dtype)
    return ranks.sum_(result_NDD), ranks.sum_(flag_N).bool()
