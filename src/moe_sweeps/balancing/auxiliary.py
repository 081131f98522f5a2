"""The auxiliary load-balancing loss in three normalisations and three scopes, and the router z-loss.

Axes: T tokens, B sequences of S tokens, E experts, L MoE layers, P picks of one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from moe_sweeps.balancing.base import Balancer, BalancerConfig
from moe_sweeps.balancing.load import count_by_group
from moe_sweeps.config.groups import AuxConfig, AuxNormalization, AuxScope
from moe_sweeps.config.registry import component
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import Routing

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@component("balancer", "aux")
@dataclass(slots=True)
class AuxBalancerConfig(BalancerConfig):
    """Auxiliary loss with the knobs of `aux`."""

    READS: ClassVar[frozenset[str]] = frozenset({"aux"})
    kind: str = "aux"

    def build(self, run: Run, num_layers: int, num_experts: int) -> AuxBalancer:
        return AuxBalancer(run.aux)


class AuxBalancer(Balancer):
    """Adds `aux_loss`, times its coefficient, to the loss of every micro-batch."""

    def __init__(self, aux: AuxConfig) -> None:
        super().__init__()
        self.aux = aux

    @property
    def needs_step_load(self) -> bool:
        return self.aux.scope is AuxScope["global"]

    def loss(
        self,
        routings: Sequence[Routing],
        *,
        num_sequences: int = 1,
        step_load_LE: Tensor | None = None,
    ) -> Tensor:
        term = aux_loss(
            routings,
            normalization=self.aux.normalization,
            scope=self.aux.scope,
            num_sequences=num_sequences,
            step_load_LE=step_load_LE,
        )
        return self.aux.coef * term


def balance_loss(*, counts_E: Tensor, probs_TE: Tensor) -> Tensor:
    """L_norm = E * sum_i f_i P_i with f_i = c_i/(kT), P_i = mean_t p_ti (Switch, arXiv 2101.03961), a scalar.

    1 when balanced, E/k when k experts take all tokens. f has no gradient. With leading axes, (B, E) and (B, S, E), it
    is the mean over B.
    """
    f_E = counts_E.to(probs_TE.dtype) / counts_E.sum(dim=-1, keepdim=True)
    return probs_TE.shape[-1] * (f_E * probs_TE.mean(dim=-2)).sum(dim=-1).mean()


def aux_loss(
    routings: Sequence[Routing],
    *,
    normalization: AuxNormalization,
    scope: AuxScope = AuxScope.micro,
    num_sequences: int = 1,
    step_load_LE: Tensor | None = None,
) -> Tensor:
    """The auxiliary loss of one micro-batch over all layers, without its coefficient (AuxNormalization, AuxScope).

    With L_norm as in `balance_loss`: switch = mean, megatron = sum over layers, talk = mean * k/E. The arguments after
    `scope` are those of `Balancer.loss`.

    Raises:
        ConfigError: scope=sequence, and the tokens do not divide into `num_sequences` sequences.
    """
    if scope is AuxScope.sequence:
        _require_equal_lengths(routings[0].probs_TE.shape[0], num_sequences)
        terms = [_sequence_balance_loss(r, num_sequences) for r in routings]
    elif scope is AuxScope["global"] and step_load_LE is not None:
        pairs = zip(step_load_LE, routings, strict=True)
        terms = [balance_loss(counts_E=counts_E, probs_TE=r.probs_TE) for counts_E, r in pairs]
    else:
        terms = [balance_loss(counts_E=r.counts_E, probs_TE=r.probs_TE) for r in routings]
    per_layer_L = torch.stack(terms)
    if normalization is AuxNormalization.megatron:
        return per_layer_L.sum()
    if normalization is AuxNormalization.switch:
        return per_layer_L.mean()
    return per_layer_L.mean() * (routings[0].top_k / routings[0].probs_TE.shape[-1])


def _sequence_balance_loss(routing: Routing, num_sequences: int) -> Tensor:
    """`balance_loss` of each sequence, averaged over sequences."""
    num_experts = routing.probs_TE.shape[-1]
    ids_BP = routing.ids_TK.reshape(num_sequences, -1)
    sequence_B = torch.arange(num_sequences, device=ids_BP.device)
    counts_BE = count_by_group(ids_BP, sequence_B, num_sequences, num_experts)
    return balance_loss(counts_E=counts_BE, probs_TE=routing.probs_TE.view(num_sequences, -1, num_experts))


def _require_equal_lengths(tokens: int, num_sequences: int) -> None:
    """Raise ConfigError unless `tokens` divide into `num_sequences` sequences of one length."""
    if tokens % num_sequences:
        rule = f"it needs sequences of one length, and {tokens} tokens are not {num_sequences} of them"
        fix = "Use aux.scope=micro or aux.scope=global, or a batch of equal sequences."
        raise ConfigError("aux.scope", AuxScope.sequence.name, rule, fix)


def z_loss(routings: Sequence[Routing]) -> Tensor:
    """Router z-loss without its coefficient: mean over layers and tokens of logsumexp(z)^2 (arXiv 2202.08906)."""
    return torch.stack([r.logits_TE.logsumexp(dim=-1).square().mean() for r in routings]).mean()
