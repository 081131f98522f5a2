"""The peak is that of the fastest way, and says which."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from helpers import CPU
from torch import Tensor

from moe_sweeps.host import peak as module
from moe_sweeps.host.onednn import onednn_linear
from moe_sweeps.host.peak import gemm_peak, products


def test_the_measured_peak_is_that_of_a_real_machine() -> None:
    found = gemm_peak(repeats=1)
    assert 1e8 < found.flops < 1e13
    assert found.way in products()


def test_the_fastest_way_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def lasting(seconds: float) -> Callable[[Tensor, Tensor], Tensor]:
        def product(a: Tensor, b: Tensor) -> Tensor:
            time.sleep(seconds)
            return a

        return product

    ways = {"slow": lasting(0.2), "fast": lasting(0.01), "middle": lasting(0.1)}
    monkeypatch.setattr(module, "products", lambda device, dtype: ways)
    found = gemm_peak(repeats=2)
    assert found.way == "fast"
    assert 2 * 1024**3 / 0.1 < found.flops <= 2 * 1024**3 / 0.01


def test_every_way_computes_the_product() -> None:
    a, b = torch.randn(2, 48, 48, generator=torch.Generator().manual_seed(0)).unbind()
    for product in products().values():
        torch.testing.assert_close(product(a, b), a @ b, rtol=1e-4, atol=1e-4)


def test_onednn_is_a_way_where_it_is_there_and_the_product_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"torch_mm"} if onednn_linear() is None else {"torch_mm", "onednn"}
    assert set(products()) == wanted
    assert set(products(CPU, torch.bfloat16)) == {"torch_mm"}
    assert set(products(torch.device("cuda"))) == {"torch_mm"}
    monkeypatch.setattr(module, "onednn_linear", lambda: None)
    assert set(products()) == {"torch_mm"}
