"""Quantile balancing: thresholds on the scores at which every expert gets the same number of tokens.

Axes: T tokens (of the optimizer step in `update`), E experts, L MoE layers; k picks per token, C = kT/E per expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moe_sweeps.balancing.base import Balancer, BalancerConfig, uneven_picks
from moe_sweeps.config.registry import component, knob
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import RouterConfig, Routing

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@component("balancer", "quantile")
@dataclass(slots=True)
class QuantileConfig(BalancerConfig):
    """Thresholds from the last step's scores in place of a bias that creeps; no coefficient and no rate."""

    kind: str = "quantile"
    iterations: int = knob(8, ge=1)  # of `quantile_thresholds` per step, each beginning where the last ended

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Quantile:
        return Quantile(self, run.router, num_layers, num_experts)

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        yield from uneven_picks(run, "trainer.batch_size", run.trainer.batch_size)


class Quantile(Balancer):
    """Top-k ranks s - beta; beta moves once per optimizer step, by the scores of its whole global batch.

    A step is routed by the thresholds of the steps before it, so a token's experts never depend on later tokens. Until
    `update`, the scores of the step's micro-batches are kept: T*E float32 per layer. Every process of a run then
    gathers those of all others.
    """

    beta_LE: Tensor

    def __init__(self, config: QuantileConfig, router: RouterConfig, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.config, self.router = config, router
        self.register_buffer("beta_LE", torch.zeros(num_layers, num_experts, dtype=torch.float32))
        self._seen: list[list[Tensor]] = []  # [micro-batch][layer], (T, E); empty between steps
        self._top_k = 0

    def ranking_TE(self, layer: int, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        return scores_TE - self.beta_LE[layer]

    @torch.no_grad()
    def observe(self, routings: Sequence[Routing], *, progress: float = 0.0) -> None:
        self._seen.append([self.router.scores_TE(r.logits_TE.detach()) for r in routings])
        self._top_k = routings[0].top_k

    @torch.no_grad()
    def update(self, load_LE: Tensor, *, progress: float = 0.0) -> None:
        for beta_E, parts in zip(self.beta_LE, zip(*self._seen, strict=True), strict=True):
            scores_TE = torch.cat(self.ranks.gather(torch.cat(parts))).to(beta_E.dtype)
            beta_E.copy_(quantile_thresholds(scores_TE, beta_E, self._top_k, self.config.iterations))
        self._seen = []


def quantile_thresholds(scores_TE: Tensor, beta_E: Tensor, top_k: int, iterations: int) -> Tensor:
    """beta (E,) after `iterations` rounds from `beta_E`, each of them

        alpha_t = (k+1)-th largest over i of s_ti - beta_i,   beta_i = (C+1)-th largest over t of s_ti - alpha_t.

    These are coordinate steps on the dual of the assignment. Where they come to rest, at most C = kT/E tokens are
    above s_ti = alpha_t + beta_i and at least C reach it, for every expert: balance up to ties. Such ties are many, for
    every token's (k+1)-th expert is one, so an expert may end a few tokens (in practice fewer than E) short of C, and
    others have them. With k = E every expert has every token.
    """
    num_tokens, num_experts = scores_TE.shape
    if top_k == num_experts:
        return beta_E.clone()
    capacity = top_k * num_tokens // num_experts
    for _ in range(iterations):
        alpha_T = (scores_TE - beta_E).topk(top_k + 1, dim=1).values[:, -1]
        beta_E = (scores_TE - alpha_T.unsqueeze(1)).topk(capacity + 1, dim=0).values[-1]
    return beta_E
