"""Balancers: what keeps the experts' loads alike, as one class with its config each.

A balancer may add a loss (seen by autograd), steer the selection (what top-k ranks), and keep state that is updated
once per optimizer step from the summed loads. It never looks at anything but `Routing` records and loads.

Axes: T tokens, E experts, L MoE layers. Counts c_i are picks of expert i; sum_i c_i = kT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob, readers_of
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


class AuxNormalization(Enum):
    """What "coefficient 0.1" means; docs/definitions.md has the conversions."""

    switch = "switch"  # coef * mean over layers of L_norm
    megatron = "megatron"  # coef * sum over layers of L_norm
    talk = "talk"  # coef * mean over layers of sum_i (c_i/T) P_i


class AuxScope(Enum):
    """Over which tokens the loads f of the auxiliary loss are counted."""

    micro = "micro"  # each micro-batch on each rank


class BiasTarget(Enum):
    """What the loss-free bias is added to for the selection."""

    scores = "scores"
    logits = "logits"


@component("aux", "default")
@dataclass(slots=True)
class AuxConfig(Component):
    """The auxiliary load-balancing loss. A top-level group, so that one line can sweep it beside other balancers."""

    kind: str = "default"
    coef: float = knob(0.1, ge=0)
    normalization: AuxNormalization = AuxNormalization.talk
    scope: AuxScope = AuxScope.micro

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        if not run.experts.is_moe:
            return {"": DENSE_HAS_NO_ROUTER}
        return {} if "aux" in run.balancer.READS else {"": Unread(f"balancer={run.balancer.kind}", readers_of("aux"))}


@dataclass(slots=True)
class BalancerConfig(Component):
    """Base of the balancers' configs."""

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        """The balancer of a model with `num_layers` MoE layers of `num_experts` experts."""
        raise NotImplementedError

    def unread(self, run: RunConfig) -> dict[str, Unread]:
        return {} if run.experts.is_moe else {"": DENSE_HAS_NO_ROUTER}


class Balancer(nn.Module):
    """Base class and `balancer=none`: no loss, no steering, no state."""

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """What top-k ranks in `layer`, (T, E). Called without gradient."""
        return logits_TE

    def loss(self, routings: Sequence[Routing]) -> Tensor | None:
        """A scalar to add to one micro-batch's loss, coefficient included, or None."""
        return None

    def update(self, load_LE: Tensor) -> None:
        """Change state, once per optimizer step. `load_LE` (L, E) int64: picks of the step's whole global batch."""


@component("balancer", "none")
@dataclass(slots=True)
class NoBalancerConfig(BalancerConfig):
    """Nothing balances the experts: the control."""

    kind: str = "none"

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Balancer:
        return Balancer()


@component("balancer", "aux")
@dataclass(slots=True)
class AuxBalancerConfig(BalancerConfig):
    """Auxiliary loss with the knobs of `aux`."""

    READS: ClassVar[frozenset[str]] = frozenset({"aux"})
    kind: str = "aux"

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> AuxBalancer:
        return AuxBalancer(run.aux)


class AuxBalancer(Balancer):
    """Adds `aux_loss` of every micro-batch."""

    def __init__(self, aux: AuxConfig) -> None:
        super().__init__()
        self.aux = aux

    def loss(self, routings: Sequence[Routing]) -> Tensor:
        return self.aux.coef * aux_loss(routings, normalization=self.aux.normalization)


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


def balance_loss(*, counts_E: Tensor, probs_TE: Tensor) -> Tensor:
    """L_norm = E * sum_i f_i P_i with f_i = c_i/(kT), P_i = mean_t p_ti (Switch, arXiv 2101.03961), a scalar.

    1 when balanced, E/k when k experts take everything. f carries no gradient.
    """
    f_E = counts_E.to(probs_TE.dtype) / counts_E.sum()
    return probs_TE.shape[-1] * (f_E * probs_TE.mean(dim=0)).sum()


def aux_loss(routings: Sequence[Routing], *, normalization: AuxNormalization) -> Tensor:
    """The auxiliary loss of one micro-batch over all layers, without its coefficient (definitions: AuxNormalization).

    With L_norm as in `balance_loss`: switch = mean, megatron = sum over layers, talk = mean * k/E.
    """
    per_layer_L = torch.stack([balance_loss(counts_E=r.counts_E, probs_TE=r.probs_TE) for r in routings])
    if normalization is AuxNormalization.megatron:
        return per_layer_L.sum()
    if normalization is AuxNormalization.switch:
        return per_layer_L.mean()
    return per_layer_L.mean() * (routings[0].top_k / routings[0].probs_TE.shape[-1])


def z_loss(routings: Sequence[Routing]) -> Tensor:
    """Router z-loss without its coefficient: mean over layers and tokens of logsumexp(z)^2 (arXiv 2202.08906)."""
    return torch.stack([r.logits_TE.logsumexp(dim=-1).square().mean() for r in routings]).mean()
