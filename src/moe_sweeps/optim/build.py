"""Optimizers as options: a config that builds a torch optimizer over the roles' parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from moe_sweeps.config.registry import Component, component, knob
from moe_sweeps.optim.groups import ParamGroup


@dataclass(slots=True)
class OptimizerConfig(Component):
    """Base of the optimizers. `base_lr` is the peak learning rate that `lr_split` multiplies, role by role."""

    # A step with twice the learning rate is twice the step, decoupled decay included. Load-based splits rest on it.
    LINEAR_IN_LR: ClassVar[bool] = True

    base_lr: float = knob(1e-3, gt=0)
    weight_decay: float = knob(0.1, ge=0)

    def build(self, groups: Sequence[ParamGroup]) -> torch.optim.Optimizer:
        raise NotImplementedError


@component("optimizer", "adamw")
@dataclass(slots=True)
class AdamWConfig(OptimizerConfig):
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    kind: str = "adamw"
    beta1: float = knob(0.9, ge=0, lt=1)
    beta2: float = knob(0.95, ge=0, lt=1)
    eps: float = knob(1e-8, gt=0)

    def build(self, groups: Sequence[ParamGroup]) -> torch.optim.Optimizer:
        params = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        # The fused kernel makes one pass over the state where the plain one makes a dozen.
        return torch.optim.AdamW(params, lr=self.base_lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)
