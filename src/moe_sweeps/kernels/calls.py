"""The functions of the compiled library, called with tensors. The sources beside it say what each computes.

Nothing is checked here: tensors go by address. operators.py checks them first, and is what the model calls.

Axes: X any axes before the last, B sequences, S positions, T tokens, D width, N heads, C head size, E experts, K picks
per token, P = T*K picks sorted by expert, F hidden size of one expert, H = 2F, V vocabulary, R tokens of a block,
Q = 3D, G rows of whole panels.
"""

from __future__ import annotations

import ctypes
import functools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.kernels.arithmetic import Arithmetic, preferred
from moe_sweeps.kernels.build import KernelsUnavailable, library

# The arguments of each function: n number of threads, i integer, f float, t tensor.
_SIGNATURES = {
    "rms_norm": "n iif tttt",
    "rms_norm_backward": "n ii tttttt",
    "swiglu": "n ii tt",
    "swiglu_backward": "n ii tttt",
    "experts": "n iii tttttt",
    "experts_backward": "n iii ttttttttt",
    "sort_picks": "n iii tttt",
    "dispatch": "n iii ttt",
    "combine": "n iii tttt",
    "combine_backward": "n iii tttttt",
    "cross_entropy": "n iif tttt",
    "attention": "n iiii ttttt",
    "attention_backward": "n iiii ttttttt",
}
_REFUSE = ("sort_picks", "cross_entropy")  # return 1 where an index is out of range, before they write anything
_TYPES = {"n": ctypes.c_int, "i": ctypes.c_int64, "f": ctypes.c_float, "t": ctypes.c_void_p}


