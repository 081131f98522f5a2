"""Learning rates of single experts on stacked parameters, from one optimizer step at their role's rate.

Axes: L MoE layers, E experts; an expert parameter is a stack (E, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.sharding import own_part, own_rows

_LAYER = re.compile(r"(.*)\.experts\.")


class ExpertSteps:
    """Around an optimizer step: moves each expert by its ratio of it, old + r_i (new - old).

    Exactly a learning rate of r_i times the role's for an optimizer whose step is linear in its learning rate. A
    decoupled decay, p <- p - lr * decay * p, is part of that step; with `scale_decay=False` it keeps the role's rate:
    (1 - lr * decay) old + r_i (new - (1 - lr * decay) old). Costs one copy of the experts for the time of the step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, experts: ParamGroup, *, scale_decay: bool) -> None:
        self.scale_decay = scale_decay
        layers = [_layer_of(name) for name in experts.names]
        number = {layer: i for i, layer in enumerate(dict.fromkeys(layers))}
        self._layer_of = {id(p): number[layer] for p, layer in zip(experts.params, layers, strict=True)}
        self._groups = [g for g in optimizer.param_groups if g["role"] == Role.expert.value]
        self._before: list[Tensor] = []
        if {id(p) for _, p in self._params()} != self._layer_of.keys():
            raise MoeSweepsError("the optimizer's groups of role expert do not hold exactly the experts' parameters")

    @torch.no_grad()
    def before(self) -> None:
        """Note the parameters; the groups have the learning rates of the step."""
        self._before = [own_part(p.detach()) * self._undecayed(group) for group, p in self._params()]

    @torch.no_grad()
    def after(self, ratio_LE: Tensor) -> None:
        """Replace the step that the optimizer took by its share `ratio_LE` (L, E)."""
        for (_, p), old in zip(self._params(), self._before, strict=True):
            ratio_E = own_rows(ratio_LE[self._layer_of[id(p)]].to(p.dtype), like=p)
            own = own_part(p.detach())
            torch.lerp(old, own, ratio_E.view(-1, *[1] * (p.dim() - 1)), out=own)
        self._before = []

    def _undecayed(self, group: dict[str, Any]) -> float:
        """What the decay that follows no ratio leaves of a parameter; times 1 is a copy."""
        return 1.0 if self.scale_decay else 1.0 - group["lr"] * group["weight_decay"]

    def _params(self) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
        for group in self._groups:
            for p in group["params"]:
                yield group, p


def _layer_of(name: str) -> str:
    """What stands before the experts in a parameter's name, one for each MoE layer."""
    found = _LAYER.match(name)
    assert found is not None  # the name has the role of an expert
    return found.group(1)
