"""The mixture of experts: dispatch to stacked experts, their SwiGLU, and the weighted sum over a token's picks.

Dropless and deterministic: each token's picks are sorted by expert, so that forward and backward are permutations and
a sum over the K picks; nothing is added atomically.

Axes: T tokens, D width, E experts, K picks per token, P = T*K picks sorted by expert, F hidden size of one expert,
H = 2F gate rows, then up rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moe_sweeps.config.groups import ExpertBackend
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Kernels
from moe_sweeps.model import fused
from moe_sweeps.model.grouped import grouped_linear
from moe_sweeps.model.precision import compute_dtype
from moe_sweeps.model.router import ExpertPicks, Ranking, Router, Routing

_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_GROUPED_ALIGNMENT = 16  # bytes


class MoE(nn.Module):
    """One MoE layer: `router` decides, `experts` compute, the weights of the router multiply the experts' outputs."""

    def __init__(self, router: Router, experts: Experts) -> None:
        super().__init__()
        self.router, self.experts = router, experts
        self.kernels: Kernels | None = None

    def forward(self, x_TD: Tensor, ranking: Ranking | None = None) -> tuple[Tensor, Routing]:
        """y_t = sum_k w_tk expert_{i_tk}(x_t) (arXiv 2401.04088, eq. 2): y (T, D) and the decision behind it."""
        routing: Routing = self.router(x_TD, ranking)
        if routing.expert_picks is not None:
            return self._expert_choice(x_TD, routing, routing.expert_picks), routing
        if kernels := self._fused_kernels(x_TD):
            weights = (self.experts.up_EHD, self.experts.down_EDF)
            return fused.moe(x_TD, routing.weights_TK, *weights, routing.ids_TK, kernels), routing
        picks = sort_picks(routing.ids_TK)
        x_PD = _Dispatch.apply(x_TD, picks)  # type: ignore[no-untyped-call]
        y_PD = self.experts(x_PD, routing.counts_E)
        y_TD = _Combine.apply(y_PD, routing.weights_TK, picks)  # type: ignore[no-untyped-call]
        return y_TD, routing

    def _fused_kernels(self, x_TD: Tensor) -> Kernels | None:
        """The kernels, unless the experts are to be computed in another way."""
        wanted = self.experts.backend is ExpertBackend.auto
        return fused.kernels_for(x_TD, self.kernels) if wanted else None

    def _expert_choice(self, x_TD: Tensor, routing: Routing, picks: ExpertPicks) -> Tensor:
        """y_t = sum of w_ec expert_e(x_t) over all picks (e, c) of token t: y (T, D), 0 without any."""
        token_P = picks.token_EC.flatten()  # by expert, as the experts want them
        y_PD = self.experts(_TakeRows.apply(x_TD, token_P), routing.counts_E)  # type: ignore[no-untyped-call]
        weighted_PD = y_PD * picks.weights_EC.flatten().unsqueeze(1)
        y_TD: Tensor = _SumRows.apply(weighted_PD, token_P, len(x_TD))  # type: ignore[no-untyped-call]
        return y_TD


class Experts(nn.Module):
    """E SwiGLU networks without biases, stacked: expert e is up_EHD[e] (gate rows, then up rows) and down_EDF[e]."""

    def __init__(self, num_experts: int, width: int, ffn_hidden: int, backend: ExpertBackend) -> None:
        super().__init__()
        self.up_EHD = nn.Parameter(torch.empty(num_experts, 2 * ffn_hidden, width))
        self.down_EDF = nn.Parameter(torch.empty(num_experts, width, ffn_hidden))
        self.backend = backend
        self._is_grouped(torch.float32)  # a shape that no dtype allows is refused now, not at the first step

    def forward(self, x_PD: Tensor, counts_E: Tensor) -> Tensor:
        """Rows of `x_PD` (P, D), sorted by expert, through their experts; expert e has the next counts_E[e] rows."""
        dtype = compute_dtype(x_PD)
        multiply = _grouped_product if self._is_grouped(dtype) else _looped_product
        with torch.autocast(x_PD.device.type, enabled=False):
            h_PH = multiply(x_PD.to(dtype), self.up_EHD.to(dtype), counts_E)
            return multiply(swiglu(h_PH), self.down_EDF.to(dtype), counts_E)

    def _is_grouped(self, dtype: torch.dtype) -> bool:
        obstacle = grouped_obstacle(dtype, self.down_EDF.shape[1], self.down_EDF.shape[2])
        if obstacle and self.backend is ExpertBackend.grouped:
            fix = "Use engine.expert_backend=auto, which falls back to the loop over experts."
            raise ConfigError("engine.expert_backend", self.backend.value, obstacle, fix)
        return not obstacle and self.backend is not ExpertBackend.loop


def grouped_obstacle(dtype: torch.dtype, width: int, ffn_hidden: int) -> str | None:
    """Why grouped GEMM cannot run such experts, or None where it can."""
    if dtype not in _GROUPED_DTYPES:
        return f"grouped GEMM takes float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    multiple = _GROUPED_ALIGNMENT // dtype.itemsize
    if width % multiple or ffn_hidden % multiple:
        sizes = f"model.width ({width}) and experts.ffn_hidden ({ffn_hidden})"
        return f"in {str(dtype).removeprefix('torch.')} grouped GEMM needs {sizes} to be multiples of {multiple}"
    return None


