"""Next-token cross-entropy from the last hidden states, one block of tokens at a time.

The logits of a whole batch would be the largest tensor of a small model, and are never stored. Each block's logits are
turned into their gradient in place, while they are in the cache. The backward pass then only multiplies by a scalar.

Axes: T tokens, D width, V vocabulary, R tokens of one block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from moe_sweeps.kernels import Kernels
from moe_sweeps.model import dense, fused
from moe_sweeps.model.precision import compute_dtype, wide_dtype

IntoGradient = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]
# (logits, targets, whether the gradient is wanted) -> each row's loss, whether it is correct, and the gradient.
Score = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor | None]]
# Logits in one block. 4 MB of float32 stay in a CPU's cache; a GPU wants large products more than cache.
_CPU_BLOCK = 2**20
_GPU_BLOCK = 2**27


def linear_cross_entropy(
    x_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    kernels: Kernels | None = None,
    products: dense.Products | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy in nats of softmax(x W^T) against `targets_T`, in float32 or wider.

    Returns the mean (a scalar, differentiable once), each token's loss (T,), and whether no logit exceeds the target's,
    bool (T,). Only the mean has a gradient.

    `products`: how the head multiplies. An evaluation is always in float32, where logits hardly tie.
    """
    into_gradient_ = fused.either(x_TD, kernels, fused.into_gradient_, _into_gradient_)
    new_head: NewHead = _Head
    if products is not None and products.takes(len(x_TD), weight_VD) and (products.EXACT or torch.is_grad_enabled()):
        new_head = fused.either(x_TD, products, partial(_ProductsHead, products), _Head)
    losses: tuple[Tensor, Tensor, Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x_TD, weight_VD, targets_T, torch.is_grad_enabled(), into_gradient_, new_head
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
        into_gradient_: IntoGradient,
        new_head: NewHead,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, wide = compute_dtype(x_TD), wide_dtype(x_TD)
        ties = x_TD.is_cuda or dtype is not wide
        score: Score = partial(_wide_score, into_gradient_, ties, wide)
        score = _narrow_score_ if _stays_narrow(x_TD, dtype) else score
        token_loss_T = torch.empty_like(targets_T, dtype=wide)
        correct_T = torch.empty_like(targets_T, dtype=torch.bool)
        grad_x_TD = torch.empty_like(x_TD)
        with torch.autocast(x_TD.device.type, enabled=False):
            head = new_head(weight_VD, dtype)
            for rows in _blocks(len(x_TD), len(weight_VD), x_TD.device):
                x_RD = x_TD[rows].to(dtype)
                token_loss_T[rows], correct_T[rows], grad_RV = score(head.logits(x_RD), targets_T[rows], with_gradient)
                if grad_RV is not None:
                    grad_x_TD[rows] = head.backward(grad_RV.to(dtype), x_RD)
        ctx.save_for_backward(grad_x_TD, head.grad_weight_VD)
        ctx.mark_non_differentiable(token_loss_T, correct_T)
        return token_loss_T.mean(), token_loss_T, correct_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_x_TD, grad_weight_VD = ctx.saved_tensors
        scale = grad_mean / len(grad_x_TD)
        scaled_VD = torch.mul(grad_weight_VD, scale, out=grad_weight_VD.new_empty(grad_weight_VD.shape))
        return grad_x_TD * scale, scaled_VD, None, None, None, None


class _Head:
    """The output head's products by torch, and the gradient of its weight, summed over blocks."""

    def __init__(self, weight_VD: Tensor, dtype: torch.dtype) -> None:
        """`dtype`: of the products."""
        self.narrow_VD = weight_VD.to(dtype)
        self.grad_weight_VD = torch.zeros_like(weight_VD)

    def logits(self, x_RD: Tensor) -> Tensor:
        """x W^T, (R, V)."""
        return x_RD @ self.narrow_VD.T

    def backward(self, grad_RV: Tensor, x_RD: Tensor) -> Tensor:
        """The gradient of a block's rows, (R, D). Adds to that of the weight."""
        grad_x_RD = grad_RV @ self.narrow_VD
        self.grad_weight_VD += grad_RV.T @ x_RD
        return grad_x_RD


class _ProductsHead(_Head):
    """The same by `products`, which give the gradient of a weight transposed."""

    def __init__(self, products: dense.Products, weight_VD: Tensor, _: torch.dtype) -> None:
        self.products, self.narrow_VD = products, products.narrow(weight_VD)
        self.grad_weight_VD = weight_VD.new_zeros(weight_VD.shape[::-1]).T

    def logits(self, x_RD: Tensor) -> Tensor:
        return self.products.multiply(self.products.narrow(x_RD), self.narrow_VD)

    def backward(self, grad_RV: Tensor, x_RD: Tensor) -> Tensor:
        narrow_RV = self.products.narrow(grad_RV)
        self.grad_weight_VD += self.products.weight_gradient(narrow_RV, self.products.narrow(x_RD))
        return self.products.multiply(narrow_RV, self.narrow_VD.T)


def _blocks(num_tokens: int, vocab_size: int, device: torch.device) -> list[slice]:
    """Ranges of tokens whose logits fit one block."""
    size = max(1, (_CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK) // vocab_size)
    return [slice(start, start + size) for start in range(0, num_tokens, size)]


def _stays_narrow(x_TD: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits and their gradient stay in `dtype`: on a GPU, whose time goes into reading and writing them."""
    return x_TD.is_cuda and dtype is not wide_dtype(x_TD)


def _wide_score(
    into_gradient_: IntoGradient,
    ties: bool,
    wide: torch.dtype,
    logits_RV: Tensor,
    targets_R: Tensor,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A `Score` in `wide`."""
    logits_RV = logits_RV.to(wide)
    return *into_gradient_(logits_RV, targets_R, ties), logits_RV if with_gradient else None


def _narrow_score_(logits_RV: Tensor, targets_R: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """A `Score` of narrow logits that leaves the gradient in their place. Sums and losses are float32."""
    targets_R1 = targets_R.unsqueeze(1)
    correct_R = logits_RV.argmax(dim=1) == targets_R  # of equal logits the first
    log_probs_RV = logits_RV.float().log_softmax(dim=1)
    target_R1 = log_probs_RV.gather(1, targets_R1)
    if not with_gradient:
        return -target_R1.squeeze(1), correct_R, None
    if torch.compiler.is_compiling():
        logits_RV = log_probs_RV.exp().to(logits_RV.dtype)
    else:
        torch.exp(log_probs_RV, out=logits_RV)
    logits_RV.scatter_(1, targets_R1, target_R1.expm1().to(logits_RV.dtype))  # p - 1, rounded once
    return -target_R1.squeeze(1), correct_R, logits_RV


def _into_gradient_(logits_RV: Tensor, targets_R: Tensor, ties: bool) -> tuple[Tensor, Tensor]:
    """Turn logits into softmax - one-hot in place; each row's loss, and whether its target has the highest logit.

    `ties`: whether logits are so narrow, or so cheap to search, that the first of equal ones is to count.
    """
    targets_R1 = targets_R.unsqueeze(1)
    # Logits of float32 hardly tie, and on a CPU argmax costs too much.
    first_R1 = logits_RV.argmax(dim=1, keepdim=True) if ties else None
    logits_RV.sub_(logits_RV.amax(dim=1, keepdim=True))
    target_R1 = logits_RV.gather(1, targets_R1)
    correct_R1 = target_R1 == 0 if first_R1 is None else first_R1 == targets_R1
    sum_R1 = logits_RV.exp_().sum(dim=1, keepdim=True)
    logits_RV.div_(sum_R1).scatter_add_(1, targets_R1, -torch.ones_like(target_R1))
    return (sum_R1.log() - target_R1).squeeze(1), correct_R1.squeeze(1)


NewHead = Callable[[Tensor, torch.dtype], _Head]
