"""Grouped GEMM as a custom operator, which `torch.compile` does not trace into, with its shapes and its gradient.

Axes: P rows sorted by expert, E experts, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("moe_sweeps::grouped_linear", mutates_args=())
def grouped_linear(x_PI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """Each expert's rows times its matrix, (P, O). The rows of expert e end before ends_E[e] (int32)."""
    return F.grouped_mm(x_PI.contiguous(), weight_EOI.contiguous().mT, offs=ends_E)


@torch.library.custom_op("moe_sweeps::grouped_linear_backward", mutates_args=())
def _grouped_linear_backward(dy_PO: Tensor, x_PI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the rows (P, I) and of the matrices (E, O, I)."""
    dy_PO = dy_PO.contiguous()
    dx_PI = F.grouped_mm(dy_PO, weight_EOI.contiguous(), offs=ends_E)
    return dx_PI, F.grouped_mm(dy_PO.mT, x_PI.contiguous(), offs=ends_E)


@grouped_linear.register_fake
def _(x_PI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    return x_PI.new_empty(x_PI.shape[0], weight_EOI.shape[1])


@_grouped_linear_backward.register_fake
def _(dy_PO: Tensor, x_PI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    return x_PI.new_empty(x_PI.shape), weight_EOI.new_empty(weight_EOI.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_PO: Tensor) -> tuple[Tensor, Tensor, None]:
    dx_PI, dweight_EOI = _grouped_linear_backward(grad_PO, *ctx.saved_tensors)
    return dx_PI, dweight_EOI, None


grouped_linear.register_autograd(_backward, setup_context=_keep)
