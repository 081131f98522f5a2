"""The kernels as operators of torch, with schemas, shapes and gradients: `torch.ops.moe_sweeps.rms_norm` and others.

So autograd, torch.compile and FakeTensor know them, and an argument that they cannot compute with is refused by name.
They exist wherever this is imported. The first call loads the kernels, and compiles them where they were not before.

The functions here do what `torch.ops` does, past torch's dispatcher where nothing watches it. A step has some 50 such
calls; through the dispatcher a step took 3% longer, because each call finds the caches full of data (docs/LOG.md).

Axes: X any axes before the last, B sequences, S positions, T tokens, D width, N heads, C head size, E experts, K picks
per token, P = T*K picks sorted by expert, F hidden size of one expert, H = 2F, V vocabulary, R tokens of a block,
Q = 3D, G rows of whole panels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from moe_sweeps.kernels.arguments import Arguments, Rule
from moe_sweeps.kernels.calls import in_use, kept_rows, load

_LIBRARY = torch.library.Library("moe_sweeps", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)  # the compiler keeps inputs contiguous


class Operator:
    """One registered operator. Called, it does what `torch.ops` does."""

    def __init__(
        self, name: str, takes: str, gives: str, kernel: Callable[..., Any], outputs: Callable[..., Any], *rules: Rule
    ) -> None:
        """`kernel` computes; `outputs` gives empty tensors of the same shapes, for tracing.

        Registered for all devices, so that a tensor on the wrong one is named, too.
        """
        self._name, self._kernel, self._outputs = name, kernel, outputs
        self._count = takes.count("Tensor")
        self._arguments = Arguments(f"moe_sweeps::{name}", takes, *rules)
        self._call: Callable[..., Any] = self._below_autograd
        _LIBRARY.define(f"{name}({takes}) -> {gives}", tags=_TAGS)
        _LIBRARY.impl(name, self._compute, "CompositeExplicitAutograd")
        torch.library.register_fake(f"moe_sweeps::{name}", self._trace, lib=_LIBRARY)
        self.overload = getattr(torch.ops.moe_sweeps, name).default

    def __call__(self, *given: Any) -> Any:
        return self.overload(*given) if torch.compiler.is_compiling() else self._call(*given)

    def differentiate(self, backward: Operator, keep: Callable[..., tuple[Tensor, ...]]) -> None:
        """Make it differentiable once, in its first output; its other outputs are for its backward pass.

        `keep(inputs, outputs)` are the tensors that `backward` takes before that output's gradient. It returns the
        gradients of the first inputs; the others have none.
        """

        def forward(ctx: Any, *inputs: Any) -> Any:
            found = self._below_autograd(*inputs)
            outputs = (found,) if isinstance(found, Tensor) else found
            ctx.save_for_backward(*keep(inputs, outputs))
            ctx.inputs = len(inputs)
            ctx.mark_non_differentiable(*outputs[1:])
            ctx.set_materialize_grads(False)  # or zeros would be made for each of them
            return found

        @once_differentiable
        def pull_back(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
            if dy is None:
                return (None,) * int(ctx.inputs)
            found: Any = backward(*ctx.saved_tensors, dy.contiguous())
            found = (found,) if isinstance(found, Tensor) else found
            gradients: tuple[Tensor | None, ...] = (*found, *(None,) * (ctx.inputs - len(found)))
            return gradients

        methods = {"forward": staticmethod(forward), "backward": staticmethod(pull_back)}
        self._call = type(self._name, (Function,), methods).apply  # type: ignore[attr-defined]
        _LIBRARY.impl(self._name, self._call, "Autograd")

    def _below_autograd(self, *given: Any) -> Any:
        """The kernel itself for tensors as it had before that no mode watches, else what the dispatcher finds."""
        if self._arguments.passed(given[: self._count]) and not torch._C._len_torch_dispatch_stack():
            return self._kernel(*given)
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*given)

    def _compute(self, *given: Any) -> Any:
        tensors = given[: self._count]
        if not self._arguments.passed(tensors):
            self._arguments.examine(tensors)
            self._arguments.remember(tensors)
        return self._kernel(*given)

    def _trace(self, *given: Any) -> Any:
        self._arguments.examine(given[: self._count], ("cpu", "meta"))  # on meta shapes alone are computed
        return self._outputs(*given)


# --- RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight, and each row's factor for the backward pass --------------------

rms_norm = Operator(
    "rms_norm",
    "Tensor x_XD, Tensor weight_D, float eps",
    "(Tensor y_XD, Tensor scale_X)",
    lambda *given: load().rms_norm(*given),
    lambda x_XD, weight_D, eps: (torch.empty_like(x_XD), x_XD.new_empty(x_XD.shape[:-1])),
)
rms_norm_backward = Operator(
    "rms_norm_backward",
    "Tensor x_XD, Tensor weight_D, Tensor scale_X, Tensor dy_XD",
    "(Tensor dx_XD, Tensor dweight_D)",
    lambda *given: load().rms_norm_backward(*given),
    lambda x_XD, weight_D, scale_X, dy_XD: (torch.empty_like(x_XD), torch.empty_like(weight_D)),
)
rms_norm.differentiate(rms_norm_backward, lambda inputs, outputs: (*inputs[:2], outputs[1]))

# --- SwiGLU: y = silu(gate) * up for h = [gate, up] -----------------------------------------------------------------

swiglu = Operator(
    "swiglu",
    "Tensor h_XH",
    "Tensor y_XF",
    lambda h_XH: load().swiglu(h_XH),
    lambda h_XH: h_XH.new_empty(*h_XH.shape[:-1], h_XH.shape[-1] // 2),
    Rule("h_XH", "an even H", lambda n: n["H"] % 2 == 0),
)
swiglu_backward = Operator(
    "swiglu_backward",
    "Tensor h_XH, Tensor dy_XF",
    "Tensor dh_XH",
    lambda *given: load().swiglu_backward(*given),
    lambda h_XH, dy_XF: torch.empty_like(h_XH),
    Rule("dy_XF", "2F = H", lambda n: 2 * n["F"] == n["H"]),
)
swiglu.differentiate(swiglu_backward, lambda inputs, outputs: inputs)

# --- Causal attention of rotated queries and keys, and each row's logsumexp of scores ---------------------------------

_HEADS = (
    Rule("cos_SC", "an even C", lambda n: n["C"] > 0 and n["C"] % 2 == 0),
    Rule("qkv_BSQ", "Q to be a multiple of 3C", lambda n: n["Q"] % (3 * n["C"]) == 0),
)


def _attention_outputs(qkv_BSQ: Tensor, cos_SC: Tensor, sin_SC: Tensor) -> tuple[Tensor, Tensor]:
    batch, seq_len, rows = qkv_BSQ.shape
    heads = rows // (3 * cos_SC.shape[1])
    return qkv_BSQ.new_empty(batch, seq_len, rows // 3), qkv_BSQ.new_empty(batch, heads, seq_len)


rotary_attention = Operator(
    "rotary_attention",
    "Tensor qkv_BSQ, Tensor cos_SC, Tensor sin_SC",
    "(Tensor y_BSD, Tensor lse_BNS)",
    lambda *given: load().attention(*given),
    _attention_outputs,
    *_HEADS,
)
rotary_attention_backward = Operator(
    "rotary_attention_backward",
    "Tensor qkv_BSQ, Tensor cos_SC, Tensor sin_SC, Tensor y_BSD, Tensor lse_BNS, Tensor dy_BSD",
    "Tensor dqkv_BSQ",
    lambda *given: load().attention_backward(*given),
    lambda qkv_BSQ, *_: torch.empty_like(qkv_BSQ),
    *_HEADS,
    Rule("y_BSD", "3D = Q", lambda n: 3 * n["D"] == n["Q"]),
    Rule("lse_BNS", "N*C = D", lambda n: n["N"] * n["C"] == n["D"]),
)
rotary_attention.differentiate(rotary_attention_backward, lambda i, outputs: (*i, *outputs))

# --- The mixture: y_t = sum over k of weight_tk expert_{i_tk}(x_t), and what its backward pass reads ------------------

_SWIGLU = Rule("up_EHD", "H = 2F", lambda n: n["H"] == 2 * n["F"])


def _moe(
    x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor, ids_TK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kernels = load()
    _, place_TK, ends_E = kernels.sort_picks(ids_TK, len(up_EHD))
    x_PD = kernels.dispatch(x_TD, place_TK)
    y_PD, h_GH = kernels.experts(x_PD, up_EHD, down_EDF, ends_E)
    return kernels.combine(y_PD, weights_TK, place_TK), place_TK, ends_E, x_PD, h_GH, y_PD


def _moe_outputs(
    x_TD: Tensor, weights_TK: Tensor, up_EHD: Tensor, down_EDF: Tensor, ids_TK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    num_experts, hidden, width = up_EHD.shape
    x_PD = x_TD.new_empty(ids_TK.numel(), width)
    ends_E = ids_TK.new_empty(num_experts, dtype=torch.int32)
    h_GH = x_TD.new_empty(kept_rows(ids_TK.numel(), num_experts, in_use()), hidden)
    return torch.empty_like(x_TD), torch.empty_like(ids_TK), ends_E, x_PD, h_GH, torch.empty_like(x_PD)


def _moe_backward(
    weights_TK: Tensor,
    up_EHD: Tensor,
    down_EDF: Tensor,
    place_TK: Tensor,
    ends_E: Tensor,
    x_PD: Tensor,
    h_GH: Tensor,
    y_PD: Tensor,
    dy_TD: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernels = load()
    dy_PD, dweights_TK = kernels.combine_backward(y_PD, weights_TK, place_TK, dy_TD)
    dx_PD, dup_EHD, ddown_EDF = kernels.experts_backward(x_PD, up_EHD, down_EDF, ends_E, h_GH, dy_PD)
    return kernels.combine(dx_PD, None, place_TK), dweights_TK, dup_EHD, ddown_EDF


moe = Operator(
    "moe",
    "Tensor x_TD, Tensor weights_TK, Tensor up_EHD, Tensor down_EDF, Tensor ids_TK",
    "(Tensor y_TD, Tensor place_TK, Tensor ends_E, Tensor x_PD, Tensor h_GH, Tensor y_PD)",
    _moe,
    _moe_outputs,
    _SWIGLU,
)
moe_backward = Operator(
    "moe_backward",
    "Tensor weights_TK, Tensor up_EHD, Tensor down_EDF, Tensor place_TK, Tensor ends_E, Tensor x_PD, Tensor h_GH, "
    "Tensor y_PD, Tensor dy_TD",
    "(Tensor dx_TD, Tensor dweights_TK, Tensor dup_EHD, Tensor ddown_EDF)",
    _moe_backward,
    lambda weights_TK, up_EHD, down_EDF, *others: tuple(
        torch.empty_like(x) for x in (others[-1], weights_TK, up_EHD, down_EDF)
    ),
    _SWIGLU,
    Rule("x_PD", "P = T*K", lambda n: n["P"] == n["T"] * n["K"]),
    Rule("h_GH", "the rows that moe gave it", lambda n: n["G"] == kept_rows(n["P"], n["E"], in_use())),
)
moe.differentiate(moe_backward, lambda inputs, outputs: (*inputs[1:4], *outputs[1:]))

# --- Cross-entropy: logits become share * (softmax - one-hot) in place; each row's loss, and whether no logit exceeds
# the target's ---------------------------------------------------------------------------------------------------------


def _cross_entropy_(logits_RV: Tensor, targets_R: Tensor, share: float) -> tuple[Tensor, Tensor]:
    found = load().cross_entropy_(logits_RV, targets_R, share)
    torch.autograd.graph.increment_version(logits_RV)
    return found


cross_entropy_ = Operator(
    "cross_entropy_",
    "Tensor(a!) logits_RV, Tensor targets_R, float share",
    "(Tensor loss_R, Tensor correct_R)",
    _cross_entropy_,
    lambda logits_RV, targets_R, share: (
        logits_RV.new_empty(len(targets_R)),
        torch.empty_like(targets_R, dtype=torch.bool),
    ),
)
