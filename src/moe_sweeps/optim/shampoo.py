"""Distributed Shampoo (arXiv 2309.06497), grafted from Adam, with every expert a matrix of its own.

Axes: N blocks of one stack; D one dimension of a block, X the product of its others.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from moe_sweeps.config.registry import component, knob
from moe_sweeps.distributed.ranks import ALONE, Ranks, share_work
from moe_sweeps.errors import ConfigError, MoeSweepsError
from moe_sweeps.optim.blocked import BlockedOptimizer, Stack
from moe_sweeps.optim.blocks import cut_blocks
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.groups import ParamGroup, matrices
from moe_sweeps.optim.moments import Moments
from moe_sweeps.optim.roots import finite, inverse_roots

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

log = logging.getLogger(__name__)

# After more failed decompositions in a row than this, a factor's last root is too old.
FAILURES_IN_A_ROW = 3


@component("optimizer", "shampoo")
@dataclass(slots=True)
class ShampooConfig(OptimizerConfig):
    """Distributed Shampoo. Until `start_step` its steps are AdamW's; from then on Adam gives their length alone."""

    WORKING_COPIES: ClassVar[int] = 6

    kind: str = "shampoo"
    beta1: float = knob(0.9, ge=0, lt=1, doc="decay of the first moment")
    beta2: float = knob(0.95, ge=0, lt=1, doc="decay of the factors and of Adam's second moment")
    eps: float = knob(1e-8, gt=0, doc="added to the diagonal of a factor")
    grafting_eps: float = knob(
        1e-8, gt=0, doc="added to the root of Adam's second moment, which sets the size of a step"
    )
    precondition_frequency: int = knob(100, ge=1, doc="steps from one computation of the roots to the next")
    start_step: int | None = knob(None, ge=1, doc="step of the first roots; null: precondition_frequency")
    max_preconditioner_dim: int = knob(768, ge=1, doc="dimensions are merged up to this size, and larger ones are cut")

    @property
    def first_roots(self) -> int:
        """The first step with preconditioning, counted from 1."""
        return self.precondition_frequency if self.start_step is None else self.start_step

    def is_due(self, step: int) -> bool:
        """Whether roots are computed in step `step`, counted from 1."""
        later = step > self.first_roots and step % self.precondition_frequency == 0
        return step == self.first_roots or later

    def check(self, run: Run) -> Iterator[ConfigError]:
        if self.first_roots < self.precondition_frequency:
            rule = f"roots exist from step optimizer.precondition_frequency ({self.precondition_frequency}) on"
            fix = "Start then or later, or lower the frequency."
            yield ConfigError("optimizer.start_step", self.start_step, rule, fix)
        elif self.first_roots > run.trainer.steps:
            field = "precondition_frequency" if self.start_step is None else "start_step"
            rule = f"training ends before that step (trainer.steps={run.trainer.steps}), so this would be AdamW"
            yield ConfigError(f"optimizer.{field}", self.first_roots, rule, "Lower it, or train longer.")

    def canonical(self, run: Run) -> ShampooConfig:
        stated = self.start_step == self.precondition_frequency
        return dataclasses.replace(self, start_step=None) if stated else self

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        torch_groups = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        return BlockedOptimizer(groups, torch_groups, lambda _: self._cut, partial(ShampooStack, self, ranks))

    def _cut(self, name: str, tensor: Tensor) -> list[Tensor]:
        stacks = matrices(name, tensor)
        return [block for stack in stacks for block in cut_blocks(stack, self.max_preconditioner_dim)]


