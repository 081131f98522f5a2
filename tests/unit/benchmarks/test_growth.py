"""The fitted exponent of a cost that grows."""

from __future__ import annotations

import pytest
from growth import exponent


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    assert exponent({n: 3 * n**power for n in (8, 16, 64)}) == pytest.approx(power)
