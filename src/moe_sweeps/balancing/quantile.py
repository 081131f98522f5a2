"""Quantile balancing: thresholds on the scores at which every expert gets the same number of tokens.

Axes: T tokens (of the optimizer step in `update`), E experts, L MoE layers, X any axes before them; k picks per token,
C = kT/E per expert.
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
    from moe_sweeps.config.run import Run

ROUNDS_UNSEEN = 16  # on a GPU, between two checks, which synchronise it
# Scores that a GPU balances at once: 256 MB of float64, and some temporary tensors as large. At scale=talk all layers.
SCORES_AT_ONCE = 2**25


@component("balancer", "quantile")
@dataclass(slots=True)
class QuantileConfig(BalancerConfig):
    """Thresholds from the last step's scores in place of a bias that creeps; no coefficient and no rate."""

    kind: str = "quantile"
    iterations: int = knob(
        256,
        ge=1,
        doc=(
            "maximum rounds of `quantile_thresholds` per step, starting from the last step's thresholds. From "
            "zero, random scores needed up to 28 for 8 experts, 42 for 16 and 167 for 128"
        ),
    )

    def build(self, run: Run, num_layers: int, num_experts: int) -> Quantile:
        assert isinstance(run.router, RouterConfig)
        return Quantile(self, run.router, num_layers, num_experts)

    def check(self, run: Run) -> Iterator[ConfigError]:
        yield from uneven_picks(run, "trainer.batch_size", run.trainer.batch_size)


class Quantile(Balancer):
    """Top-k ranks s - beta. beta is updated once per optimizer step from the scores of its global batch.

    A step is routed by the thresholds of earlier steps, so a token's experts never depend on later tokens. The scores
    of the step's micro-batches are kept until `update`: T*E float32 per layer. Then every process gathers those of all
    others. The thresholds are float64, because scores are so close to them that float32 would move one or two of 20,480
    tokens to the other side.
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
        per_layer = [torch.cat(parts) for parts in zip(*self._seen, strict=True)]
        for layers in layers_at_once(len(per_layer), self.ranks.size * per_layer[0].numel(), self.beta_LE.device):
            gathered = self.ranks.gather(torch.stack(per_layer[layers]))
            scores_XTE, beta_XE = torch.cat(gathered, dim=1).to(self.beta_LE.dtype), self.beta_LE[layers]
            beta_XE.copy_(quantile_thresholds(scores_XTE, beta_XE, self._top_k, self.config.iterations))
        self._seen = []


def layers_at_once(num_layers: int, scores: int, device: torch.device) -> list[slice]:
    """Ranges of layers, of `scores` numbers each, whose thresholds are found together.

    On a GPU as many as its memory allows, because a check of balance synchronises it and a layer's tensors are small.
    On a CPU one, because each layer stops as soon as it is balanced.
    """
    size = 1 if device.type == "cpu" else max(1, SCORES_AT_ONCE // max(scores, 1))
    return [slice(start, min(start + size, num_layers)) for start in range(0, num_layers, size)]


def quantile_thresholds(
    scores_XTE: Tensor, beta_XE: Tensor, top_k: int, iterations: int, *, look_every: int | None = None
) -> Tensor:
    """Thresholds beta (X, E) at which the top-k of s - beta gives every expert C = kT/E tokens, up to ties in scores.

    From `beta_XE`, it makes at most `iterations` rounds, and stops once balance is reached. A round is

        alpha_t = midway between the k-th and (k+1)-th largest over i of s_ti - beta_i,
        beta_i = midway between the C-th and (C+1)-th largest over t of s_ti - alpha_t.

    This is coordinate descent on the dual of max sum_ti x_ti s_ti for x in [0, 1], sum_i x_ti = k, sum_t x_ti = C.
    Every point between the two values minimises its coordinate. The published choice is the lower end, (k+1)-th and
    (C+1)-th; it makes ties where the scores have none, and converges short of balance. At the middle, a picked expert
    is strictly above alpha_t + beta_i and any other strictly below it. Then a fixed point is balanced, and the picks
    are the assignment of largest total score. With k = E every expert has every token.

    Balance is checked after every `look_every` rounds, because a check synchronises a GPU (default: ROUNDS_UNSEEN
    there, 1 on a CPU). Rounds beyond balance change nothing.
    """
    num_tokens, num_experts = scores_XTE.shape[-2:]
    if top_k == num_experts:
        return beta_XE.clone()
    capacity = top_k * num_tokens // num_experts
    look_every = look_every or (1 if scores_XTE.device.type == "cpu" else ROUNDS_UNSEEN)
    balanced_X1 = torch.zeros_like(beta_XE[..., :1], dtype=torch.bool)
    for i in range(iterations):
        steered_XTE = scores_XTE - beta_XE.unsqueeze(-2)
        alpha_XT1 = _middle(steered_XTE, top_k, dim=-1)
        balanced_X1 = balanced_X1 | _is_balanced(steered_XTE - alpha_XT1, capacity)
        if (i + 1) % look_every == 0 and bool(balanced_X1.all()):
            break
        beta_XE = torch.where(balanced_X1, beta_XE, _middle(scores_XTE - alpha_XT1, capacity, dim=-2).squeeze(-2))
    return beta_XE


def _middle(values: Tensor, place: int, dim: int) -> Tensor:
    """Midway between the `place`-th and the next largest over `dim`, which stays as an axis of length 1."""
    largest = values.topk(place + 1, dim=dim, sorted=False).values
    return largest.topk(2, dim=dim, largest=False, sorted=False).values.mean(dim=dim, keepdim=True)


def _is_balanced(margin_XTE: Tensor, capacity: int) -> Tensor:
    """Whether every expert has at most C tokens with margin > 0 and at least C with margin >= 0, bool (X, 1)."""
    above_XE, reaching_XE = (margin_XTE > 0).sum(dim=-2), (margin_XTE >= 0).sum(dim=-2)
    return ((above_XE <= capacity) & (reaching_XE >= capacity)).all(dim=-1, keepdim=True)
