"""Adam's moments over one stack: the update rule of vectors and tables, and the source of Shampoo's step sizes."""

from __future__ import annotations

from torch import Tensor

from moe_sweeps.optim.blocked import Stack


class Moments:
    """m <- beta1 m + (1-beta1) g and v <- beta2 v + (1-beta2) g^2, both from 0 (arXiv 1412.6980)."""

    def __init__(self, stack: Stack, beta1: float, beta2: float, eps: float) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.exp_avg, self.exp_avg_sq = stack.zeros(), stack.zeros()

    def add(self, grad_N: Tensor) -> None:
        """Update both moments with one step's gradient."""
        self.exp_avg.lerp_(grad_N, 1 - self.beta1)
        self.exp_avg_sq.mul_(self.beta2).addcmul_(grad_N, grad_N, value=1 - self.beta2)

    def direction(self, grad_N: Tensor, step: int) -> Tensor:
        """Adam's direction in step `step`, counted from 1."""
        self.add(grad_N)
        return adam_direction(self.exp_avg, self.exp_avg_sq, step, self.beta1, self.beta2, self.eps)

    def state(self) -> dict[str, Tensor]:
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}


def adam_direction(exp_avg: Tensor, exp_avg_sq: Tensor, step: int, beta1: float, beta2: float, eps: float) -> Tensor:
    """(m / (1-beta1^t)) / (sqrt(v / (1-beta2^t)) + eps), as a new tensor."""
    scale = exp_avg_sq.sqrt().mul_((1 - beta2**step) ** -0.5).add_(eps)
    return scale.mul_(1 - beta1**step).reciprocal_().mul_(exp_avg)
