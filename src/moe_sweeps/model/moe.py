"""The mixture of experts: dispatch to stacked experts, their SwiGLU, and the weighted sum over a token's picks.

Dropless and deterministic: picks are sorted by expert, so that forward and backward are permutations and a sum over the
K picks, without atomic additions.

Axes: T tokens, D width, E experts, K picks per token, P = T*K picks sorted by expert, F hidden size of one expert,
H = 2F gate rows, then up rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moe_sweeps.config.groups import ExpertBackend
from moe_sweeps.distributed.sharding import is_sharded
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import Kernels
from moe_sweeps.model import fused
from moe_sweeps.model.grouped import grouped_linear
from moe_sweeps.model.precision import Compute, compute_dtype
from moe_sweeps.model.router import ExpertPicks, Ranking, Router, Routing

_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_GROUPED_ALIGNMENT = 16  # bytes


class MoE(nn.Module):
    """One MoE layer: `router` picks experts, and the experts' outputs are summed with the router's weights."""

    def __init__(self, router: Router, experts: Experts) -> None:
        super().__init__()
        self.router, self.experts = router, experts
        self.kernels: Kernels | None = None

    def forward(self, x_TD: Tensor, ranking: Ranking | None = None) -> tuple[Tensor, Routing]:
        """y_t = sum_k w_tk expert_{i_tk}(x_t) (arXiv 2401.04088, eq. 2): y (T, D), and the routing."""
        routing: Routing = self.router(x_TD, ranking)
        if routing.expert_picks is not None:
            return self._expert_choice(x_TD, routing, routing.expert_picks), routing
        # A way to compute the experts that was asked for is used. The kernels have their own.
        kernels = self.kernels if self.experts.backend is ExpertBackend.auto else None
        mix = fused.either(x_TD, kernels, self._by_kernels, self._by_torch)
        return mix(x_TD, routing), routing

    def _by_kernels(self, x_TD: Tensor, routing: Routing) -> Tensor:
        return fused.moe(x_TD, routing.weights_TK, self.experts.up_EHD, self.experts.down_EDF, routing.ids_TK)

    def _by_torch(self, x_TD: Tensor, routing: Routing) -> Tensor:
        picks = sort_picks(routing.ids_TK, len(routing.counts_E))
        x_PD = _Dispatch.apply(x_TD, picks, compute_dtype(x_TD))  # type: ignore[no-untyped-call]
        y_PD = self.experts(x_PD, routing.counts_E)
        y_TD: Tensor = _Combine.apply(y_PD, routing.weights_TK, picks)  # type: ignore[no-untyped-call]
        return y_TD

    def _expert_choice(self, x_TD: Tensor, routing: Routing, picks: ExpertPicks) -> Tensor:
        """y_t = sum of w_ec expert_e(x_t) over all picks (e, c) of token t: y (T, D), 0 without any."""
        token_P = picks.token_EC.flatten()  # sorted by expert
        x_PD = _TakeRows.apply(x_TD, token_P, compute_dtype(x_TD))  # type: ignore[no-untyped-call]
        y_PD = self.experts(x_PD, routing.counts_E)
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
        self.narrow: tuple[Tensor, Tensor] | None = None  # copies of up and down; see `narrow_experts`
        self._is_grouped(torch.float32)  # refuse a shape that no dtype allows now, and not at the first step

    def forward(self, x_PD: Tensor, counts_E: Tensor) -> Tensor:
        """Rows of `x_PD` (P, D), sorted by expert, through their experts; expert e has the next counts_E[e] rows."""
        dtype = compute_dtype(x_PD)
        multiply = self._multiply(x_PD, dtype, counts_E)
        with torch.autocast(x_PD.device.type, enabled=False):
            up_EHD, down_EDF = self._weights(dtype)
            h_PH = multiply(x_PD.to(dtype), up_EHD)
            return multiply(swiglu(h_PH), down_EDF)

    def _multiply(self, x_PD: Tensor, dtype: torch.dtype, counts_E: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The product of each expert's rows with its matrix, in `dtype`."""
        is_grouped = self._is_grouped(dtype)
        loops = self.backend is ExpertBackend.auto and _grouped_would_loop(x_PD, dtype)
        if is_grouped and not loops:
            return partial(_grouped_product, counts_E=counts_E)
        return partial(_looped_product, lengths=counts_E.tolist())  # a GPU is waited for once, not in every product

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """up and down in `dtype`."""
        if self.narrow is None or self.narrow[0].dtype is not dtype:
            return self.up_EHD.to(dtype), self.down_EDF.to(dtype)
        up_EHD, down_EDF = self.narrow
        return _stand_in(self.up_EHD, up_EHD), _stand_in(self.down_EDF, down_EDF)

    def _is_grouped(self, dtype: torch.dtype) -> bool:
        obstacle = grouped_obstacle(dtype, self.down_EDF.shape[1], self.down_EDF.shape[2])
        if obstacle and self.backend is ExpertBackend.grouped:
            fix = "Use engine.expert_backend=auto, which falls back to the loop over experts."
            raise ConfigError("engine.expert_backend", self.backend.value, obstacle, fix)
        return not obstacle and self.backend is not ExpertBackend.loop


