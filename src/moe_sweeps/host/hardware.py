"""What the machine has: cores, devices and memory."""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
from typing import Any

import torch

from moe_sweeps.errors import ConfigError
from moe_sweeps.host.devices import Device


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(device: Device) -> torch.device:
    """The torch device that `engine.device` means on this machine.

    Raises:
        ConfigError: it is cuda, and torch sees no CUDA device.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError(
            "engine.device", "cuda", "torch sees no CUDA device on this machine", "Use engine.device=auto."
        )
    use_cuda = device is Device.cuda or (device is Device.auto and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of torch on a GPU, of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Host, processor and devices, for provenance.json."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
