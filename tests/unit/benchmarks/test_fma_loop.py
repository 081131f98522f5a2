"""The loop that the share of peak is a share of: it computes what it says, so many times."""

from __future__ import annotations

import fma_loop
import pytest
from fma_loop import CHAINS, multiply_adds, rate

from moe_sweeps.kernels.build import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


@pytest.mark.parametrize(("rounds", "sums"), [(0, 0.0), (1, 1.0), (2, 1.5), (3, 1.75), (200, 2.0)])
def test_each_round_is_one_multiply_add_a_number(rounds: int, sums: float) -> None:
    width = fma_loop._widest().target.width
    loop = multiply_adds(rounds * CHAINS * width)
    assert loop is not None
    assert loop() == sums * CHAINS * width


def test_a_rate_is_that_of_a_processor() -> None:
    found = rate(repeats=2)
    assert found is not None
    assert 1e8 < found < 1e13


def test_without_a_compiler_there_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    fma_loop._library.cache_clear()
    monkeypatch.setattr(fma_loop, "compiler", lambda: None)
    assert rate() is None
    fma_loop._library.cache_clear()


def test_its_chains_are_those_of_the_source() -> None:
    assert f"constexpr int CHAINS = {CHAINS};" in fma_loop.SOURCE.read_text()