class ShampooStack:
    """Shampoo on one stack of blocks with any number of dimensions, a factor and a root for each."""

    def __init__(self, config: ShampooConfig, ranks: Ranks, stack: Stack) -> None:
        self.config, self.ranks, self.stack = config, ranks, stack
        self.moments = Moments(stack, config.beta1, config.beta2, config.grafting_eps)
        num_blocks, *dims = stack.shape
        self.exponent = -1 / (2 * len(dims))
        self.factors = [stack.zeros(num_blocks, dim, dim) for dim in dims]
        # The identity until a first decomposition succeeds.
        self.roots = [torch.eye(dim).to(stack.like).repeat(num_blocks, 1, 1) for dim in dims]
        self.failures = [stack.zeros(num_blocks) for _ in dims]  # decompositions in a row

    def direction(self, grad_N: Tensor, step: int) -> Tensor:
        """The preconditioned mean gradient with the norm of Adam's direction, block by block (N, ...)."""
        self.add_to_factors(grad_N)
        adam_N = self.moments.direction(grad_N, step)
        if self.config.is_due(step):
            self.update_roots(step)
        if step < self.config.first_roots:
            return adam_N
        return grafted(self.preconditioned(self.moments.exp_avg / (1 - self.config.beta1**step)), adam_N)

    def add_to_factors(self, grad_N: Tensor) -> None:
        """F_d <- beta2 F_d + (1-beta2) G_d G_d^T, with G_d the gradient unfolded along dimension d."""
        beta2 = self.config.beta2
        for dim, factor_NDD in enumerate(self.factors):
            grad_NDX = unfolded(grad_N, dim)
            factor_NDD.baddbmm_(grad_NDX, grad_NDX.mT, beta=beta2, alpha=1 - beta2)

    def update_roots(self, step: int) -> None:
        """Compute the roots of the bias-corrected factors. Where a decomposition fails, the last root stays.

        Raises:
            Diverged: a factor is not finite.
            MoeSweepsError: one factor's decomposition failed more than a few times in a row.
        """
        corrected = 1 - self.config.beta2**step
        work = partial(inverse_roots, exponent=self.exponent, eps=self.config.eps)
        for dim, (factor_NDD, root_NDD, failures_N) in enumerate(
            zip(self.factors, self.roots, self.failures, strict=True)
        ):
            sound_NDD = finite(factor_NDD, self.stack.owner, self.stack.findings)
            new_NDD, good_N = share_work(self.ranks, sound_NDD / corrected, work, first=self.stack.index + dim)
            torch.where(good_N.view(-1, 1, 1), new_NDD, root_NDD, out=root_NDD)  # root[good] = ... would wait for a GPU
            failures_N.add_(1).mul_(~good_N)
            self.stack.findings.add(failures_N, self._report_failures)

    def preconditioned(self, mean_N: Tensor) -> Tensor:
        """`mean_N` multiplied by each root along its dimension."""
        for dim, root_NDD in enumerate(self.roots):
            along_NDX = root_NDD @ unfolded(mean_N, dim)
            moved = mean_N.movedim(dim + 1, 1).shape
            mean_N = along_NDX.reshape(moved).movedim(1, dim + 1)
        return mean_N

    def state(self) -> dict[str, Tensor]:
        kept = {"factor": self.factors, "root": self.roots, "failures": self.failures}
        by_dim = {f"{name}_{dim}": tensor for name, tensors in kept.items() for dim, tensor in enumerate(tensors)}
        return self.moments.state() | by_dim

    def _report_failures(self, failures_N: list[int]) -> None:
        for block, times in enumerate(failures_N):
            if not times:
                continue
            name = self.stack.owner(block)
            if times > FAILURES_IN_A_ROW:
                raise MoeSweepsError(f"a preconditioner of {name} could not be decomposed {times} times in a row")
            log.warning("a preconditioner of %s could not be decomposed; its last root stays in use", name)


def unfolded(block_N: Tensor, dim: int) -> Tensor:
    """(N, D, X): dimension `dim` of each block as rows, all others as columns. For vectors and matrices a view."""
    return block_N.movedim(dim + 1, 1).flatten(2) if block_N.dim() > 2 else block_N.unsqueeze(2)


def grafted(direction_N: Tensor, adam_N: Tensor) -> Tensor:
    """Each block of `direction_N`, scaled in place to the norm of the same block of `adam_N`."""
    dims = tuple(range(1, adam_N.dim()))
    length_N, wanted_N = (torch.linalg.vector_norm(x, dim=dims, keepdim=True) for x in (direction_N, adam_N))
    return direction_N.mul_(wanted_N / (length_N + 1e-16))
