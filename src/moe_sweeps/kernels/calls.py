"""The kernels as functions of tensors: contiguous, float32, on CPU. kernels.cpp says what each computes.

Axes: B sequences, S positions, T tokens, D width, N heads, C head size, E experts, K picks per token, P = T*K picks
sorted by expert, F hidden size of one expert, H = 2F, V vocabulary, R tokens of a block, Q = 3D.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The arguments of each function: n number of threads, i integer, f float, t tensor.
_SIGNATURES = {
    "rms_norm": "n iif tttt",
    "rms_norm_backward": "n ii tttttt",
    "swiglu": "n ii tt",
    "swiglu_backward": "n ii tttt",
    "experts": "n iii tttttt",
    "experts_backward": "n iii ttttttttt",
    "sort_picks": "iii tttt",
    "dispatch": "n iii ttt",
    "combine": "n iii tttt",
    "combine_backward": "n iii tttttt",
    "cross_entropy": "n iif tttt",
    "attention": "n iiii ttttt",
    "attention_backward": "n iiii ttttttt",
}
PANEL = 16  # tokens of an expert that are worked on together
_TYPES = {"n": ctypes.c_int, "i": ctypes.c_int64, "f": ctypes.c_float, "t": ctypes.c_void_p}


class Kernels:
    """The functions of one compiled library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name, signature in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes = [_TYPES[letter] for letter in signature.replace(" ", "")]
            function.restype = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Kernels:
        return self  # a copied model uses the same library

    def _call(self, name: str, *arguments: Any) -> None:
        """Tensors go by address, and have to be what the kernels take."""
        plain = [_address(value) if isinstance(value, Tensor) else value for value in arguments]
        getattr(self._library, name)(torch.get_num_threads(), *plain)

    def rms_norm(self, x_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x / sqrt(mean(x^2) + eps) * weight, and each row's factor (T,) for the backward pass."""
        y_TD, scale_T = torch.empty_like(x_TD), x_TD.new_empty(len(x_TD))
        self._call("rms_norm", *x_TD.shape, eps, x_TD, weight_D, y_TD, scale_T)
        return y_TD, scale_T

    def rms_norm_backward(
        self, x_TD: Tensor, weight_D: Tensor, scale_T: Tensor, dy_TD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight."""
        dx_TD, dweight_D = torch.empty_like(x_TD), torch.empty_like(weight_D)
        self._call("rms_norm_backward", *x_TD.shape, x_TD, weight_D, scale_T, dy_TD, dx_TD, dweight_D)
        return dx_TD, dweight_D

    def swiglu(self, h_PH: Tensor) -> Tensor:
        """silu(gate) * up, (P, F)."""
        y_PF = h_PH.new_empty(h_PH.shape[0], h_PH.shape[1] // 2)
        self._call("swiglu", *y_PF.shape, h_PH, y_PF)
        return y_PF

    def swiglu_backward(self, h_PH: Tensor, dy_PF: Tensor) -> Tensor:
        """The gradient of h."""
        dh_PH = torch.empty_like(h_PH)
        self._call("swiglu_backward", *dy_PF.shape, h_PH, dy_PF, dh_PH, None)
        return dh_PH

    def experts(self, x_PD: Tensor, up_EHD: Tensor, down_EDF: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
        """Rows through their experts' SwiGLU networks, and what the backward pass needs to know again."""
        num_experts, hidden = up_EHD.shape[:2]
        h, y_PD = x_PD.new_empty((len(x_PD) // PANEL + num_experts) * PANEL, hidden), torch.empty_like(x_PD)
        self._call("experts", *_sizes(down_EDF), ends_E, x_PD, up_EHD, down_EDF, h, y_PD)
        return y_PD, h

    def experts_backward(
        self, x_PD: Tensor, up_EHD: Tensor, down_EDF: Tensor, ends_E: Tensor, h: Tensor, dy_PD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, of the gate and up projections, and of the down projections."""
        grads = tuple(torch.empty_like(tensor) for tensor in (x_PD, up_EHD, down_EDF))
        sizes = _sizes(down_EDF)
        self._call("experts_backward", *sizes, ends_E, x_PD, up_EHD, down_EDF, h, dy_PD, *grads)
        return grads[0], grads[1], grads[2]

    def sort_picks(self, ids_TK: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sorted place -> pick (P,), pick -> sorted place (T, K), and where each expert's rows end, int32 (E,)."""
        order_P, place_TK = ids_TK.new_empty(ids_TK.numel()), torch.empty_like(ids_TK)
        ends_E = torch.empty(num_experts, dtype=torch.int32)
        tensors = [_address(t) for t in (ids_TK, order_P, place_TK, ends_E)]
        self._library.sort_picks(*ids_TK.shape, num_experts, *tensors)
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
        """Turn logits into share * (softmax - one-hot); each row's loss, and whether no logit exceeds the target's."""
        loss_R, correct_R = logits_RV.new_empty(len(logits_RV)), torch.empty(len(logits_RV), dtype=torch.bool)
        self._call("cross_entropy", *logits_RV.shape, share, logits_RV, targets_R, loss_R, correct_R)
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


def _address(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    assert tensor.dtype in (torch.float32, torch.int64, torch.int32, torch.bool)
    return tensor.data_ptr()


def _sizes(down_EDF: Tensor) -> tuple[int, int, int]:
    """E, D, F."""
    num_experts, width, hidden = down_EDF.shape
    return num_experts, width, hidden


def _head_sizes(qkv_BSQ: Tensor, cos_SC: Tensor) -> tuple[int, int, int, int]:
    """B, S, N, C."""
    batch, seq_len, rows = qkv_BSQ.shape
    head_dim = cos_SC.shape[1]
    return batch, seq_len, rows // (3 * head_dim), head_dim
