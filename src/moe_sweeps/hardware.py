"""What the machine can do: cores, devices, and the measured peak of its matrix products."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import time
from typing import Any

import torch

from moe_sweeps.config.groups import Device
from moe_sweeps.errors import ConfigError

GEMM_SIZE = 1024
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


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


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of handing it back to the kernel after every large tensor.

    A training step frees and allocates the same tensors again, and fresh pages cost more than the arithmetic on them:
    at width 128 a step was 10% faster with this (docs/LOG.md). Nothing happens where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
        mallopt(parameter, value)


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
