"""The update of a run's parameters: optimizer, schedules and learning-rate split behind one object.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.sharding import is_sharded, part_of_optimizer_state
from moe_sweeps.optim.build import divides_gradients, step_dividing
from moe_sweeps.optim.expert_steps import ExpertSteps
from moe_sweeps.optim.groups import ParamGroup, expected_roles, parameter_groups
from moe_sweeps.optim.lr_split import LoadBasedConfig, LrSplitConfig, Ratios, Role

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig


@dataclass(frozen=True, slots=True)
class AppliedRates:
    """The learning rates of one step. `expert_lr_LE` is given where rates of single experts follow the load."""

    base: float  # optimizer.base_lr * schedule
    by_role: dict[str, float]
    expert_lr_LE: Tensor | None = None  # float64
    permutation_LE: Tensor | None = None  # int64; with shuffled ratios, the expert whose load expert e's rate follows


class Stepper:
    """Makes the updates of one run. Its state is the optimizer's, and the moving average of a load-based split."""

    def __init__(self, run: RunConfig, model: nn.Module, ranks: Ranks = ALONE) -> None:
        self.run = run
        split, groups = groups_of(run, model)
        self.optimizer: torch.optim.Optimizer = run.optimizer.build(groups, ranks)
        self._is_sharded = is_sharded(model)
        self.ratios = split.ratios(run)
        self._expert_steps = None
        if isinstance(split, LoadBasedConfig) and self.ratios is not None:
            experts = next(group for group in groups if group.role is Role.expert)
            self._expert_steps = ExpertSteps(self.optimizer, experts, scale_decay=split.scale_decay)

    def divides(self, device: torch.device) -> bool:
        """Whether `step` can divide the gradients."""
        return divides_gradients(self.optimizer, device) and not self._is_sharded

    def step(self, step: int, load_LE: Tensor | None, divisor: Tensor | None = None) -> AppliedRates:
        """Update the parameters from their gradients, divided by `divisor` if there is one, then drop the gradients.

        `step` is the number of updates so far. `load_LE` (L, E): picks of the step's global batch, summed over
        micro-batches and ranks; None for a model without experts.
        """
        by_role = self._set_learning_rates(step)
        base = self.run.optimizer.base_lr * self.run.schedule.factor(step, self.run.trainer.steps)
        if self._expert_steps is None or self.ratios is None:
            step_dividing(self.optimizer, divisor)
            applied = AppliedRates(base, by_role)
        else:
            assert load_LE is not None  # only a model with experts has a load-based split
            ratios = self.ratios.next(step + 1, load_LE)
            self._step_experts(self._expert_steps, ratios, divisor)
            expert_lr_LE = ratios.ratio_LE * by_role[Role.expert.value]
            applied = AppliedRates(base, by_role, expert_lr_LE, ratios.permutation_LE)
        self.optimizer.zero_grad(set_to_none=True)
        return applied

    def _step_experts(self, expert_steps: ExpertSteps, ratios: Ratios, divisor: Tensor | None) -> None:
        expert_steps.before()
        step_dividing(self.optimizer, divisor)
        expert_steps.after(ratios.ratio_LE)

    def _set_learning_rates(self, step: int) -> dict[str, float]:
        """The learning rate of each role in update number `step`, before any ratio."""
        by_role = {}
        for group in self.optimizer.param_groups:
            schedule = self.run.schedule.of(Role(group["role"]))
            group["lr"] = group["peak_lr"] * schedule.factor(step, self.run.trainer.steps)
            by_role[group["role"]] = group["lr"]
        return by_role

    def state_dict(self) -> dict[str, Any]:
        ratios = {} if self.ratios is None else self.ratios.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "ratios": ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(part_of_optimizer_state(state["optimizer"], self.optimizer))
        if self.ratios is not None:
            self.ratios.load_state_dict(state["ratios"])


def groups_of(run: RunConfig, model: nn.Module) -> tuple[LrSplitConfig, list[ParamGroup]]:
    """The learning-rate split of a run, and the parameter groups of `model` under it.

    The split is in its canonical form. So one that no load can change gives the bits of the static split that it is.
    """
    split = run.lr_split.canonical(run)
    own_decay = {Role.router: run.router.weight_decay}
    roles = expected_roles(run.experts.is_moe)
    return split, parameter_groups(model, split, roles, own_decay, decay_all=run.optimizer.decay_all)
