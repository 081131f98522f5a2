"""Cuts parameters into blocks, and stacks blocks of one shape, so that one call updates all of them.

Axes: N blocks of one stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

# (name, parameter or its gradient) -> views (N, ...) of its blocks.
Cut = Callable[[str, Tensor], list[Tensor]]

# Numbers in one stack: 64 MB of float32. Larger stacks are no faster, and need larger temporary tensors.
STACK_LIMIT = 2**24


def flat(name: str, tensor: Tensor) -> list[Tensor]:
    """One block for each number, for elementwise optimizers."""
    return [tensor.reshape(-1)]


def merged(shape: Sequence[int], limit: int) -> tuple[int, ...]:
    """`shape` with adjacent dimensions merged from the left while their product is at most `limit`, without ones."""
    sizes: list[int] = []
    for size in shape:
        if sizes and sizes[-1] * size <= limit:
            sizes[-1] *= size
        elif size != 1:
            sizes.append(size)
    return tuple(sizes) or (1,)


def cut_blocks(stack: Tensor, limit: int) -> list[Tensor]:
    """Blocks of N equally shaped tensors (N, ...): dimensions are merged, then cut into pieces of at most `limit`."""
    blocks = [stack.reshape(len(stack), *merged(stack.shape[1:], limit))]
    for dim in range(1, blocks[0].dim()):
        blocks = [piece for block in blocks for piece in block.split(limit, dim)]
    return blocks


class Stacks:
    """The blocks of some parameters, sorted by shape into stacks. It holds no tensors."""

    def __init__(self, names: Sequence[str], params: Sequence[Tensor], cut: Cut) -> None:
        self.names, self.cut = tuple(names), cut
        owners: list[str] = []
        pieces: list[Tensor] = []
        for name, param in zip(names, params, strict=True):
            found = cut(name, param.detach())
            pieces += found
            owners += [name] * len(found)
        self.plan = _group(pieces)
        self.shapes = [(sum(len(pieces[i]) for i in plan), *pieces[plan[0]].shape[1:]) for plan in self.plan]
        self._owners = [[(owners[i], len(pieces[i])) for i in plan] for plan in self.plan]

    def views(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """For each stack of N blocks the views (N_i, ...) of `tensors`, the parameters or their gradients."""
        named = zip(self.names, tensors, strict=True)
        pieces = [piece for name, tensor in named for piece in self.cut(name, tensor.detach())]
        return [[pieces[i] for i in plan] for plan in self.plan]

    def owner(self, stack: int, block: int) -> str:
        """The name of the parameter that a block is part of."""
        owners = self._owners[stack]
        ends = accumulate(count for _, count in owners)
        return next(name for (name, _), end in zip(owners, ends, strict=True) if block < end)


def _group(pieces: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the pieces of each stack: of one block shape, in order, up to STACK_LIMIT numbers."""
    plans: list[list[int]] = []
    open_plan: dict[torch.Size, int] = {}
    filled: list[int] = []
    for i, piece in enumerate(pieces):
        shape = piece.shape[1:]
        at = open_plan.get(shape)
        if at is None or filled[at] + piece.numel() > STACK_LIMIT:
            at = open_plan[shape] = len(plans)
            plans.append([])
            filled.append(0)
        plans[at].append(i)
        filled[at] += piece.numel()
    return plans
