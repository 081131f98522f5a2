"""Learning rates of single experts in stacked parameters, by scaling an optimizer step made at their role's rate.

Axes: L MoE layers, E experts; an expert parameter is a stack (E, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from moe_sweeps.distributed.sharding import own_part, own_rows
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.optim.lr_split import Role

_LAYER = re.compile(r"(.*)\.experts\.")


class ExpertSteps:
    """Scales the optimizer step of each expert i by its ratio: old + r_i (new - old).

    If the optimizer's step is linear in its learning rate, this is exactly a learning rate of r_i times the role's.
    Decoupled decay, p <- p - lr * decay * p, is part of that step. With `scale_decay=False` decay keeps the role's
    rate: (1 - lr * decay) old + r_i (new - (1 - lr * decay) old). During the step it needs a copy of the experts.
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
        """Copy the parameters before the step. The groups must have the learning rates of the step."""
        self._before = [own_part(p.detach()) * self._undecayed(group) for group, p in self._params()]

    @torch.no_grad()
    def after(self, ratio_LE: Tensor) -> None:
        """Scale the step that the optimizer made by `ratio_LE` (L, E)."""
        for (_, p), old in zip(self._params(), self._before, strict=True):
            ratio_E = own_rows(ratio_LE[self._layer_of[id(p)]].to(p.dtype), like=p)
            own = own_part(p.detach())
            torch.lerp(old, own, ratio_E.view(-1, *[1] * (p.dim() - 1)), out=own)
        self._before = []

    def _undecayed(self, group: dict[str, Any]) -> float:
        """The factor by which decay at the role's rate shrinks a parameter; 1 where decay is scaled with the step."""
        return 1.0 if self.scale_decay else 1.0 - group["lr"] * group["weight_decay"]

    def _params(self) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
        for group in self._groups:
            for p in group["params"]:
                yield group, p


def _layer_of(name: str) -> str:
    """The part of a parameter's name before `.experts.`, which identifies the MoE layer."""
    found = _LAYER.match(name)
    assert found is not None  # the name has the role of an expert
    return found.group(1)
