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

ROUNDS_UNSEEN = 16  # on a GPU, before it is waited for


@component("balancer", "quantile")
@dataclass(slots=True)
class QuantileConfig(BalancerConfig):
    """Thresholds from the last step's scores in place of a bias that creeps; no coefficient and no rate."""

    kind: str = "quantile"
    # At most so many rounds of `quantile_thresholds` a step, beginning where the last step ended. From zero, random
    # scores needed up to 28 for 8 experts, 42 for 16 and 167 for 128.
    iterations: int = knob(256, ge=1)

    def build(self, run: RunConfig, num_layers: int, num_experts: int) -> Quantile:
        return Quantile(self, run.router, num_layers, num_experts)

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        yield from uneven_picks(run, "trainer.batch_size", run.trainer.batch_size)


class Quantile(Balancer):
    """Top-k ranks s - beta; beta moves once per optimizer step, by the scores of its whole global batch.

    A step is routed by the thresholds of the steps before it, so a token's experts never depend on later tokens. Until
    `update`, the scores of the step's micro-batches are kept: T*E float32 per layer. Every process of a run then
    gathers those of all others. The thresholds are float64: scores lie so close around them that float32 moves a token
    or two of 20,480 across.
    """

    beta_LE: Tensor

    def __init__(self, config: QuantileConfig, router: RouterConfig, num_layers: int, num_experts: int) -> None:
        super().__init__()
        self.config, self.router = config, router
        self.register_buffer("beta_LE", torch.zeros(num_layers, num_experts, dtype=torch.float64))
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


def quantile_thresholds(
    scores_TE: Tensor, beta_E: Tensor, top_k: int, iterations: int, *, look_every: int | None = None
) -> Tensor:
    """Thresholds beta (E,) at which the top-k of s - beta gives every expert C = kT/E tokens, up to ties in the scores.

    At most `iterations` rounds from `beta_E`, and none once balance is reached, each of them

        alpha_t = midway between the k-th and (k+1)-th largest over i of s_ti - beta_i,
        beta_i = midway between the C-th and (C+1)-th largest over t of s_ti - alpha_t.

    Both are minima, coordinate by coordinate, of the dual of max sum_ti x_ti s_ti with x in [0, 1], sum_i x_ti = k and
    sum_t x_ti = C. Every point between the two values is one. The published choice is the lower end, (k+1)-th and
    (C+1)-th; it makes ties where the scores have none, and comes to rest short of balance. At the middle a picked
    expert is strictly above alpha_t + beta_i and another strictly below it, so that rest is balance, and the picks are
    the assignment of largest total score. With k = E every expert has every token.

    Whether there is balance is looked up after every `look_every` rounds, because a GPU has to be waited for (default:
    ROUNDS_UNSEEN there, each round on a CPU). The rounds that it did not need change nothing.
    """
    num_tokens, num_experts = scores_TE.shape
    if top_k == num_experts:
        return beta_E.clone()
    capacity = top_k * num_tokens // num_experts
    look_every = look_every or (1 if scores_TE.device.type == "cpu" else ROUNDS_UNSEEN)
    balanced = torch.zeros((), dtype=torch.bool, device=scores_TE.device)
    for i in range(iterations):
        alpha_T = _middle(scores_TE - beta_E, top_k, dim=1)
        balanced = balanced | _is_balanced(scores_TE - beta_E - alpha_T.unsqueeze(1), capacity)
        if (i + 1) % look_every == 0 and bool(balanced):
            break
        beta_E = torch.where(balanced, beta_E, _middle(scores_TE - alpha_T.unsqueeze(1), capacity, dim=0))
    return beta_E


def _middle(values: Tensor, place: int, dim: int) -> Tensor:
    """Midway between the `place`-th and the next largest over `dim`."""
    largest = values.topk(place + 1, dim=dim, sorted=False).values
    return largest.topk(2, dim=dim, largest=False, sorted=False).values.mean(dim=dim)


def _is_balanced(margin_TE: Tensor, capacity: int) -> Tensor:
    """Whether at most C tokens are above 0 and at least C reach it, for every expert: a scalar on the device."""
    above_E, reaching_E = (margin_TE > 0).sum(dim=0), (margin_TE >= 0).sum(dim=0)
    return ((above_E <= capacity) & (reaching_E >= capacity)).all()
