"""Optimizers over tensors that a test makes up, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.optim import OptimizerConfig
from moe_sweeps.optim.groups import ParamGroup, role_of
from moe_sweeps.optim.lr_split import Role

# What lets an optimizer reach all of its stages within a few steps.
_SOON: dict[str, dict[str, int]] = {"shampoo": {"precondition_frequency": 3}, "soap": {"precondition_frequency": 2}}


def soon(kind: str) -> OptimizerConfig:
    """The registered optimizer `kind` in a setting that reaches all of its stages within a few steps."""
    config = REGISTRY["optimizer"][kind](**_SOON.get(kind, {}))  # type: ignore[arg-type]
    assert isinstance(config, OptimizerConfig)
    return config


EVERY_OPTIMIZER = [soon(kind) for kind in REGISTRY["optimizer"]]


def kind_of(config: OptimizerConfig) -> str:
    return config.kind


def group_by_role(params: dict[str, nn.Parameter], multiplier: float = 1.0) -> list[ParamGroup]:
    """The groups of parameters whose names say their roles."""
    members = {role: [name for name in params if role_of(name) is role] for role in Role}
    return [
        ParamGroup(role, tuple(names), tuple(params[name] for name in names), multiplier)
        for role, names in members.items()
        if names
    ]


def parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype))


def gradients(shape: Sequence[int], steps: int, seed: int = 1) -> list[Tensor]:
    """Gradients of `steps` steps in float64, correlated within a step as real ones are."""
    generator = torch.Generator().manual_seed(seed)
    mix = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in shape]
    found = []
    for _ in range(steps):
        grad = torch.randn(*shape, generator=generator, dtype=torch.float64)
        for dim, matrix in enumerate(mix):
            grad = torch.tensordot(matrix, grad.movedim(dim, 0), dims=1).movedim(0, dim) / len(matrix) ** 0.5
        found.append(grad.contiguous())
    return found


def train(
    config: OptimizerConfig, params: dict[str, nn.Parameter], grads: dict[str, list[Tensor]]
) -> torch.optim.Optimizer:
    """Step through `grads`, name by name; the parameters change in place."""
    optimizer = config.build(group_by_role(params))
    go_on(optimizer, params, grads)
    return optimizer


def go_on(optimizer: torch.optim.Optimizer, params: dict[str, nn.Parameter], grads: dict[str, list[Tensor]]) -> None:
    for step in range(len(next(iter(grads.values())))):
        for name, param in params.items():
            param.grad = grads[name][step].to(param.dtype)
        optimizer.step()
