"""Optimizers as options: a config that builds a torch optimizer over the roles' parameter groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from moe_sweeps.config.registry import Component, component, knob
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.ranks import ALONE, Ranks


@dataclass(slots=True)
class OptimizerConfig(Component):
    """Base of the optimizers. `base_lr` is the peak learning rate that `lr_split` multiplies, role by role."""

    # A step is p - lr * (decay * p + direction), where direction does not depend on lr: what scaling a step relies on.
    LINEAR_IN_LR: ClassVar[bool] = True
    # The step of an entry needs that entry alone, wherever the others are: what engine.parallel=fsdp relies on.
    ELEMENTWISE: ClassVar[bool] = False

    base_lr: float = knob(1e-3, gt=0)  # peak learning rate of a multiplier of 1
    weight_decay: float = knob(0.1, ge=0)  # decoupled, times the learning rate; not of norms

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        """The optimizer of `groups`. Some share their work among `ranks`; all leave the same bits on each."""
        raise NotImplementedError


@component("optimizer", "adamw")
@dataclass(slots=True)
class AdamWConfig(OptimizerConfig):
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    ELEMENTWISE: ClassVar[bool] = True

    kind: str = "adamw"
    beta1: float = knob(0.9, ge=0, lt=1)  # of the first moment
    beta2: float = knob(0.95, ge=0, lt=1)  # of the second moment
    eps: float = knob(1e-8, gt=0)  # added to the root of the second moment

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        params = [group.as_torch(self.base_lr, self.weight_decay) for group in groups]
        # The fused kernel makes one pass over the state where the plain one makes a dozen.
        return torch.optim.AdamW(params, lr=self.base_lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors that the optimizer keeps between steps."""
    kept = {k: v for k, v in optimizer.state_dict().items() if k != "param_groups"}
    return sum(tensor.nbytes for tensor in _tensors(kept))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
