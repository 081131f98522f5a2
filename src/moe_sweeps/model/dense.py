"""Dense products on CPU in other ways than torch.mm in float32: faster on some processors, or of lower precision.

The way follows from a rule, so that runs of one machine agree to the last bit; a checkpoint keeps it for its run.

Axes: X any axes before the last, T rows, I inputs and O outputs of a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from moe_sweeps.config.groups import KernelChoice, Precision
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.onednn import onednn_linear
from moe_sweeps.host.processor import Processor, processor
from moe_sweeps.model.fused import either
from moe_sweeps.model.precision import Compute

# oneDNN multiplies twice as fast where the processor's vectors are 512 bits wide. AMD's are since family 26 (Zen 5);
# family 25 (Zen 4) does them in two halves and gains a tenth (docs/LOG.md). A call costs some 20 us more than torch's
# own, and the gradient of a weight a copy of its rows.
_WIDE_FAMILY = 26
_LEAST_AXIS = 32  # narrower weights, as a router's, are slower through oneDNN
_LEAST_WEIGHT = 2**13  # elements; of smaller ones in bfloat16 the conversions take longer than the products save
_BFLOAT16 = "bfloat16"


class Products(Protocol):
    """One way to compute dense products of float32 tensors on CPU."""

    EXACT: ClassVar[bool]  # to float32 rounding

    def takes(self, rows: int, weight_OI: Tensor) -> bool:
        """Whether a product of so many rows with this weight goes this way, and not through torch.mm."""

    def narrow(self, x: Tensor) -> Tensor:
        """`x` in the dtype in which it is multiplied."""

    def multiply(self, a_TI: Tensor, b_OI: Tensor) -> Tensor:
        """a b^T in float32, (T, O), of narrow tensors in any layout."""

    def weight_gradient(self, dy_TO: Tensor, x_TI: Tensor) -> Tensor:
        """dy^T x in float32, (O, I) in any layout, of narrow tensors."""

    def state(self) -> list[int] | str:
        """What a checkpoint keeps of it, for `products_of`."""

    def record(self) -> str:
        """What provenance.json says of it."""


@dataclass(frozen=True, slots=True)
class OneDNN:
    """float32 products of at least `least_flops` through oneDNN, weights' gradients from `least_gradient_flops` on."""

    EXACT: ClassVar[bool] = True
    least_flops: int
    least_gradient_flops: int

    def takes(self, rows: int, weight_OI: Tensor) -> bool:
        return min(weight_OI.shape) >= _LEAST_AXIS and 2 * rows * weight_OI.numel() >= self.least_flops

    def narrow(self, x: Tensor) -> Tensor:
        return x

    def multiply(self, a_TI: Tensor, b_OI: Tensor) -> Tensor:
        found = onednn_linear()
        assert found is not None, "it is chosen where oneDNN is there"
        return found(a_TI.contiguous(), b_OI)  # it reads b where it lies, and a only by rows

    def weight_gradient(self, dy_TO: Tensor, x_TI: Tensor) -> Tensor:
        if 2 * dy_TO.numel() * x_TI.shape[1] < self.least_gradient_flops:
            return dy_TO.T @ x_TI
        return self.multiply(x_TI.T, dy_TO.T).T  # the layout in which oneDNN was fastest

    def state(self) -> list[int]:
        return [self.least_flops, self.least_gradient_flops]

    def record(self) -> str:
        return f"oneDNN from {self.least_flops} FLOP (weight gradients {self.least_gradient_flops}), else torch.mm"


# Zen 5 by its rates forward; Zen 4 measured.
_ZEN5, _ZEN4 = OneDNN(2**24, 2**24), OneDNN(3 * 2**26, 2**27)


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """Products of factors that are rounded to bfloat16, with float32 sums; the result is rounded once more.

    The rule reads the weight alone: how many rows are computed at once decides no precision.
    """

    EXACT: ClassVar[bool] = False

    def takes(self, rows: int, weight_OI: Tensor) -> bool:
        return min(weight_OI.shape) >= _LEAST_AXIS and weight_OI.numel() >= _LEAST_WEIGHT

    def narrow(self, x: Tensor) -> Tensor:
        return x.bfloat16()

    def multiply(self, a_TI: Tensor, b_OI: Tensor) -> Tensor:
        return torch.mm(a_TI, b_OI.T).float()

    def weight_gradient(self, dy_TO: Tensor, x_TI: Tensor) -> Tensor:
        return self.multiply(x_TI.T, dy_TO.T).T

    def state(self) -> str:
        return _BFLOAT16

    def record(self) -> str:
        return "bfloat16"