class Kernels:
    """The functions of one compiled library."""

    def __init__(self, path: Path, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        compiled = ctypes.CDLL(str(path))
        self._functions = {name: getattr(compiled, name) for name in _SIGNATURES}
        for name, signature in _SIGNATURES.items():
            function = self._functions[name]
            function.argtypes = [_TYPES[letter] for letter in signature.replace(" ", "")]
            function.restype = ctypes.c_int if name in _REFUSE else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Kernels:
        return self  # a copied model uses the same library

    def _call(self, name: str, *arguments: Any) -> int | None:
        """Tensors go by address; sizes and other numbers as they are."""
        plain = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
        status: int | None = self._functions[name](torch.get_num_threads(), *plain)
        return status

    def rms_norm(self, x_XD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x / sqrt(mean(x^2) + eps) * weight, and each row's factor (X) for the backward pass."""
        y_XD, scale_X = torch.empty_like(x_XD), x_XD.new_empty(x_XD.shape[:-1])
        self._call("rms_norm", scale_X.numel(), len(weight_D), eps, x_XD, weight_D, y_XD, scale_X)
        return y_XD, scale_X

    def rms_norm_backward(
        self, x_XD: Tensor, weight_D: Tensor, scale_X: Tensor, dy_XD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight."""
        dx_XD, dweight_D = torch.empty_like(x_XD), torch.empty_like(weight_D)
        sizes = (scale_X.numel(), len(weight_D))
        self._call("rms_norm_backward", *sizes, x_XD, weight_D, scale_X, dy_XD, dx_XD, dweight_D)
        return dx_XD, dweight_D

    def swiglu(self, h_XH: Tensor) -> Tensor:
        """silu(gate) * up, (X, F)."""
        *rows, hidden = h_XH.shape
        y_XF = h_XH.new_empty(*rows, hidden // 2)
        self._call("swiglu", math.prod(rows), hidden // 2, h_XH, y_XF)
        return y_XF

    def swiglu_backward(self, h_XH: Tensor, dy_XF: Tensor) -> Tensor:
        """The gradient of h."""
        dh_XH = torch.empty_like(h_XH)
        *rows, hidden = dy_XF.shape
        self._call("swiglu_backward", math.prod(rows), hidden, h_XH, dy_XF, dh_XH, None)
        return dh_XH

    def experts(self, x_PD: Tensor, up_EHD: Tensor, down_EDF: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
        """Rows through their experts' SwiGLU networks, and what the backward pass needs to know again."""
        num_experts, hidden, _ = up_EHD.shape
        rows = kept_rows(len(x_PD), num_experts, self.arithmetic)
        h_GH, y_PD = x_PD.new_empty(rows, hidden), torch.empty_like(x_PD)
        self._call("experts", *_sizes(down_EDF), ends_E, x_PD, up_EHD, down_EDF, h_GH, y_PD)
        return y_PD, h_GH

    def experts_backward(
        self, x_PD: Tensor, up_EHD: Tensor, down_EDF: Tensor, ends_E: Tensor, h_GH: Tensor, dy_PD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the gate and up projections, and of the down projections."""
        grads = tuple(torch.empty_like(tensor) for tensor in (x_PD, up_EHD, down_EDF))
        sizes = _sizes(down_EDF)
        self._call("experts_backward", *sizes, ends_E, x_PD, up_EHD, down_EDF, h_GH, dy_PD, *grads)
        return grads[0], grads[1], grads[2]

    def sort_picks(self, ids_TK: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sorted place -> pick (P,), pick -> sorted place (T, K), and where each expert's rows end, int32 (E,).

        Raises:
            IndexError: an id that no expert has.
        """
        order_P, place_TK = ids_TK.new_empty(ids_TK.numel()), torch.empty_like(ids_TK)
        ends_E = torch.empty(num_experts, dtype=torch.int32)
        if self._call("sort_picks", *ids_TK.shape, num_experts, ids_TK, order_P, place_TK, ends_E):
            raise IndexError(f"moe_sweeps::moe: ids_TK has to hold ids of experts, 0 to {num_experts - 1}")
        return order_P, place_TK, ends_E

    def dispatch(self, x_TD: Tensor, place_TK: Tensor) -> Tensor:
        """Each token's row once for every pick, sorted by expert: (P, D)."""
        x_PD = x_TD.new_empty(place_TK.numel(), x_TD.shape[1])
        self._call("dispatch", *place_TK.shape, x_TD.shape[1], x_TD, place_TK, x_PD)
        return x_PD

    def combine(self, y_PD: Tensor, weights_TK: Tensor | None, place_TK: Tensor) -> Tensor:
        """Each token's weighted sum of its picks' rows, (T, D); without weights the plain sum."""
        y_TD = y_PD.new_empty(len(place_TK), y_PD.shape[1])
        self._call("combine", *place_TK.shape, y_PD.shape[1], y_PD, weights_TK, place_TK, y_TD)
        return y_TD

    def combine_backward(
        self, y_PD: Tensor, weights_TK: Tensor, place_TK: Tensor, dy_TD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the rows and of the weights."""
        dy_PD, dweights_TK = torch.empty_like(y_PD), torch.empty_like(weights_TK)
        sizes = (*place_TK.shape, y_PD.shape[1])
        self._call("combine_backward", *sizes, y_PD, weights_TK, place_TK, dy_TD, dy_PD, dweights_TK)
        return dy_PD, dweights_TK

    def cross_entropy_(self, logits_RV: Tensor, targets_R: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Turn logits into share * (softmax - one-hot); each row's loss, and whether no logit exceeds the target's.

        Raises:
            IndexError: a target that is no column of the logits.
        """
        loss_R, correct_R = logits_RV.new_empty(len(logits_RV)), torch.empty(len(logits_RV), dtype=torch.bool)
        if self._call("cross_entropy", *logits_RV.shape, share, logits_RV, targets_R, loss_R, correct_R):
            last = logits_RV.shape[1] - 1
            raise IndexError(f"moe_sweeps::cross_entropy_: targets_R has to hold columns of logits_RV, 0 to {last}")
        return loss_R, correct_R

    def attention(self, qkv_BSQ: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary causal attention (B, S, D), and each row's logsumexp of scores (B, N, S)."""
        sizes = _head_sizes(qkv_BSQ, cos_SC)
        batch, seq_len, heads, head_dim = sizes
        y_BSD, lse_BNS = qkv_BSQ.new_empty(batch, seq_len, heads * head_dim), qkv_BSQ.new_empty(batch, heads, seq_len)
        self._call("attention", *sizes, qkv_BSQ, cos_SC, sin_SC, y_BSD, lse_BNS)
        return y_BSD, lse_BNS

    def attention_backward(
        self, qkv_BSQ: Tensor, cos_SC: Tensor, sin_SC: Tensor, y_BSD: Tensor, lse_BNS: Tensor, dy_BSD: Tensor
    ) -> Tensor:
        """The gradient of queries, keys and values."""
        dqkv_BSQ = torch.empty_like(qkv_BSQ)
        sizes = _head_sizes(qkv_BSQ, cos_SC)
        self._call("attention_backward", *sizes, qkv_BSQ, cos_SC, sin_SC, y_BSD, lse_BNS, dy_BSD, dqkv_BSQ)
        return dqkv_BSQ


class _InUse:
    """The arithmetic of this process. It is one, since operators are known to torch by name alone."""

    chosen: Arithmetic | None = None


def use(arithmetic: Arithmetic | None) -> None:
    """Let this process's operators compute with `arithmetic`; None: with the preferred one."""
    _InUse.chosen = arithmetic


def in_use() -> Arithmetic:
    """The arithmetic with which this process's operators compute."""
    return _InUse.chosen or preferred()


def load(arithmetic: Arithmetic | None = None) -> Kernels:
    """The kernels of `arithmetic`, or of the one in use, compiled now if they were not before.

    Raises:
        KernelsUnavailable: they cannot be had here.
    """
    return _loaded(arithmetic or in_use())


@functools.cache
def _loaded(arithmetic: Arithmetic) -> Kernels:
    path = library(arithmetic)
    try:
        return Kernels(path, arithmetic)
    except OSError as error:
        raise KernelsUnavailable(f"{path} cannot be loaded: {error}") from error


def kept_rows(num_picks: Any, num_experts: Any, arithmetic: Arithmetic) -> Any:
    """Rows G of what the experts' forward pass keeps: whole panels, enough for each expert's last to be incomplete."""
    panel = arithmetic.target.panel
    return (num_picks // panel + num_experts) * panel


def _sizes(down_EDF: Tensor) -> tuple[int, int, int]:
    """E, D, F."""
    num_experts, width, hidden = down_EDF.shape
    return num_experts, width, hidden


def _head_sizes(qkv_BSQ: Tensor, cos_SC: Tensor) -> tuple[int, int, int, int]:
    """B, S, N, C."""
    batch, seq_len, rows = qkv_BSQ.shape
    head_dim = cos_SC.shape[1]
    return batch, seq_len, rows // (3 * head_dim), head_dim
