"""Peak rates of GPUs by device name, from the vendor's data sheets: what a share of peak on a GPU is a share of.

All rates are dense. Where a sheet gives a rate "with sparsity", half of it stands here. `float32` is that of the
CUDA cores, which a float32 product uses unless TF32 is allowed. A name must fit exactly: a slice of a device (MIG), a
laptop's version or another form factor has other rates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DevicePeaks:
    """TFLOP/s of one device, and the sheet that says so. 0: it has no such units."""

    bfloat16: float
    tf32: float
    float32: float
    fp8: float
    sheet: str

    def flops(self, dtype: torch.dtype) -> float:
        """FLOP/s of products in `dtype`, bfloat16 or float32, as torch computes them now."""
        if dtype is torch.bfloat16:
            return self.bfloat16 * 1e12
        return (self.tf32 if torch.backends.cuda.matmul.allow_tf32 else self.float32) * 1e12


_H100, _H200 = "NVIDIA H100 Tensor Core GPU Datasheet", "NVIDIA H200 Tensor Core GPU Datasheet"
_A100, _L40S = "NVIDIA A100 Tensor Core GPU Datasheet", "NVIDIA L40S Datasheet"
_ADA, _BLACKWELL = "NVIDIA Ada GPU Architecture whitepaper, appendix A", "NVIDIA Blackwell Architecture datasheet"

# A pattern of the whole name that torch.cuda.get_device_name() gives -> its rates.
PEAKS = {
    r"NVIDIA H100 80GB HBM3|NVIDIA H100 SXM5.*": DevicePeaks(989.4, 494.7, 67.0, 1978.9, f"{_H100} (SXM)"),
    r"NVIDIA H100 PCIe": DevicePeaks(756.0, 378.0, 51.0, 1513.0, f"{_H100} (PCIe)"),
    r"NVIDIA H100 NVL": DevicePeaks(835.5, 417.5, 60.0, 1670.5, f"{_H100} (NVL)"),
    r"NVIDIA GH200.*": DevicePeaks(989.4, 494.7, 67.0, 1978.9, "NVIDIA GH200 Grace Hopper Superchip Datasheet"),
    r"NVIDIA H200": DevicePeaks(989.4, 494.7, 67.0, 1978.9, f"{_H200} (SXM)"),
    r"NVIDIA H200 NVL": DevicePeaks(835.5, 417.5, 60.0, 1670.5, f"{_H200} (NVL)"),
    r"NVIDIA B200": DevicePeaks(2250.0, 1125.0, 75.0, 4500.0, f"{_BLACKWELL} (HGX B200, an eighth)"),
    r"(NVIDIA )?A100-(SXM4|PCIE|PG509)-\d+GB|NVIDIA A100 80GB PCIe": DevicePeaks(312.0, 156.0, 19.5, 0.0, _A100),
    r"NVIDIA A40": DevicePeaks(149.7, 74.8, 37.4, 0.0, "NVIDIA A40 Datasheet"),
    r"NVIDIA A10": DevicePeaks(125.0, 62.5, 31.2, 0.0, "NVIDIA A10 Datasheet"),
    r"NVIDIA L40S": DevicePeaks(362.05, 183.0, 91.6, 733.0, _L40S),
    r"NVIDIA L40": DevicePeaks(181.05, 90.5, 90.5, 362.0, "NVIDIA L40 Datasheet"),
    r"NVIDIA L4": DevicePeaks(121.0, 60.0, 30.3, 242.5, "NVIDIA L4 Datasheet"),
    r"NVIDIA GeForce RTX 4090": DevicePeaks(165.2, 82.6, 82.6, 330.3, f"{_ADA} (float32 accumulation)"),
}


def device_peaks(name: str) -> DevicePeaks | None:
    """The rates of the device that torch calls `name`; None: no sheet is known, and the device must be measured."""
    return next((peaks for pattern, peaks in PEAKS.items() if re.fullmatch(pattern, name)), None)