@contextmanager
def narrow_experts(model: nn.Module, compute: Compute) -> Iterator[None]:
    """Within, the experts of `model` have copies of their weights in bfloat16 beside them, made once.

    Otherwise each forward pass makes its own. The weights must not change within. Only on a GPU under autocast; where
    the model is sharded, its parts are gathered in bfloat16.
    """
    useful = compute.device.type == "cuda" and compute.autocast and not is_sharded(model)
    held = [module for module in model.modules() if isinstance(module, Experts)] if useful else []
    for experts in held:
        experts.narrow = (experts.up_EHD.detach().bfloat16(), experts.down_EDF.detach().bfloat16())
    try:
        yield
    finally:
        for experts in held:
            experts.narrow = None


def _stand_in(param: Tensor, copy: Tensor) -> Tensor:
    found: Tensor = _StandIn.apply(param, copy)  # type: ignore[no-untyped-call]
    return found


class _StandIn(torch.autograd.Function):
    """`copy`, which is `param` in another dtype; the gradient goes to `param`."""

    @staticmethod
    def forward(ctx: Any, param: Tensor, copy: Tensor) -> Tensor:
        ctx.dtype = param.dtype
        return copy.view_as(copy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


def grouped_obstacle(dtype: torch.dtype, width: int, ffn_hidden: int) -> str | None:
    """Why grouped GEMM cannot compute such experts, or None where it can."""
    if dtype not in _GROUPED_DTYPES:
        return f"grouped GEMM takes float32, bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    multiple = _GROUPED_ALIGNMENT // dtype.itemsize
    if width % multiple or ffn_hidden % multiple:
        sizes = f"model.width ({width}) and experts.ffn_hidden ({ffn_hidden})"
        return f"in {str(dtype).removeprefix('torch.')} grouped GEMM needs {sizes} to be multiples of {multiple}"
    return None


def swiglu(h_PH: Tensor) -> Tensor:
    """silu(gate) * up for h (..., 2F) = [gate, up] (arXiv 2002.05202): (..., F)."""
    if torch.compiler.is_compiling():  # the compiler fuses these operations itself
        gate_PF, up_PF = h_PH.chunk(2, dim=-1)
        return F.silu(gate_PF) * up_PF
    y_PF: Tensor = _SwiGLU.apply(h_PH)  # type: ignore[no-untyped-call]
    return y_PF


class _SwiGLU(torch.autograd.Function):
    """Saves only its input, and writes both halves of the gradient into one tensor where autograd would copy them."""

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
    # Not cumsum(dtype=int32): inductor makes int64 of it where the counts are constant, and the product refuses that.
    ends_E = counts_E.cumsum(0).to(torch.int32)
    # torch's own operator can be traced in bfloat16 alone.
    if torch.compiler.is_compiling() and x_PI.dtype is not torch.bfloat16:
        product_PO: Tensor = grouped_linear(x_PI, weight_EOI, ends_E)
        return product_PO
    return F.grouped_mm(x_PI, weight_EOI.mT, offs=ends_E)


def _grouped_would_loop(x_PD: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch's grouped GEMM is a loop that reads the counts in each of its six products: float32 on a GPU.

    A compiled model cannot read them without being cut in two, and keeps torch's.
    """
    return x_PD.is_cuda and dtype is torch.float32 and not torch.compiler.is_compiling()


def _looped_product(x_PI: Tensor, weight_EOI: Tensor, lengths: list[int]) -> Tensor:
    """The same, expert by expert, in any dtype and shape; `lengths`: rows of each expert."""
    rows = torch.split(x_PI, lengths)
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


def sort_picks(ids_TK: Tensor, num_experts: int) -> Picks:
    """Sort picks by expert; within an expert they stay in token order."""
    order_P = _sort_keys(ids_TK.flatten(), num_experts).argsort(stable=True)
    place_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(len(order_P), device=order_P.device))
    return Picks(order_P, place_P.view_as(ids_TK))


def _sort_keys(ids_P: Tensor, num_experts: int) -> Tensor:
    """The experts in the narrowest type on a GPU, which sorts digit by digit: one byte in place of eight."""
    return ids_P.to(torch.uint8) if ids_P.is_cuda and num_experts <= 256 else ids_P


class _Dispatch(torch.autograd.Function):
    """x_PD[p] = x_TD[token_P[p]] in `dtype`; backward sums each token's K rows, in the dtype of x_TD.

    The dtype changes before rows are copied and after they are copied back, so that fewer bytes move.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, picks: Picks, dtype: torch.dtype) -> Tensor:
        ctx.picks, ctx.dtype = picks, x_TD.dtype
        return x_TD.to(dtype).index_select(0, picks.token_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None]:
        return _rows_TKD(grad_PD, ctx.picks).sum(dim=1, dtype=ctx.dtype), None, None


class _Combine(torch.autograd.Function):
    """y_TD[t] = sum_k weights_TK[t, k] y_PD[place_TK[t, k]]; backward scales each pick's copy of its token's row.

    Backward narrows the scaled rows to the dtype of `y_PD` before it sorts them by expert.
    """

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
        grad_TKD = _product(grad_TD.unsqueeze(1), weights_TK.unsqueeze(-1), y_TKD.dtype)
        grad_PD = grad_TKD.flatten(0, 1).index_select(0, picks.order_P)
        grad_TK = (y_TKD * grad_TD.unsqueeze(1)).sum(dim=-1)
        return grad_PD, grad_TK.to(weights_TK.dtype), None


def _product(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """x * y rounded to `dtype`, on a GPU in one pass."""
    if dtype is torch.promote_types(x.dtype, y.dtype) or torch.compiler.is_compiling():
        return (x * y).to(dtype)
    return torch.mul(x, y, out=x.new_empty(torch.broadcast_shapes(x.shape, y.shape), dtype=dtype))


def _rows_TKD(x_PD: Tensor, picks: Picks) -> Tensor:
    """Sorted rows back in token order, (T, K, D)."""
    return x_PD.index_select(0, picks.place_TK.flatten()).view(*picks.place_TK.shape, -1)


class _TakeRows(torch.autograd.Function):
    """x_PD[p] = x_TD[token_P[p]] in `dtype`, for tokens with differing numbers of picks; backward as in `_Dispatch`."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_P: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.token_P, ctx.num_tokens, ctx.dtype = token_P, len(x_TD), x_TD.dtype
        return x_TD.to(dtype).index_select(0, token_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None]:
        return _sum_rows_TD(grad_PD, ctx.token_P, ctx.num_tokens, ctx.dtype), None, None


class _SumRows(torch.autograd.Function):
    """y_TD[t] = sum of x_PD[p] over token_P[p] = t: the transpose of `_TakeRows`."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, token_P: Tensor, num_tokens: int) -> Tensor:
        ctx.token_P = token_P
        return _sum_rows_TD(y_PD, token_P, num_tokens, y_PD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None]:
        return grad_TD.index_select(0, ctx.token_P), None, None


def _sum_rows_TD(y_PD: Tensor, token_P: Tensor, num_tokens: int, dtype: torch.dtype) -> Tensor:
    """Sum of each token's rows in `dtype`, (T, D), always in the same order: sorted by token, then by segments."""
    order_P = token_P.argsort(stable=True)
    lengths_T = token_P.new_zeros(num_tokens).scatter_add_(0, token_P, torch.ones_like(token_P))
    sorted_PD = y_PD.index_select(0, order_P).to(dtype)
    return torch.segment_reduce(sorted_PD, "sum", lengths=lengths_T, unsafe=True, initial=0.0)
