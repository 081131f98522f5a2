"""SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's factors, each expert's matrix by itself.

Axes: N matrices of one stack, each (O, I), out and in; D one of the two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from moe_sweeps.config.registry import component, knob
from moe_sweeps.distributed.ranks import ALONE, Ranks, share_work
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.blocked import BlockedOptimizer, Rule, Stack
from moe_sweeps.optim.blocks import Cut, flat
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.groups import ParamGroup, matrices
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.optim.moments import Moments, adam_direction
from moe_sweeps.optim.roots import eigh, finite


@component("optimizer", "soap")
@dataclass(slots=True)
class SoapConfig(OptimizerConfig):
    """SOAP on all matrices, AdamW on norms. Its first step finds a basis and moves nothing, as its authors' code."""

    WORKING_COPIES: ClassVar[int] = 3

    kind: str = "soap"
    beta1: float = knob(0.9, ge=0, lt=1, doc="decay of the first moment")
    beta2: float = knob(0.95, ge=0, lt=1, doc="decay of the second moment")
    shampoo_beta: float = knob(0.95, ge=0, lt=1, doc="decay of the factors")
    eps: float = knob(1e-8, gt=0, doc="added to the root of the second moment")
    precondition_frequency: int = knob(10, ge=1, doc="steps from one change of the basis to the next")
    max_preconditioner_dim: int = knob(2048, ge=1, doc="a longer side keeps its own basis, and so does a vocabulary")

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        torch_groups = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        return BlockedOptimizer(groups, torch_groups, _cut, partial(_rule, self, ranks))


def _cut(group: ParamGroup) -> Cut:
    return flat if group.role is Role.norm else matrices


def _rule(config: SoapConfig, ranks: Ranks, stack: Stack) -> Rule:
    if stack.role is Role.norm:
        return AfterFirst(Moments(stack, config.beta1, config.beta2, config.eps))
    return SoapStack(config, ranks, stack)


class AfterFirst:
    """Adam that skips the first step, as SOAP does."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments

    def direction(self, grad_N: Tensor, step: int) -> Tensor | None:
        return self.moments.direction(grad_N, step - 1) if step > 1 else None

    def state(self) -> dict[str, Tensor]:
        return self.moments.state()


class SoapStack:
    """SOAP on one stack of matrices (N, O, I). A side without a basis is not rotated."""

    def __init__(self, config: SoapConfig, ranks: Ranks, stack: Stack) -> None:
        self.config, self.ranks, self.stack = config, ranks, stack
        num, *sides = stack.shape
        # A vocabulary's factor would be larger than the table itself (section 3 of the paper).
        first = 1 if stack.role is Role.embedding else 0
        self.sides = [s for s in range(first, 2) if sides[s] <= config.max_preconditioner_dim]
        self.exp_avg, self.exp_avg_sq = stack.zeros(), stack.zeros()  # the second one in the eigenbasis
        self.factors = {s: stack.zeros(num, sides[s], sides[s]) for s in self.sides}
        self.bases = {s: stack.zeros(num, sides[s], sides[s]) for s in self.sides}  # eigenvectors in columns

    def direction(self, grad_NOI: Tensor, step: int) -> Tensor | None:
        """Adam's direction in the eigenbasis, rotated back (algorithm 3); None in step 1, which has no basis."""
        if step == 1:
            self._add_to_factors(grad_NOI)
            self._find_bases()
            return None
        config, adam_step = self.config, step - 1
        self.exp_avg.lerp_(grad_NOI, 1 - config.beta1)
        rotated_NOI = self.rotated(grad_NOI)
        self.exp_avg_sq.mul_(config.beta2).addcmul_(rotated_NOI, rotated_NOI, value=1 - config.beta2)
        mean_NOI = self.rotated(self.exp_avg)
        adam_NOI = adam_direction(mean_NOI, self.exp_avg_sq, adam_step, config.beta1, config.beta2, config.eps)
        direction_NOI = self.rotated_back(adam_NOI)
        self._add_to_factors(grad_NOI)
        if adam_step % config.precondition_frequency == 0:
            self._improve_bases()
        return direction_NOI

    def rotated(self, x_NOI: Tensor) -> Tensor:
        """Q_L^T X Q_R."""
        x_NOI = self.bases[0].mT @ x_NOI if 0 in self.bases else x_NOI
        return x_NOI @ self.bases[1] if 1 in self.bases else x_NOI

    def rotated_back(self, x_NOI: Tensor) -> Tensor:
        """Q_L X Q_R^T."""
        x_NOI = self.bases[0] @ x_NOI if 0 in self.bases else x_NOI
        return x_NOI @ self.bases[1].mT if 1 in self.bases else x_NOI

    def state(self) -> dict[str, Tensor]:
        factors = {f"factor_{side}": factor for side, factor in self.factors.items()}
        bases = {f"basis_{side}": basis for side, basis in self.bases.items()}
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq} | factors | bases

    def _add_to_factors(self, grad_NOI: Tensor) -> None:
        """L <- beta L + (1-beta) G G^T, R <- beta R + (1-beta) G^T G."""
        beta = self.config.shampoo_beta
        for side, factor_NDD in self.factors.items():
            grad_NDX = grad_NOI.mT if side else grad_NOI
            factor_NDD.baddbmm_(grad_NDX, grad_NDX.mT, beta=beta, alpha=1 - beta)

    def _find_bases(self) -> None:
        """The first bases: eigenvectors, largest eigenvalue first."""
        for side, factor_NDD in self.factors.items():
            self._share(side, factor_NDD, _eigenvectors)

    def _improve_bases(self) -> None:
        """One power iteration and QR on each side (algorithm 4), directions of the largest eigenvalues first."""
        for side, factor_NDD in self.factors.items():
            power_NDD = factor_NDD @ self.bases[side]
            order_ND = (self.bases[side] * power_NDD).sum(dim=1).argsort(dim=1, descending=True, stable=True)
            moved = order_ND.unsqueeze(2 - side)  # the second moments move with their directions
            self.exp_avg_sq.copy_(self.exp_avg_sq.take_along_dim(moved, dim=1 + side))
            self._share(side, power_NDD.take_along_dim(order_ND.unsqueeze(1), dim=2), _orthonormal_columns)

    def _share(self, side: int, matrix_NDD: Tensor, work: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """Set the bases of one side to `work` of `matrix_NDD`, of which each rank does its share.

        Raises:
            Diverged: a factor is not finite.
            MoeSweepsError: a decomposition failed.
        """
        matrix_NDD = finite(matrix_NDD, self.stack.owner, self.stack.findings)
        basis_NDD, good_N = share_work(self.ranks, matrix_NDD, work, first=self.stack.index + side)
        self.stack.findings.add(~good_N, self._refuse_failures)
        self.bases[side].copy_(basis_NDD)

    def _refuse_failures(self, failed_N: list[int]) -> None:
        if any(failed_N):
            name = self.stack.owner(failed_N.index(1))
            raise MoeSweepsError(f"a preconditioner of {name} could not be decomposed")


def _eigenvectors(factor_NDD: Tensor) -> tuple[Tensor, Tensor]:
    _, vectors_NDD, good_N = eigh(factor_NDD)
    return vectors_NDD.flip(2), good_N


def _orthonormal_columns(matrix_NDD: Tensor) -> tuple[Tensor, Tensor]:
    basis_NDD = torch.linalg.qr(matrix_NDD)[0]
    return basis_NDD, basis_NDD.isfinite().all(dim=(1, 2))
