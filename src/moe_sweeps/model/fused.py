"""The model's parts on compiled kernels, with gradients written by hand: float32 on CPU.

Each has a counterpart of torch operations beside it in the module that uses it, with which it agrees to rounding.

Axes: B sequences, S positions, T tokens, D width, C head size, E experts, K picks per token, P = T*K picks sorted by
expert, F hidden size of one expert, H = 2F, Q = 3D query, key and value rows.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Kernels
from moe_sweeps.model.precision import Compute


def kernels_for(x: Tensor, kernels: Kernels | None) -> Kernels | None:
    """`kernels` where they can compute with `x`: float32 on CPU, not under autocast or `torch.compile`."""
    if kernels is None or x.dtype is not torch.float32 or x.device.type != "cpu":
        return None
    return None if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") else kernels


def use_kernels(model: nn.Module, kernels: Kernels | None) -> None:
    """Let every part of `model` that can compute with `kernels` do so; None: with torch's operations."""
    for module in model.modules():
        if hasattr(module, "kernels"):
            cast(Any, module).kernels = kernels


def uses_kernels(model: nn.Module, compute: Compute) -> bool:
    """Whether a model that computes so does it with kernels: a run ends with the bits of the choice it began with."""
    has = getattr(model, "kernels", None) is not None
    return has and compute.device.type == "cpu" and not compute.autocast


def go_on(model: nn.Module, compute: Compute, *, began_with_kernels: bool) -> None:
    """Let `model` go on as its run began.

    Raises:
        ConfigError: it began with kernels, and has none here.
    """
    if not began_with_kernels:
        use_kernels(model, None)
    elif not uses_kernels(model, compute):
        rule = "the run began with compiled kernels, and without them its numbers would differ in the last digits"
        fix = "Install a C++ compiler (g++ or clang++), or go on where the run began."
        raise ConfigError("engine.kernels", "auto", f"{rule}; this machine cannot have them", fix)


def rms_norm(x: Tensor, weight_D: Tensor, eps: float, kernels: Kernels) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps, kernels)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, kernels: Kernels) -> Tensor:
        x_TD = x.contiguous().view(-1, x.shape[-1])
        y_TD, scale_T = kernels.rms_norm(x_TD, weight_D, eps)
        ctx.save_for_backward(x_TD, weight_D, scale_T)
        ctx.kernels = kernels
        return y_TD.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_TD, weight_D, scale_T = ctx.saved_tensors
        dx_TD, dweight_D = ctx.kernels.rms_norm_backward(x_TD, weight_D, scale_T, grad.contiguous().view_as(x_TD))
        return dx_TD.view_as(grad), dweight_D, None, None


def swiglu(h: Tensor, kernels: Kernels) -> Tensor:
    """silu(gate) * up for h (..., 2F) = [gate, up]: (..., F)."""
    y: Tensor = _SwiGLU.apply(h, kernels)  # type: ignore[no-untyped-call]
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, kernels: Kernels) -> Tensor:
        h_TH = h.contiguous().view(-1, h.shape[-1])
        ctx.save_for_backward(h_TH)
        ctx.kernels = kernels
        return kernels.swiglu(h_TH).view(*h.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (h_TH,) = ctx.saved_tensors
        dh_TH = ctx.kernels.swiglu_backward(h_TH, grad.contiguous().view(len(h_TH), -1))
        return dh_TH.view(*grad.shape[:-1], -1), None


def rotary_attention(qkv_BSQ: Tensor, rotary: tuple[Tensor, Tensor], kernels: Kernels) -> Tensor:
    """Causal attention (B, S, D) of rotated queries and keys; `rotary` is cos and sin (S, C)."""
    y_BSD: Tensor = _RotaryAttention.apply(qkv_BSQ, *rotary, kernels)  # type: ignore[no-untyped-call]
    return y_BSD


class _RotaryAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_BSQ: Tensor, cos_SC: Tensor, sin_SC: Tensor, kernels: Kernels) -> Tensor:
        qkv_BSQ = qkv_BSQ.contiguous()
        y_BSD, lse_BNS = kernels.attention(qkv_BSQ, cos_SC, sin_SC)
        ctx.save_for_backward(qkv_BSQ, cos_SC, sin_SC, y_BSD, lse_BNS)
        ctx.kernels = kernels
        return y_BSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSD: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.kernels.attention_backward(*ctx.saved_tensors, grad_BSD.contiguous()), None, None, None


def moe(x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor, ids_TK: Tensor, kernels: Kernels) -> Tensor:
    """y_t = sum_k w_tk expert_{i_tk}(x_t), (T, D): dispatch, experts and combination."""
    y_TD: Tensor = _MoE.apply(x_TD, weights_TK, up_EHD, down_EDF, ids_TK, kernels)  # type: ignore[no-untyped-call]
    return y_TD


class _MoE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_TK: Tensor,
        up_EHD: Tensor,
        down_EDF: Tensor,
        ids_TK: Tensor,
        kernels: Kernels,
    ) -> Tensor:
        _, place_TK, ends_E = kernels.sort_picks(ids_TK.contiguous(), len(up_EHD))
        weights_TK = weights_TK.contiguous()
        x_PD = kernels.dispatch(x_TD.contiguous(), place_TK)
        y_PD, h = kernels.experts(x_PD, up_EHD, down_EDF, ends_E)
        ctx.save_for_backward(x_PD, weights_TK, up_EHD, down_EDF, place_TK, ends_E, h, y_PD)
        ctx.kernels = kernels
        return kernels.combine(y_PD, weights_TK, place_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        kernels: Kernels = ctx.kernels
        x_PD, weights_TK, up_EHD, down_EDF, place_TK, ends_E, h, y_PD = ctx.saved_tensors
        dy_PD, dweights_TK = kernels.combine_backward(y_PD, weights_TK, place_TK, grad_TD.contiguous())
        dx_PD, dup_EHD, ddown_EDF = kernels.experts_backward(x_PD, up_EHD, down_EDF, ends_E, h, dy_PD)
        return kernels.combine(dx_PD, None, place_TK), dweights_TK, dup_EHD, ddown_EDF, None, None
