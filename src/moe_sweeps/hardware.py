"""What the machine can do: cores, devices, and the measured peak of its matrix products."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import sys
import time
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.config.groups import Device
from moe_sweeps.errors import ConfigError

CPU = torch.device("cpu")
GEMM_SIZE, GPU_GEMM_SIZE = 1024, 4096
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


def gemm_peak(repeats: int = 5, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a square matrix product in `dtype`, the best of `repeats`.

    Of 1024^3 with this process's threads on a CPU, of 4096^3 on a GPU, where smaller ones do not fill the device.
    """
    size = GEMM_SIZE if device.type == "cpu" else GPU_GEMM_SIZE
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    _product_seconds(a, b)
    return 2 * size**3 / min(_product_seconds(a, b) for _ in range(repeats))


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch has held on a GPU since this process began; on a CPU the process's largest size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _product_seconds(a: Tensor, b: Tensor) -> float:
    started = time.perf_counter()
    torch.mm(a, b)
    if a.device.type == "cuda":
        torch.cuda.synchronize(a.device)
    return time.perf_counter() - started


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Host, processor and devices, for provenance.json."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
