"""float32 products through oneDNN, which torch contains, and uses by itself in lower precision alone.

torch hands float32 products to MKL. On processors that are not Intel's MKL has no code for 512-bit vectors, and oneDNN
has. torch has no public function for it, so this is a private operator behind a guard: where it is missing, takes other
arguments than those known here, or computes something else, there is None.

Axes: T rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Linear = Callable[[Tensor, Tensor], Tensor]
SCHEMA = "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"


@functools.cache
def onednn_linear() -> Linear | None:
    """x W^T (T, O) of x (T, I) and W (O, I), float32 on CPU and in any layout, or None where this torch cannot."""
    problem = _problem()
    if problem is not None:
        log.debug("float32 products are torch's own: %s", problem)
        return None
    return _linear


def _linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    y_TO: Tensor = torch.ops.mkldnn._linear_pointwise.default(x_TI, weight_OI, None, "none", [], "")
    return y_TO


def _problem() -> str | None:
    """Why the operator cannot be used, or None."""
    if not torch.backends.mkldnn.is_available():
        return "torch was built without oneDNN"
    try:
        schema = str(torch.ops.mkldnn._linear_pointwise.default._schema)
        if not schema.endswith(SCHEMA):
            return f"the operator takes other arguments: {schema}"
        return None if _is_right() else "the operator computes something else"
    except (AttributeError, RuntimeError, TypeError) as error:
        return str(error)


def _is_right() -> bool:
    """Whether a small product is right in each of the layouts that are used, to float32 rounding."""
    # Not by torch's defaults, which a caller may have changed.
    known = torch.arange(112 * 40, dtype=torch.float32, device="cpu").sin().view(112, 40)
    x_TI, weight_OI = known[:40], known[40:]
    wanted_TO = (x_TI.double() @ weight_OI.double().T).float()
    found = (_linear(x_TI, weight_OI), _linear(x_TI, weight_OI.T.contiguous().T))
    return all(torch.allclose(y_TO, wanted_TO, rtol=1e-4, atol=1e-4) for y_TO in found)
