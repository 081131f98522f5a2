"""Measures of routing: pure functions of loads. Each says over which tokens it is meant to be taken.

Axes: L MoE layers, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def maxvio_L(load_LE: Tensor) -> Tensor:
    """MaxVio = (max_i c_i - mean c) / mean c of each layer, float64 (L,) (arXiv 2408.15664).

    0 when balanced, E/k - 1 when k experts take every token. Take it over one step's global batch (`maxvio_batch`) or
    over the whole validation set (`maxvio_global`): counts are summed before, MaxVio is never averaged over pieces.
    """
    load = load_LE.to(torch.float64)
    mean_L = load.mean(dim=-1)
    return (load.amax(dim=-1) - mean_L) / mean_L


def maxvio(load_LE: Tensor) -> Tensor:
    """Mean over layers of `maxvio_L`, a float64 scalar."""
    return maxvio_L(load_LE).mean()
