"""The kinds of devices that runs train on. Free of torch, for code that only reads configs."""

from __future__ import annotations

from enum import Enum


class Device(Enum):
    """Where a run is trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
