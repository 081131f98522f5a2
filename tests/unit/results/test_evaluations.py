"""Which of the evaluations is the final one."""

from __future__ import annotations

import math

import pytest

from moe_sweeps.results.evaluations import usual_size


@pytest.mark.parametrize(
    ("tokens", "usual"),
    [([512, 512, 4096], 512), ([4096, 4096, 512], 4096), ([512, 4096], 512), ([4096, 512], 512), ([512.0], 512),
     ([512, math.nan, math.nan], 512), ([math.nan], None), ([], None)],
)  # fmt: skip
def test_most_evaluations_have_the_usual_size_and_of_two_the_smaller(tokens: list[float], usual: float | None) -> None:
    assert usual_size(tokens) == usual
