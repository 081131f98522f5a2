"""The router: from token representations to picks, weights and counts. It changes no state.

Axes: T tokens, D width, E experts, K picks per token; under expert choice C tokens per expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.groups import RouterNoise
from moe_sweeps.config.registry import DENSE_HAS_NO_ROUTER, Component, Unread, component, knob

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

# The values that top-k ranks, from (logits_TE, scores_TE). A balancer that steers the selection supplies it.
Ranking = Callable[[Tensor, Tensor], Tensor]


class RouterInit(Choice):
    """Initialisation of the router's weights."""

    normal = "normal", "N(0, init_std), as every other matrix"
    small = "small", "N(0, init_std / 10): probabilities start near 1/E"
    zero = "zero", "all logits tie, so every token picks the same experts until noise or gradients part them"
    talk = "talk", "rows divided by their own sums, then rescaled to the old spread"


@dataclass(slots=True)
class RouterConfig(Component):
    """Base of the gates. A gate maps logits to scores, to a distribution, and to the weights of the picked experts.

    Each technique for training the router is one knob, off by default. The router's learning rate is `lr_split.router`.
    """

    init: RouterInit = knob(RouterInit.normal, doc="initialisation of the router's weights")
    z_loss: float = knob(0.01, ge=0, doc="coefficient of the router z-loss, independent of the balancer")
    temperature: float = knob(1.0, gt=0, neutral=1.0, doc="logits are divided by it, in training and evaluation")
    input_jitter: float = knob(
        0.0,
        ge=0,
        lt=1,
        neutral=0.0,
        doc="the router's input is multiplied by U(1 - j, 1 + j) in training (arXiv 2101.03961)",
    )
    input_dropout: float = knob(0.0, ge=0, lt=1, neutral=0.0, doc="dropout on the router's input alone, in training")
    noise: RouterNoise = knob(
        RouterNoise.none, neutral=RouterNoise.none, doc="noise on the logits in training; evaluation has none"
    )
    noise_std: float = knob(0.1, gt=0, neutral=0.1, doc="standard deviation of the noise; read by noise=fixed")
    clip_norm: float = knob(
        0.0, ge=0, neutral=0.0, doc="maximum norm of the router's gradients, applied before the global clip; 0: off"
    )
    clip_value: float = knob(
        0.0,
        ge=0,
        neutral=0.0,
        doc="maximum absolute value of the router's gradients, applied before the global clip; 0: off",
    )
    weight_decay: float | None = knob(
        None, ge=0, neutral=None, doc="weight decay of the router; null: optimizer.weight_decay"
    )

    def canonical(self, run: Run) -> RouterConfig:
        """A weight decay equal to the optimizer's is the same as none given."""
        return replace(self, weight_decay=None) if self.weight_decay == run.optimizer.weight_decay else self

    def unread(self, run: Run) -> dict[str, Unread]:
        if not run.experts.is_moe:
            return {"": DENSE_HAS_NO_ROUTER}
        if self.noise is RouterNoise.fixed:
            return {}
        return {"noise_std": Unread(f"router.noise={self.noise.value}", "router.noise=fixed")}

    def scores_TE(self, logits_TE: Tensor) -> Tensor:
        """Unbiased scores, (T, E): what a selection bias on `scores` is added to. Strictly increasing in each logit."""
        return logits_TE.softmax(dim=-1)

    def probs_TE(self, scores_TE: Tensor) -> Tensor:
        """Scores as a distribution over all experts, (T, E), rows summing to 1: the P of the auxiliary loss."""
        return scores_TE

    def weights_TK(self, logits_TE: Tensor, scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
        """Weights of the picked experts, (T, K), from unbiased scores."""
        raise NotImplementedError


@component("router", "topk_softmax")
@dataclass(slots=True)
class TopkSoftmaxConfig(RouterConfig):
    """Softmax over the k picked logits; the weights sum to 1 (Mixtral, arXiv 2401.04088)."""

    kind: str = "topk_softmax"

    def weights_TK(self, logits_TE: Tensor, scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
        return logits_TE.gather(-1, ids_TK).softmax(dim=-1)


@component("router", "softmax_topk")
@dataclass(slots=True)
class SoftmaxTopkConfig(RouterConfig):
    """Softmax over all experts, of which the k largest are kept; their sum is below 1 (Switch, arXiv 2101.03961)."""

    kind: str = "softmax_topk"
    renormalize: bool = knob(False, doc="divide the weights of the picked experts by their sum")

    def weights_TK(self, logits_TE: Tensor, scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
        picked_TK = scores_TE.gather(-1, ids_TK)
        return picked_TK / picked_TK.sum(-1, keepdim=True) if self.renormalize else picked_TK


@component("router", "sigmoid")
@dataclass(slots=True)
class SigmoidConfig(RouterConfig):
    """Independent sigmoids, normalised over the picked ones, times `weight_scale` (DeepSeek-V3, arXiv 2412.19437)."""

    kind: str = "sigmoid"
    weight_scale: float = knob(1.0, gt=0, doc="the weights of the picked experts sum to this")

    def scores_TE(self, logits_TE: Tensor) -> Tensor:
        return logits_TE.sigmoid()

    def probs_TE(self, scores_TE: Tensor) -> Tensor:
        # With a much smaller epsilon a model lowers the auxiliary loss by pushing all its scores below it.
        return scores_TE / (scores_TE.sum(-1, keepdim=True) + 1e-7)

    def weights_TK(self, logits_TE: Tensor, scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
        # s_i / sum_j s_j = softmax over log s: finite even where every picked sigmoid underflows to 0.
        log_scores_TK = F.logsigmoid(logits_TE.gather(-1, ids_TK))
        return self.weight_scale * log_scores_TK.softmax(dim=-1)


@dataclass(frozen=True, slots=True)
class ExpertPicks:
    """The picks of expert choice: every expert has C tokens, and tokens have different numbers of experts."""

    token_EC: Tensor  # int64
    weights_EC: Tensor  # float32, differentiable


@dataclass(frozen=True, slots=True)
class Routing:
    """One MoE layer's routing of T tokens. Balancers, load counters and metrics read it; nothing writes to it.

    Under expert choice `expert_picks` has the picks, and `weights_TK` and `ids_TK` are empty, (0, K).
    """

    weights_TK: Tensor  # float32, differentiable
    ids_TK: Tensor  # int64
    logits_TE: Tensor  # float32, differentiable
    probs_TE: Tensor  # float32, differentiable, rows sum to 1
    counts_E: Tensor  # int64, picks of each expert, sum K*T
    expert_picks: ExpertPicks | None = None

    @property
    def top_k(self) -> int:
        """K, picks per token."""
        return self.ids_TK.shape[-1]


class Router(nn.Module):
    """Linear router in float32 whatever the model's dtype."""

    def __init__(
        self, width: int, num_experts: int, top_k: int, config: RouterConfig, experts_choose: bool = False
    ) -> None:
        super().__init__()
        self.weight_ED = nn.Parameter(torch.empty(num_experts, width))
        if config.noise is RouterNoise.learned:
            self.noise_ED = nn.Parameter(torch.empty(num_experts, width))
        self.top_k, self.config, self.experts_choose = top_k, config, experts_choose

    def forward(self, x_TD: Tensor, ranking: Ranking | None = None) -> Routing:
        """Route `x_TD` (T, D). `ranking` replaces the values that top-k ranks; weights always use unbiased scores.

        With `experts_choose`, experts rank tokens in training, by score, and tokens rank experts in evaluation.
        """
        with torch.autocast(x_TD.device.type, enabled=False):
            logits_TE = self._logits(x_TD)
            scores_TE = self.config.scores_TE(logits_TE)
            if self.experts_choose and self.training:
                return self._expert_choice(logits_TE, scores_TE)
            with torch.no_grad():
                # Logits rank as scores do, but do not tie where a softmax or sigmoid saturates.
                ranked_TE = logits_TE if ranking is None else ranking(logits_TE, scores_TE)
                ids_TK = ranked_TE.topk(self.top_k, dim=-1).indices
            weights_TK = self.config.weights_TK(logits_TE, scores_TE, ids_TK)
            probs_TE = self.config.probs_TE(scores_TE)
        return Routing(weights_TK, ids_TK, logits_TE, probs_TE, count_picks(ids_TK, self.weight_ED.shape[0]))

    def _logits(self, x_TD: Tensor) -> Tensor:
        """Logits (T, E) in float32 or wider. In training they include the noise, as does all that follows from them."""
        config, dtype = self.config, torch.promote_types(self.weight_ED.dtype, torch.float32)
        x_TD = x_TD.to(dtype)
        if self.training and config.input_jitter:
            x_TD = x_TD * torch.empty_like(x_TD).uniform_(1 - config.input_jitter, 1 + config.input_jitter)
        x_TD = F.dropout(x_TD, config.input_dropout, self.training)
        logits_TE = F.linear(x_TD, self.weight_ED.to(dtype)) / config.temperature
        if not self.training or config.noise is RouterNoise.none:
            return logits_TE
        learned = config.noise is RouterNoise.learned
        std: Tensor | float = F.softplus(F.linear(x_TD, self.noise_ED.to(dtype))) if learned else config.noise_std
        return logits_TE + std * torch.randn_like(logits_TE)

    def _expert_choice(self, logits_TE: Tensor, scores_TE: Tensor) -> Routing:
        """Each expert takes the C = K*T/E tokens that score highest for it (arXiv 2202.09368).

        A weight is what the gate gives if the token had picked the experts that picked it.
        """
        num_tokens, num_experts = scores_TE.shape
        capacity = self.top_k * num_tokens // num_experts
        with torch.no_grad():
            token_EC = scores_TE.topk(capacity, dim=0).indices.T.contiguous()
            kept_TE = torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(0, token_EC.T, True)
            kept_TE |= ~kept_TE.any(
                dim=1, keepdim=True
            )  # a token without experts gets finite weights, which are never used
            all_TE = torch.arange(num_experts, device=scores_TE.device).expand_as(scores_TE)
        lowest = torch.finfo(logits_TE.dtype).min
        weights_TE = self.config.weights_TK(
            logits_TE.masked_fill(~kept_TE, lowest), scores_TE.masked_fill(~kept_TE, 0.0), all_TE
        )
        picks = ExpertPicks(token_EC, weights_TE.T.gather(1, token_EC))
        none_0K = token_EC.new_empty(0, self.top_k)
        counts_E = token_EC.new_full((num_experts,), capacity)
        return Routing(
            none_0K.to(logits_TE.dtype), none_0K, logits_TE, self.config.probs_TE(scores_TE), counts_E, picks
        )

    def init_weights(self, std: float, generator: torch.Generator) -> None:
        """Fill the weights as `config.init` says, from `generator` alone; a learned noise scale starts at zero."""
        scale = {RouterInit.small: std / 10, RouterInit.zero: 0.0}.get(self.config.init, std)
        nn.init.normal_(self.weight_ED, std=scale, generator=generator)
        if self.config.init is RouterInit.talk:
            _divide_rows_by_their_sums(self.weight_ED)
        if self.config.noise is RouterNoise.learned:
            nn.init.zeros_(self.noise_ED)


def count_picks(ids_TK: Tensor, num_experts: int) -> Tensor:
    """Picks of each expert, int64 (E,). A scatter, because bincount synchronises the GPU."""
    ids_P = ids_TK.flatten()
    return ids_P.new_zeros(num_experts).scatter_add_(0, ids_P, torch.ones_like(ids_P))


@torch.no_grad()
def _divide_rows_by_their_sums(weight_ED: Tensor) -> None:
    """RouterInit.talk. Row sums are near 0, so the norms of rows then differ by an order of magnitude."""
    spread = weight_ED.std()
    weight_ED.div_(weight_ED.sum(dim=1, keepdim=True))
    weight_ED.mul_(spread / weight_ED.std())
