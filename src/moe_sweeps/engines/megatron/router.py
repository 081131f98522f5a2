"""Megatron's router, with a record of its routing. Import it only after `shim.prepare()`: it imports megatron-core.

Axes: S positions, B sequences, T = B*S tokens, E experts, K picks per token.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from moe_sweeps.model.router import RouterConfig, Routing


class RecordingRouter(TopKRouter):  # type: ignore[misc]
    """Routes as its base class does, but changes no state, and draws random numbers only in training."""

    seen: tuple[Tensor, Tensor, Tensor] | None = None

    def apply_input_jitter(self, input: Tensor) -> Tensor:
        """Only in training. Stock Megatron adds jitter in evaluation, too."""
        found: Tensor = super().apply_input_jitter(input) if self.training else input
        return found

    def routing(self, logits: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        probs_TE, picked_TE = super().routing(logits, *args, **kwargs)
        self.seen = logits.detach(), probs_TE.detach(), picked_TE
        return probs_TE, picked_TE

    def _apply_expert_bias(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing. Stock Megatron counts picks in its forward pass; here the trainer counts loads, once."""

    @torch.no_grad()
    def record(self, config: RouterConfig) -> Routing:
        """The last routing, with tokens in order of sequences, without gradient: Megatron has its own losses."""
        assert self.seen is not None
        logits_SBE, probs_TE, picked_TE = self.seen
        self.seen = None
        shape = logits_SBE.shape
        logits_TE = _by_sequence(logits_SBE)
        # Experts that were not picked rank below any weight, even one that underflowed to 0.
        ranked_TE = _by_sequence(probs_TE.masked_fill(~picked_TE, -1.0).view(shape))
        weights_TK, ids_TK = ranked_TE.topk(self.topk, dim=-1)
        probs = config.probs_TE(config.scores_TE(logits_TE))
        return Routing(weights_TK, ids_TK, logits_TE, probs, picked_TE.sum(dim=0))


def _by_sequence(x_SBE: Tensor) -> Tensor:
    """Megatron orders tokens by position: (S, B, E) -> (T, E), ordered by sequence."""
    return x_SBE.transpose(0, 1).flatten(0, 1)
