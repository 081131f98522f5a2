"""The rate of matrix products that training is compared with, and where it comes from.

There is one definition: on a GPU the dense rate of the vendor's data sheet for the device's name and the dtype of the
products (device_peaks.py); elsewhere, and on a GPU that no sheet is known of, what was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_sweeps.host.device_peaks import device_peaks
from moe_sweeps.host.onednn import onednn_linear

CPU = torch.device("cpu")
SIZE, GPU_SIZE = 1024, 4096
TORCH, ONEDNN, SHEET = "torch_mm", "onednn", "data_sheet"  # the names of the ways in summary.json
LAUNCHES = 20  # products on a GPU between two marks, so that launching and waiting are no part of their time
Product = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Peak:
    """FLOP/s of square matrix products, by the name of the way to compute them."""

    rates: dict[str, float]

    @property
    def flops(self) -> float:
        """The rate of the fastest way."""
        return max(self.rates.values())

    @property
    def way(self) -> str:
        """The name of the fastest way."""
        return max(self.rates, key=self.rates.__getitem__)


def peak_of(device: torch.device, dtype: torch.dtype, repeats: int = 4) -> Peak:
    """What a share of peak on `device` is a share of: its data sheet's rate, or else the rates measured here."""
    sheet = device_peaks(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return gemm_peak(repeats, device, dtype) if sheet is None else Peak({SHEET: sheet.flops(dtype)})


def gemm_peak(repeats: int = 4, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> Peak:
    """The rates of all ways that there are here for a square product in `dtype`, each the best of `repeats`.

    The size is 1024 on a CPU, with this process's threads, and 4096 on a GPU, which a smaller product does not fill.
    """
    size = SIZE if device.type == "cpu" else GPU_SIZE
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return Peak({way: _rate(product, a, b, repeats) for way, product in products(device, dtype).items()})


def products(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> dict[str, Product]:
    """Every way to multiply matrices in `dtype` on `device`, by its name."""
    ways: dict[str, Product] = {TORCH: torch.mm}
    linear = onednn_linear() if device.type == "cpu" and dtype is torch.float32 else None
    return ways if linear is None else ways | {ONEDNN: lambda a, b: linear(a, b.T)}


def _rate(product: Product, a: Tensor, b: Tensor, repeats: int) -> float:
    seconds = _gpu_seconds if a.device.type == "cuda" else _seconds
    seconds(product, a, b)
    return float(2 * len(a) ** 3 / min(seconds(product, a, b) for _ in range(repeats)))


def _seconds(product: Product, a: Tensor, b: Tensor) -> float:
    started = time.perf_counter()
    product(a, b)
    return time.perf_counter() - started


def _gpu_seconds(product: Product, a: Tensor, b: Tensor) -> float:
    """Of one of LAUNCHES products in a row, by the device's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(LAUNCHES):
        product(a, b)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / LAUNCHES
