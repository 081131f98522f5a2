"""Muon (kellerjordan.github.io/posts/muon; at scale: arXiv 2502.16982), each expert's matrix by itself.

torch.optim.Muon takes no stacks. Axes: N matrices of one stack, each (O, I), out and in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import component, knob
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.optim.blocked import BlockedOptimizer, Rule, Stack
from moe_sweeps.optim.blocks import Cut, flat
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.groups import ParamGroup, matrices
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.optim.moments import Moments

# The hidden matrices. AdamW trains the rest: embedding (which is the head, too), router and norms.
ORTHOGONALIZED_ROLES = frozenset({Role.expert, Role.dense})

# a x + b x^3 + c x^5 drives singular values into about [0.7, 1.2], fast rather than all the way to 1 (Jordan 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7


class MuonScaling(Choice):
    """What an orthogonalised (O, I) matrix is multiplied by."""

    match_rms_adamw = "match_rms_adamw", "0.2 sqrt(max(O, I)): the size of AdamW's steps (arXiv 2502.16982, eq. 4)"
    original = "original", "sqrt(max(1, O/I)) (Jordan 2024): wants learning rates near 0.02"


@component("optimizer", "muon")
@dataclass(slots=True)
class MuonConfig(OptimizerConfig):
    """Muon on the matrices of experts and dense layers, AdamW on the rest.

    With the default scaling its steps have the root mean square of AdamW's, so that both share `base_lr` and decay.
    """

    WORKING_COPIES: ClassVar[int] = 8

    kind: str = "muon"
    momentum: float = knob(0.95, ge=0, lt=1, doc="momentum of the hidden matrices")
    nesterov: bool = knob(True, doc="Nesterov momentum")
    iterations: int = knob(5, ge=1, doc="Newton-Schulz iterations")
    scaling: MuonScaling = knob(
        MuonScaling.match_rms_adamw, doc="what an orthogonalised (O, I) matrix is multiplied by"
    )
    beta1: float = knob(
        0.9, ge=0, lt=1, doc="decay of the first moment of AdamW, which updates all but the hidden matrices"
    )
    beta2: float = knob(0.95, ge=0, lt=1, doc="decay of AdamW's second moment")
    eps: float = knob(1e-8, gt=0, doc="added to the root of AdamW's second moment")

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        torch_groups = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        return BlockedOptimizer(groups, torch_groups, _cut, self._rule)

    def _rule(self, stack: Stack) -> Rule:
        if stack.role in ORTHOGONALIZED_ROLES:
            return MuonStack(self, stack)
        return Moments(stack, self.beta1, self.beta2, self.eps)

    def scale(self, rows: int, columns: int) -> float:
        """The factor of an orthogonalised matrix."""
        if self.scaling is MuonScaling.original:
            return math.sqrt(max(1, rows / columns))
        return 0.2 * math.sqrt(max(rows, columns))


def _cut(group: ParamGroup) -> Cut:
    return matrices if group.role in ORTHOGONALIZED_ROLES else flat


class MuonStack:
    """Muon on one stack of matrices (N, O, I)."""

    def __init__(self, config: MuonConfig, stack: Stack) -> None:
        self.config = config
        self.scale = config.scale(*stack.shape[1:])
        self.momentum = stack.zeros()

    def direction(self, grad_NOI: Tensor, step: int) -> Tensor:
        """The momentum, orthogonalised matrix by matrix and scaled."""
        self.momentum.lerp_(grad_NOI, 1 - self.config.momentum)
        ahead_NOI = grad_NOI.lerp(self.momentum, self.config.momentum) if self.config.nesterov else self.momentum
        return orthogonalized(ahead_NOI, self.config.iterations).to(grad_NOI.dtype).mul_(self.scale)

    def state(self) -> dict[str, Tensor]:
        return {"momentum": self.momentum}


def orthogonalized(matrix_NOI: Tensor, iterations: int, dtype: torch.dtype | None = None) -> Tensor:
    """Newton-Schulz iterations towards U V^T of every matrix U S V^T, in `dtype`.

    By default that is bfloat16 on a GPU, as published, and the matrix's own on a CPU, where bfloat16 is slow.
    """
    a, b, c = COEFFICIENTS
    x_NOI = matrix_NOI.to(dtype or (torch.bfloat16 if matrix_NOI.is_cuda else matrix_NOI.dtype))
    is_tall = x_NOI.shape[1] > x_NOI.shape[2]
    x_NOI = x_NOI.mT if is_tall else x_NOI  # the shorter side makes the smaller products
    x_NOI = x_NOI / torch.linalg.matrix_norm(x_NOI, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(iterations):
        gram_NOO = x_NOI @ x_NOI.mT
        x_NOI = torch.baddbmm(x_NOI, torch.baddbmm(gram_NOO, gram_NOO, gram_NOO, beta=b, alpha=c), x_NOI, beta=a)
    return x_NOI.mT if is_tall else x_NOI
