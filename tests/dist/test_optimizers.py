"""Every optimizer in several processes: replicas stay bit-identical, and are what one process with the whole batch is.

Axes: B examples of the global batch, D width, E experts, F hidden size of one.
"""

from __future__ import annotations

from unittest.mock import patch

import torch
import torch.nn.functional as F
from dist.processes import run_on_ranks
from optimizing import EVERY_OPTIMIZER, group_by_role, parameter
from torch import Tensor, nn

from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.optim import OptimizerConfig, ShampooConfig
from moe_sweeps.optim.roots import inverse_roots

UP, DOWN, OUT, NORM = (
    "layers.0.moe.experts.up_EHD",
    "layers.0.moe.experts.down_EDF",
    "layers.0.attention.out_DD",
    "final_norm.weight",
)
# No two adjacent sides of a matrix multiply to 768 or less, so that Shampoo does not merge them.
SHAPES = {UP: (3, 52, 32), DOWN: (3, 32, 26), OUT: (32, 32), NORM: (32,)}
BATCH = 64


def loss(params: dict[str, nn.Parameter], x_BD: Tensor, y_BD: Tensor) -> Tensor:
    """Mean squared error of one layer, all of whose experts see every example."""
    gate_EBF, up_EBF = (x_BD @ params[UP].mT).chunk(2, dim=-1)
    mixed_BD = ((F.silu(gate_EBF) * up_EBF) @ params[DOWN].mT).sum(0) + x_BD @ params[OUT].T
    return (mixed_BD * params[NORM] - y_BD).square().mean()


def trained(ranks: Ranks, config: OptimizerConfig, steps: int) -> dict[str, Tensor]:
    """The parameters after `steps` steps, on this process's slices of batches that do not depend on their number."""
    params = {name: nn.Parameter(parameter(*shape, seed=i).detach() / 6) for i, (name, shape) in enumerate(SHAPES.items())}
    teacher = {name: parameter(*shape, seed=i + 10) for i, (name, shape) in enumerate(SHAPES.items())}
    optimizer = config.build(group_by_role(params), ranks)
    for step in range(steps):
        x_BD = torch.randn(BATCH, 32, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            y_BD = loss_target(teacher, x_BD)
        mine = ranks.share_of(BATCH)
        optimizer.zero_grad()
        loss(params, x_BD[mine], y_BD[mine]).backward()
        grads = ranks.mean({name: p.grad for name, p in params.items() if p.grad is not None})
        for name, param in params.items():
            param.grad = grads[name]
        optimizer.step()
    return {name: param.detach() for name, param in params.items()}


def loss_target(teacher: dict[str, nn.Parameter], x_BD: Tensor) -> Tensor:
    return torch.tanh(x_BD @ teacher[OUT])


def all_trained(ranks: Ranks) -> list[dict[str, Tensor]]:
    return [trained(ranks, config, 10) for config in EVERY_OPTIMIZER]


def counted(ranks: Ranks, config: ShampooConfig, steps: int) -> tuple[dict[str, Tensor], int]:
    """The parameters, and how many factors this process decomposed."""
    counts: list[int] = []
    def counting(factor_NDD: Tensor, exponent: float, eps: float) -> tuple[Tensor, Tensor]:
        counts.append(len(factor_NDD))
        return inverse_roots(factor_NDD, exponent, eps)

    with patch("moe_sweeps.optim.shampoo.inverse_roots", counting):
        params = trained(ranks, config, steps)
    return params, sum(counts)


def test_replicas_of_every_optimizer_are_bit_identical() -> None:
    first, *others = run_on_ranks(all_trained, 3)
    for other in others:
        for config, ours, theirs in zip(EVERY_OPTIMIZER, first, other, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in SHAPES), config.kind


def test_120_steps_of_shampoo_are_those_of_one_process_with_the_whole_batch() -> None:
    """And the ranks share the 21 factors: two of each of 3 x 3 + 1 matrices, one of the norm."""
    config = ShampooConfig(base_lr=0.003)
    (first, some), (second, others) = run_on_ranks(counted, 2, config, 120)
    alone, start = trained(ALONE, config, 120), trained(ALONE, config, 0)
    for name in SHAPES:
        assert torch.equal(first[name], second[name])
        moved = (alone[name] - start[name]).norm()
        assert (first[name] - alone[name]).norm() < 1e-5 * moved, name
    assert some + others == 21
    assert abs(some - others) <= 3
