"""Which dtype a computation runs in."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products on `x`: autocast's where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or the dtype of `x` where that is wider: for what low precision would spoil."""
    return torch.promote_types(x.dtype, torch.float32)
