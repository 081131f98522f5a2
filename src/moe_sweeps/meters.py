"""Running means that live on the device, survive a resume bit for bit, and do not wait for it until they are read."""

from __future__ import annotations

import torch
from torch import Tensor


class Mean:
    """Mean of the scalars that were added since the last reset, summed in float64."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0

    def add(self, value: Tensor) -> None:
        self._sum += value.detach().to(torch.float64)
        self._count += 1

    def value(self) -> float | None:
        """The mean, or None when nothing was added."""
        return self._sum.item() / self._count if self._count else None

    def reset(self) -> None:
        self._sum.zero_()
        self._count = 0

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self._sum.copy_(torch.as_tensor(state["sum"]))
        self._count = int(state["count"])


class Means:
    """One `Mean` a name, reset together."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._means: dict[str, Mean] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._means.setdefault(name, Mean(self._device)).add(value)

    def read_and_reset(self) -> dict[str, float]:
        """The mean of every name that received something."""
        values = {name: mean.value() for name, mean in self._means.items()}
        for mean in self._means.values():
            mean.reset()
        return {name: value for name, value in values.items() if value is not None}

    def state_dict(self) -> dict[str, dict[str, Tensor | int]]:
        return {name: mean.state_dict() for name, mean in self._means.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor | int]]) -> None:
        self._means = {name: Mean(self._device) for name in state}
        for name, mean in self._means.items():
            mean.load_state_dict(state[name])
