"""The model's parts on compiled kernels, in float32 on CPU, and the one place that chooses between them and torch's
operations.

Each has a counterpart of torch operations in the module that uses it, with which it agrees to rounding.

Axes: B sequences, S positions, T tokens, D width, C head size, E experts, K picks per token, F hidden size of one
expert, H = 2F, Q = 3D query, key and value rows, V vocabulary, R tokens of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Arithmetic, Kernels, KernelsUnavailable, load, operators, use
from moe_sweeps.kernels.arithmetic import before_there_were_several
from moe_sweeps.model.precision import Compute

P = ParamSpec("P")
T = TypeVar("T")


def either(x: Tensor, kernels: object | None, compiled: Callable[P, T], plain: Callable[P, T]) -> Callable[P, T]:
    """`compiled` where kernels can compute with `x`: float32 on CPU, not under autocast or `torch.compile`.

    Otherwise `plain`. Nothing else in the model asks whether it has kernels, or products by oneDNN.
    """
    if kernels is None or x.dtype is not torch.float32 or x.device.type != "cpu":
        return plain
    return plain if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") else compiled


def use_kernels(model: nn.Module, kernels: Kernels | None) -> None:
    """Let every part of `model` that can compute with `kernels` do so; None: with torch's operations."""
    for module in model.modules():
        if hasattr(module, "kernels"):
            cast(Any, module).kernels = kernels


@dataclass(frozen=True, slots=True)
class KernelUse:
    """Which kernels a model computes with: their arithmetic decides last bits. A resumed run keeps its own."""

    model: nn.Module
    compute: Compute

    def state_dict(self) -> str | bool:
        """What a checkpoint keeps: the arithmetic of the kernels; False: the model computes with torch's operations."""
        kernels: Kernels | None = getattr(self.model, "kernels", None)
        uses = kernels is not None and self.compute.device.type == "cpu" and not self.compute.autocast
        return kernels.arithmetic.value if kernels is not None and uses else False

    def load_state_dict(self, began_with: str | bool) -> None:
        """Let the model compute as its run began. True: the only arithmetic that there was when it was saved.

        Raises:
            ConfigError: the run began with kernels that this machine cannot have, or that its device does not use.
        """
        if began_with is False:
            use_kernels(self.model, None)
            return
        try:
            arithmetic = before_there_were_several() if began_with is True else Arithmetic(began_with)
            kernels = load(arithmetic)
        except (KernelsUnavailable, ValueError) as error:
            raise _cannot_go_on(began_with, str(error)) from error
        use(arithmetic)
        use_kernels(self.model, kernels)
        if self.state_dict() is False:
            raise _cannot_go_on(arithmetic, "the model now computes without kernels: on a GPU, or under autocast")

    def record(self) -> str:
        """What provenance.json says of it."""
        return str(self.state_dict() or "torch")


def _cannot_go_on(began_with: str | bool, why: str) -> ConfigError:
    rule = f"the run began with kernels for {began_with}, and without them its numbers would differ in the last digits"
    fix = "Resume on a machine like the one where the run began, with a C++ compiler (g++ or clang++), and its device."
    return ConfigError("engine.kernels", "auto", f"{rule}; {why}", fix)


def rms_norm(x_BSD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, whatever axes come before it."""
    y_BSD: Tensor = operators.rms_norm(x_BSD.contiguous(), weight_D, eps)[0]
    return y_BSD


def swiglu(h_BSH: Tensor) -> Tensor:
    """silu(gate) * up for h = [gate, up] along the last axis, whatever axes come before it: (B, S, F)."""
    y_BSF: Tensor = operators.swiglu(h_BSH.contiguous())
    return y_BSF


def rotary_attention(qkv_BSQ: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Causal attention (B, S, D) of rotated queries and keys; `rotary` is cos and sin (S, C)."""
    y_BSD: Tensor = operators.rotary_attention(qkv_BSQ.contiguous(), *rotary)[0]
    return y_BSD


def moe(x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor, ids_TK: Tensor) -> Tensor:
    """y_t = sum_k w_tk expert_{i_tk}(x_t), (T, D): dispatch, experts and combination."""
    weights = (weights_TK.contiguous(), up_EHD, down_EDF)
    y_TD: Tensor = operators.moe(x_TD.contiguous(), *weights, ids_TK.contiguous())[0]
    return y_TD


def into_gradient_(logits_RV: Tensor, targets_R: Tensor, _ties: bool) -> tuple[Tensor, Tensor]:
    """Turn logits into softmax - one-hot in place; each row's loss, and whether no logit exceeds the target's.

    Ties, which float32 hardly has, count as correct.
    """
    losses: tuple[Tensor, Tensor] = operators.cross_entropy_(logits_RV, targets_R, 1.0)
    return losses
