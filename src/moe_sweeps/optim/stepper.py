"""The update of a run's parameters: optimizer, schedules and learning-rate split, as one object that the trainer calls.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from moe_sweeps.optim.expert_steps import ExpertSteps
from moe_sweeps.optim.groups import ParamGroup, expected_roles, parameter_groups
from moe_sweeps.optim.lr_split import LoadBasedConfig, LrSplitConfig, Ratios, Role
from moe_sweeps.optim.ranks import ALONE, Ranks
from moe_sweeps.sharding import part_of_optimizer_state

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class AppliedRates:
    """The learning rates of one step. Those of single experts are there where they differ by load."""

    base: float  # optimizer.base_lr * schedule
    by_role: dict[str, float]
    expert_lr_LE: Tensor | None = None  # float64
    permutation_LE: Tensor | None = None  # int64, where ratios were shuffled: whose loads expert e's rate follows


class Stepper:
    """Takes the steps of one run. State: the optimizer's, and the moving average of a load-based split."""

    def __init__(self, run: RunConfig, model: nn.Module, ranks: Ranks = ALONE) -> None:
        self.run = run
        split, groups = groups_of(run, model)
        self.optimizer: torch.optim.Optimizer = run.optimizer.build(groups, ranks)
        self.ratios = split.ratios(run)
        self._expert_steps = None
        if isinstance(split, LoadBasedConfig) and self.ratios is not None:
            experts = next(group for group in groups if group.role is Role.expert)
            self._expert_steps = ExpertSteps(self.optimizer, experts, scale_decay=split.scale_decay)

    def step(self, step: int, load_LE: Tensor | None) -> AppliedRates:
        """Update the parameters from their gradients, and forget these.

        `step` is the number of updates so far. `load_LE` (L, E): picks of the step's global batch, summed over
        micro-batches and ranks; None for a model without experts.
        """
        by_role = self._set_learning_rates(step)
        base = self.run.optimizer.base_lr * self.run.schedule.factor(step, self.run.trainer.steps)
        if self._expert_steps is None or self.ratios is None:
            self.optimizer.step()
            applied = AppliedRates(base, by_role)
        else:
            assert load_LE is not None  # only a model with experts has a load-based split
            ratios = self.ratios.next(step + 1, load_LE)
            self._step_experts(self._expert_steps, ratios)
            expert_lr_LE = ratios.ratio_LE * by_role[Role.expert.value]
            applied = AppliedRates(base, by_role, expert_lr_LE, ratios.permutation_LE)
        self.optimizer.zero_grad(set_to_none=True)
        return applied

    def _step_experts(self, expert_steps: ExpertSteps, ratios: Ratios) -> None:
        expert_steps.before()
        self.optimizer.step()
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
    """The learning-rate split of a run and the groups that it gives the parameters of `model`.

    The split is in its plainest form, so that one which no load can change is taken as what it is, to the last bit.
    """
    split = run.lr_split.canonical(run)
    own_decay = {Role.router: run.router.weight_decay}
    return split, parameter_groups(model, split, expected_roles(run.experts.is_moe), own_decay)
