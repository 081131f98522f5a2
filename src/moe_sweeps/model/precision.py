"""The dtype and the device of a computation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.config.groups import Precision
from moe_sweeps.errors import ConfigError


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products on `x`: autocast's where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or the dtype of `x` where that is wider: for what would lose too much in low precision."""
    return torch.promote_types(x.dtype, torch.float32)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` of the host on `device`. The copy to a GPU is asynchronous, from pinned memory."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Compute:
    """The device of a model, and whether its matrix products are bfloat16. Its weights are float32 in either case."""

    device: torch.device
    autocast: bool

    @classmethod
    def of(cls, precision: Precision, device: torch.device) -> Compute:
        """`Precision.auto` is bfloat16 on a GPU and float32 on a CPU; so is `mixed`, but for dense products on CPU."""
        on_gpu = device.type == "cuda" and precision in (Precision.auto, Precision.mixed)
        return cls(device, on_gpu or precision is Precision.bfloat16)

    def to_device(self, x: Tensor) -> Tensor:
        """`x` of the host on the device."""
        return to_device(x, self.device)

    def context(self) -> torch.autocast:
        """The context in which the model is called."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)

    def state_dict(self) -> bool:
        """What a checkpoint keeps: whether matrix products are bfloat16."""
        return self.autocast

    def load_state_dict(self, autocast: bool) -> None:
        """Check that a run is resumed in the precision that it was started in.

        Raises:
            ConfigError: it was started in the other one.
        """
        if autocast != self.autocast:
            here, there = ("bfloat16", "float32") if self.autocast else ("float32", "bfloat16")
            rule = f"the run was started in {there}, and on {self.device.type} it would resume in {here}"
            fix = "Resume on the kind of device where it was started, or set trainer.precision."
            raise ConfigError("engine.device", self.device.type, rule, fix)