def chosen_products(choice: KernelChoice, precision: Precision = Precision.auto) -> Products | None:
    """How dense products are computed on this machine's processor; None: by torch.mm."""
    if precision is Precision.mixed:
        return Bfloat16()
    if choice in (KernelChoice.torch, KernelChoice.avx2):
        return None
    if not _is_slow_in_torch(processor()) or onednn_linear() is None:
        return None
    return _ZEN5 if processor().family >= _WIDE_FAMILY else _ZEN4


def _is_slow_in_torch(cpu: Processor) -> bool:
    """Whether it has vectors of 512 bits that MKL, which torch.mm calls, does not use."""
    return cpu.vendor == "AuthenticAMD" and "avx512f" in cpu.flags


@dataclass(frozen=True, slots=True)
class ProductUse:
    """How a model computes its dense products. A resumed run must do as it did from the start."""

    model: nn.Module
    compute: Compute

    def state_dict(self) -> list[int] | str | None:
        """What a checkpoint keeps. None: all products are torch's."""
        products = self._products()
        return None if products is None else products.state()

    def load_state_dict(self, state: list[int] | str | None) -> None:
        """Let the model compute as its run began.

        Raises:
            ConfigError: it began with oneDNN, which this torch cannot be asked for.
        """
        if isinstance(state, list) and onednn_linear() is None:
            rule = "the run began with products by oneDNN, and torch's own would differ in the last digits"
            fix = "Resume with the version of torch that the run began with."
            raise ConfigError("engine.kernels", "auto", f"{rule}; this torch has no such operator", fix)
        use_products(self.model, products_of(state))

    def record(self) -> str:
        """What provenance.json says of it."""
        products = self._products()
        return "torch.mm" if products is None else products.record()

    def _products(self) -> Products | None:
        uses = self.compute.device.type == "cpu" and not self.compute.autocast
        return getattr(self.model, "products", None) if uses else None


def products_of(state: list[int] | str | None) -> Products | None:
    """The products whose state a checkpoint keeps.

    Raises:
        TypeError, ValueError: it is the state of none.
    """
    if state is None or state == _BFLOAT16:
        return None if state is None else Bfloat16()
    if not isinstance(state, list):
        raise ValueError(f"no products have the state {state!r:.80}")
    least_flops, least_gradient_flops = state
    return OneDNN(int(least_flops), int(least_gradient_flops))


def use_products(model: nn.Module, products: Products | None) -> None:
    """Let every part of `model` compute its dense products so."""
    for module in model.modules():
        if hasattr(module, "products"):
            cast(Any, module).products = products


def multiply(x_XI: Tensor, weight_OI: Tensor, products: Products | None) -> Tensor:
    """x W^T, (X, O), in the way that `products` says, or as torch does where that cannot be. Differentiable once."""
    rows = x_XI.numel() // max(x_XI.shape[-1], 1)
    chosen = products if products is not None and products.takes(rows, weight_OI) else None
    return either(x_XI, chosen, _linear, _torch_linear)(x_XI, weight_OI, chosen)


def _linear(x_XI: Tensor, weight_OI: Tensor, products: Products | None) -> Tensor:
    y_XO: Tensor = _Linear.apply(x_XI, weight_OI, products)  # type: ignore[no-untyped-call]
    return y_XO


def _torch_linear(x_XI: Tensor, weight_OI: Tensor, _: Products | None) -> Tensor:
    return F.linear(x_XI, weight_OI)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_XI: Tensor, weight_OI: Tensor, products: Products) -> Tensor:
        x_TI, narrow_OI = products.narrow(x_XI.reshape(-1, x_XI.shape[-1])), products.narrow(weight_OI)
        ctx.save_for_backward(x_TI, narrow_OI)
        ctx.products, ctx.shape = products, x_XI.shape
        return products.multiply(x_TI, narrow_OI).view(*x_XI.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_XO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_TI, narrow_OI = ctx.saved_tensors
        products: Products = ctx.products
        dy_TO = products.narrow(dy_XO.reshape(-1, dy_XO.shape[-1]))
        dx_XI = products.multiply(dy_TO, narrow_OI.T).view(ctx.shape) if ctx.needs_input_grad[0] else None
        dweight_OI = products.weight_gradient(dy_TO, x_TI) if ctx.needs_input_grad[1] else None
        return dx_XI, dweight_OI, None
