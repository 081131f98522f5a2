"""Which dtype a computation runs in, and on which device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.config.groups import Precision


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products on `x`: autocast's where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or the dtype of `x` where that is wider: for what low precision would spoil."""
    return torch.promote_types(x.dtype, torch.float32)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` of the host on `device`. To a GPU it goes from pinned memory, which the host does not wait for."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Compute:
    """Where a model computes, and whether in bfloat16 (its weights stay float32)."""

    device: torch.device
    autocast: bool

    @classmethod
    def of(cls, precision: Precision, device: torch.device) -> Compute:
        """bfloat16 on a GPU unless told otherwise, on CPU only when told."""
        wanted = precision is Precision.bfloat16 or (precision is Precision.auto and device.type == "cuda")
        return cls(device, wanted)

    def hold(self, x: Tensor) -> Tensor:
        """`x` on the device."""
        return to_device(x, self.device)

    def context(self) -> torch.autocast:
        """The context in which the model is called."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)
