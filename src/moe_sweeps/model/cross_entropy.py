"""Next-token cross-entropy straight from the last hidden states, a block of tokens at a time.

The logits of a whole batch are the largest tensor of a small model; here they never exist. Each block's logits become
its gradient in place while they are in the cache, so that the backward pass is a multiplication by a scalar.

Axes: T tokens, D width, V vocabulary, R tokens of one block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from moe_sweeps.kernels import Kernels
from moe_sweeps.model.precision import compute_dtype, wide_dtype

# Logits in one block. 4 MB of float32 stay in a CPU's cache; a GPU wants large products more than cache.
_CPU_BLOCK = 2**20
_GPU_BLOCK = 2**27


def linear_cross_entropy(
    x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy in nats of softmax(x W^T) against `targets_T`, in float32 or wider.

    Returns the mean (a scalar, differentiable once), each token's loss (T,), and whether no logit exceeds the target's
    (T,); the latter two have no gradient.
    """
    losses: tuple[Tensor, Tensor, Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x_TD, weight_VD, targets_T, torch.is_grad_enabled(), kernels
    )
    return losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weight_VD: Tensor,
        targets_T: Tensor,
        with_gradient: bool,
        kernels: Kernels | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, wide = compute_dtype(x_TD), wide_dtype(x_TD)
        ties = x_TD.is_cuda or dtype is not wide
        token_loss_T = torch.empty_like(targets_T, dtype=wide)
        correct_T = torch.empty_like(targets_T, dtype=torch.bool)
        grad_x_TD, grad_weight_VD = torch.empty_like(x_TD), torch.zeros_like(weight_VD)
        with torch.autocast(x_TD.device.type, enabled=False):
            narrow_VD = weight_VD.to(dtype)
            for rows in _blocks(len(x_TD), len(weight_VD), x_TD.device):
                x_RD, targets_R1 = x_TD[rows].to(dtype), targets_T[rows, None]
                logits_RV = (x_RD @ narrow_VD.T).to(wide)
                token_loss_T[rows], correct_T[rows] = _into_gradient_(logits_RV, targets_R1, kernels, ties=ties)
                if with_gradient:
                    grad_RV = logits_RV.to(dtype)
                    grad_x_TD[rows] = grad_RV @ narrow_VD
                    grad_weight_VD += grad_RV.T @ x_RD
        ctx.save_for_backward(grad_x_TD, grad_weight_VD)
        ctx.mark_non_differentiable(token_loss_T, correct_T)
        return token_loss_T.mean(), token_loss_T, correct_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x_TD, grad_weight_VD = ctx.saved_tensors
        scale = grad_mean / len(grad_x_TD)
        return grad_x_TD * scale, grad_weight_VD * scale, None, None, None


def _blocks(num_tokens: int, vocab_size: int, device: torch.device) -> list[slice]:
    """Ranges of tokens whose logits together fit one block."""
    size = max(1, (_CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK) // vocab_size)
    return [slice(start, start + size) for start in range(0, num_tokens, size)]


def _into_gradient_(
    logits_RV: Tensor, targets_R1: Tensor, kernels: Kernels | None, *, ties: bool
) -> tuple[Tensor, Tensor]:
    """Turn logits into softmax - one-hot in place; each row's loss, and whether its target has the highest logit."""
    if kernels is not None:
        return kernels.cross_entropy_(logits_RV, targets_R1.squeeze(1), 1.0)
    # Narrow logits tie, and the first maximum counts; those of float32 do not, and on a CPU argmax costs too much.
    first_R1 = logits_RV.argmax(dim=1, keepdim=True) if ties else None
    logits_RV.sub_(logits_RV.amax(dim=1, keepdim=True))
    target_R1 = logits_RV.gather(1, targets_R1)
    correct_R1 = target_R1 == 0 if first_R1 is None else first_R1 == targets_R1
    sum_R1 = logits_RV.exp_().sum(dim=1, keepdim=True)
    logits_RV.div_(sum_R1).scatter_add_(1, targets_R1, -torch.ones_like(target_R1))
    return (sum_R1.log() - target_R1).squeeze(1), correct_R1.squeeze(1)