def swiglu(h_PH: Tensor) -> Tensor:
    """silu(gate) * up for h (..., 2F) = [gate, up] (arXiv 2002.05202): (..., F)."""
    if torch.compiler.is_compiling():  # which fuses these by itself
        gate_PF, up_PF = h_PH.chunk(2, dim=-1)
        return F.silu(gate_PF) * up_PF
    y_PF: Tensor = _SwiGLU.apply(h_PH)  # type: ignore[no-untyped-call]
    return y_PF


class _SwiGLU(torch.autograd.Function):
    """Saves its input alone, and writes both halves of the gradient in place where autograd would join copies."""

    @staticmethod
    def forward(ctx: Any, h_PH: Tensor) -> Tensor:
        ctx.save_for_backward(h_PH)
        gate_PF, up_PF = h_PH.chunk(2, dim=-1)
        return F.silu(gate_PF).mul_(up_PF)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PF: Tensor) -> Tensor:
        (h_PH,) = ctx.saved_tensors
        gate_PF, up_PF = h_PH.chunk(2, dim=-1)
        grad_PH = torch.empty_like(h_PH)
        grad_gate_PF, grad_up_PF = grad_PH.chunk(2, dim=-1)
        torch.mul(grad_PF, F.silu(gate_PF), out=grad_up_PF)
        torch.ops.aten.silu_backward.grad_input(grad_PF * up_PF, gate_PF, grad_input=grad_gate_PF)
        return grad_PH


def _grouped_product(x_PI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """Each expert's rows times its matrix, (P, O), in one grouped GEMM."""
    ends_E = counts_E.cumsum(0, dtype=torch.int32)
    # Tracing knows torch's own for bfloat16 alone.
    if torch.compiler.is_compiling() and x_PI.dtype is not torch.bfloat16:
        product_PO: Tensor = grouped_linear(x_PI, weight_EOI, ends_E)
        return product_PO
    return F.grouped_mm(x_PI, weight_EOI.mT, offs=ends_E)


def _looped_product(x_PI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """The same, expert by expert, in any dtype and shape."""
    rows = torch.split(x_PI, counts_E.tolist())
    return torch.cat([F.linear(x, weight) for x, weight in zip(rows, weight_EOI.unbind(), strict=True)])


@dataclass(frozen=True, slots=True)
class Picks:
    """The permutation between picks in token order (t, k) and picks sorted by expert."""

    order_P: Tensor  # sorted place -> pick t*K + k
    place_TK: Tensor  # pick -> sorted place

    @property
    def token_P(self) -> Tensor:
        """The token of every sorted pick."""
        return self.order_P // self.place_TK.shape[1]


def sort_picks(ids_TK: Tensor) -> Picks:
    """Sort picks by expert; within an expert they stay in token order."""
    order_P = ids_TK.flatten().argsort(stable=True)
    place_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(len(order_P), device=order_P.device))
    return Picks(order_P, place_P.view_as(ids_TK))


class _Dispatch(torch.autograd.Function):
    """x_PD[p] = x_TD[token_P[p]]; backward sums each token's K rows."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, picks: Picks) -> Tensor:
        ctx.picks = picks
        return x_TD.index_select(0, picks.token_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None]:
        return _rows_TKD(grad_PD, ctx.picks).sum(dim=1), None


class _Combine(torch.autograd.Function):
    """y_TD[t] = sum_k weights_TK[t, k] y_PD[place_TK[t, k]]; backward scales each pick's copy of its token's row."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, weights_TK: Tensor, picks: Picks) -> Tensor:
        ctx.picks = picks
        y_TKD = _rows_TKD(y_PD, picks)
        ctx.save_for_backward(y_TKD, weights_TK)
        return (y_TKD * weights_TK.unsqueeze(-1)).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, Tensor, None]:
        y_TKD, weights_TK = ctx.saved_tensors
        picks: Picks = ctx.picks
        weights_P = weights_TK.flatten().index_select(0, picks.order_P)
        grad_PD = grad_TD.index_select(0, picks.token_P) * weights_P.unsqueeze(-1)
        grad_TK = (y_TKD * grad_TD.unsqueeze(1)).sum(dim=-1)
        return grad_PD.to(y_TKD.dtype), grad_TK.to(weights_TK.dtype), None


def _rows_TKD(x_PD: Tensor, picks: Picks) -> Tensor:
    """Sorted rows back in token order, (T, K, D)."""
    return x_PD.index_select(0, picks.place_TK.flatten()).view(*picks.place_TK.shape, -1)


class _TakeRows(torch.autograd.Function):
    """x_PD[p] = x_TD[token_P[p]] for tokens with differing numbers of picks; backward sums each token's rows."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_P: Tensor) -> Tensor:
        ctx.token_P, ctx.num_tokens = token_P, len(x_TD)
        return x_TD.index_select(0, token_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None]:
        return _sum_rows_TD(grad_PD, ctx.token_P, ctx.num_tokens), None


class _SumRows(torch.autograd.Function):
    """The transpose of `_TakeRows`."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, token_P: Tensor, num_tokens: int) -> Tensor:
        ctx.token_P = token_P
        return _sum_rows_TD(y_PD, token_P, num_tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None]:
        return grad_TD.index_select(0, ctx.token_P), None, None


def _sum_rows_TD(y_PD: Tensor, token_P: Tensor, num_tokens: int) -> Tensor:
    """Sum of each token's rows, (T, D), in one order always: rows sorted by token, then segment by segment."""
    order_P = token_P.argsort(stable=True)
    lengths_T = token_P.new_zeros(num_tokens).scatter_add_(0, token_P, torch.ones_like(token_P))
    return torch.segment_reduce(y_PD.index_select(0, order_P), "sum", lengths=lengths_T, unsafe=True, initial=0.0)
