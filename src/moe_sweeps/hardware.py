"""What the machine can do: cores, devices, and the measured peak of its matrix products."""

from __future__ import annotations

import os
import platform
import socket
import time
from typing import Any

import torch

from moe_sweeps.config.groups import Device
from moe_sweeps.errors import ConfigError

GEMM_SIZE = 1024


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(device: Device) -> torch.device:
    """The torch device that `engine.device` means on this machine."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError(
            "engine.device", "cuda", "torch sees no CUDA device on this machine", "Use engine.device=auto."
        )
    use_cuda = device is Device.cuda or (device is Device.auto and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def gemm_peak(repeats: int = 5) -> float:
    """FLOP/s of a 1024^3 float32 matrix product with this process's threads: the best of `repeats`, on CPU."""
    a, b = torch.randn(GEMM_SIZE, GEMM_SIZE), torch.randn(GEMM_SIZE, GEMM_SIZE)
    torch.mm(a, b)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * GEMM_SIZE**3 / best


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Host, processor and devices, for provenance.json."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
