"""Loss-free balancing: a bias on the selection that follows the loads.

Axes: T tokens, E experts, L MoE layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moe_sweeps.balancing.base import Balancer, BalancerConfig
from moe_sweeps.config.registry import component, knob

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


class BiasTarget(Enum):
    """What the loss-free bias is added to for the selection."""

    scores = "scores"
    logits = "logits"


@component("balancer", "lossfree")
@dataclass(slots=True)
class LossFreeConfig(BalancerConfig):
    """A bias per expert that steers the selection and never the weights (arXiv 2408.15664)."""

    kind: str = "lossfree"
    rate: float = knob(1e-3, gt=0)  # the paper: 1e-4 is slow, 1e-2 oscillates
    bias_on: BiasTarget = BiasTarget.scores

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> LossFree:
        return LossFree(self, num_layers, num_experts)


class LossFree(Balancer):
    """b_i += rate * sign(mean(c) - c_i) once per optimizer step; sign(0) = 0; b is float32 and starts at 0."""

    bias_LE: Tensor

    def __init__(self, config: LossFreeConfig, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bias_LE", torch.zeros(num_layers, num_experts, dtype=torch.float32))

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        base_TE = logits_TE if self.config.bias_on is BiasTarget.logits else scores_TE
        return base_TE + self.bias_LE[layer]

    @torch.no_grad()
    def update(self, load_LE: Tensor) -> None:
        # E * mean(c) - E * c has the sign of mean(c) - c, and is exact in integers.
        error_LE = load_LE.sum(dim=1, keepdim=True) - load_LE.shape[1] * load_LE
        self.bias_LE += self.config.rate * error_LE.sign()
