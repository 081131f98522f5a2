"""Parameter counts and FLOPs of a model, computed from its config alone, for plans and summaries.

L layers, D width, S sequence length, E experts, k picks per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_sweeps.config.groups import DenseFFNConfig, MoEExpertsConfig, RouterNoise

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters and FLOPs of one model."""

    params_total: int
    params_active: int  # those that one token uses: k of E experts, and the tied embedding once
    matmul_params_active: int  # of the active ones those in matrix products: no norms; the embedding as the head
    flops_per_token: int  # training: forward and backward


def sizes(run: Run, vocab_size: int) -> Sizes:
    """Sizes of the model that `run` describes, with a vocabulary of `vocab_size`.

    flops_per_token = 6 * matmul_params_active + 12 L S D (PaLM, arXiv 2204.02311, appendix B): two operations for each
    parameter in the forward pass and four in the backward pass, and the same for attention's two S x S products per
    head, without a discount for causality.
    """
    layers, width = run.model.layers, run.model.width
    experts_held, experts_used, hidden, router = _feed_forward(run)
    expert = 3 * width * hidden  # gate, up and down
    dense = vocab_size * width + layers * (4 * width**2 + router)
    norms = (2 * layers + 1) * width + (2 * layers * run.model.head_dim if run.model.qk_norm else 0)
    matmul = dense + layers * experts_used * expert
    return Sizes(
        params_total=dense + layers * experts_held * expert + norms,
        params_active=matmul + norms,
        matmul_params_active=matmul,
        flops_per_token=6 * matmul + 12 * layers * run.trainer.seq_len * width,
    )


def _feed_forward(run: Run) -> tuple[int, int, int, int]:
    """(experts held, experts used by a token, hidden size of one, router parameters) of one layer."""
    experts = run.experts
    if isinstance(experts, MoEExpertsConfig):
        # A learned noise scale is a second matrix of the router's shape.
        matrices = 2 if run.router.noise is RouterNoise.learned else 1
        return experts.num_experts, experts.top_k, experts.ffn_hidden, matrices * experts.num_experts * run.model.width
    if isinstance(experts, DenseFFNConfig):
        return 1, 1, experts.active_experts * experts.ffn_hidden, 0
    raise TypeError(f"the size of {type(experts).__name__} is not known")
