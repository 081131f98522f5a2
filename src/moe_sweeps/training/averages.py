"""Running means on the device: exact over a resume, and without synchronisation until they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningMean:
    """Mean of the scalars that were added since the last reset. The sum is float64."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0

    def add(self, value: Tensor) -> None:
        """Add a scalar."""
        self._sum += value.detach().to(torch.float64)
        self._count += 1

    def value(self) -> float | None:
        """The mean, or None when nothing was added. Synchronises with the device."""
        return self._sum.item() / self._count if self._count else None

    def reset(self) -> None:
        """Start again from nothing."""
        self._sum.zero_()
        self._count = 0

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self._sum.copy_(torch.as_tensor(state["sum"]))
        self._count = int(state["count"])


class RunningMeans:
    """One `RunningMean` for each name, reset together."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._means: dict[str, RunningMean] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one scalar to the mean of each name."""
        for name, value in values.items():
            self._means.setdefault(name, RunningMean(self._device)).add(value)

    def read_and_reset(self) -> dict[str, float]:
        """The mean of every name that received something; then all start again. Synchronises with the device."""
        values = {name: mean.value() for name, mean in self._means.items()}
        for mean in self._means.values():
            mean.reset()
        return {name: value for name, value in values.items() if value is not None}

    def state_dict(self) -> dict[str, dict[str, Tensor | int]]:
        return {name: mean.state_dict() for name, mean in self._means.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor | int]]) -> None:
        self._means = {name: RunningMean(self._device) for name in state}
        for name, mean in self._means.items():
            mean.load_state_dict(state[name])


class RunningRange:
    """Elementwise minimum, mean and maximum of the tensors that were added since the last reset."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._min: Tensor | None = None
        self._max: Tensor | None = None
        self._last: Tensor | None = None
        self._count = 0

    def add(self, value: Tensor) -> None:
        """Add a tensor, always of the same shape."""
        if self._sum is None or self._min is None or self._max is None:
            self._sum, self._min, self._max = value.clone(), value, value
        else:
            self._sum += value
            self._min, self._max = torch.minimum(self._min, value), torch.maximum(self._max, value)
        self._last = value
        self._count += 1

    def last(self) -> Tensor | None:
        """The tensor that was added last, before or after a reset; None before the first."""
        return self._last

    def read_and_reset(self) -> dict[str, Tensor]:
        """`min`, `mean` and `max`, empty when nothing was added; then it starts again."""
        if self._sum is None or self._min is None or self._max is None:
            return {}
        found = {"min": self._min, "mean": self._sum / self._count, "max": self._max}
        self._sum = self._min = self._max = None
        self._count = 0
        return found

    def state_dict(self) -> dict[str, Tensor | int | None]:
        return {"sum": self._sum, "min": self._min, "max": self._max, "last": self._last, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sum, self._min, self._max, self._last = (state[name] for name in ("sum", "min", "max", "last"))
        self._count = state["count"]
