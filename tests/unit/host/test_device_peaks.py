"""The table of peaks: names that torch gives, and rates that agree with each other."""

from __future__ import annotations

import re

import pytest
import torch

from moe_sweeps.host import peak as module
from moe_sweeps.host.device_peaks import PEAKS, device_peaks
from moe_sweeps.host.peak import Peak, peak_of

CUDA = torch.device("cuda")
NAMES = {  # as nvidia-smi and torch spell them
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA B200": 2250.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "A100-SXM4-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA L40S": 362.05,
    "NVIDIA L40": 181.05,
    "NVIDIA L4": 121.0,
    "NVIDIA GeForce RTX 4090": 165.2,
}
OTHERS = (
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA B200X",
    "AMD Instinct MI300X",
    "",
)


@pytest.mark.parametrize(("name", "tflops"), NAMES.items())
def test_a_device_is_found_by_its_whole_name(name: str, tflops: float) -> None:
    found = device_peaks(name)
    assert found is not None
    assert found.flops(torch.bfloat16) == tflops * 1e12
    assert sum(bool(re.fullmatch(pattern, name)) for pattern in PEAKS) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_another_device_has_no_sheet(name: str) -> None:
    assert device_peaks(name) is None


def test_every_row_is_dense_and_names_its_sheet() -> None:
    """On all of them TF32 is half of bfloat16, and FP8 twice as much; a rate with sparsity would break one of these."""
    for name, peaks in PEAKS.items():
        assert peaks.tf32 == pytest.approx(peaks.bfloat16 / 2, rel=0.02), name
        assert peaks.fp8 == pytest.approx(2 * peaks.bfloat16, rel=0.02) or not peaks.fp8, name
        assert peaks.float32 <= peaks.tf32, name
        assert peaks.sheet.startswith("NVIDIA"), name


def test_float32_is_tf32_where_torch_may_round_so() -> None:
    found, before = device_peaks("NVIDIA H100 80GB HBM3"), torch.backends.cuda.matmul.allow_tf32
    assert found is not None
    try:
        for allowed, tflops in ((False, 67.0), (True, 494.7)):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert found.flops(torch.float32) == tflops * 1e12
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("name", "way"), [("NVIDIA H200", "data_sheet"), ("NVIDIA H200 MIG 1g.18gb", "torch_mm")])
def test_a_device_without_a_sheet_is_measured_and_says_so(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(module, "gemm_peak", lambda *_: Peak({"torch_mm": 7e14}))
    found = peak_of(CUDA, torch.bfloat16)
    assert (found.way, found.flops) == (way, 989.4e12 if way == "data_sheet" else 7e14)


def test_a_cpu_is_always_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: pytest.fail("there is none"))
    assert 1e8 < peak_of(torch.device("cpu"), torch.float32, repeats=1).flops < 1e13
