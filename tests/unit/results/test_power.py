"""What a pair of arms is promised: seeds that say different or equivalent, by the tests that will say it."""

from __future__ import annotations

import numpy as np
import pytest

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.equivalence import p_within
from moe_sweeps.results.looks import FIRST, LATER
from moe_sweeps.results.power import Shape, power, power_to_decide, seeds_for, seeds_to_decide
from moe_sweeps.results.shapes import pair
from moe_sweeps.results.verdicts import against_baseline

TABLES, MARGIN = 500, 1.0  # standard deviations


def decided(seeds: int, effect: float, level: float) -> float:
    """How many of simulated tables the judges of `moe-sweeps judge` decide."""
    runs = np.random.default_rng([seeds, int(100 * effect)]).standard_normal((TABLES, 2, seeds))
    runs[:, 1] += effect
    fit = Fit.of(runs, blocks=False)
    different = against_baseline(fit, level=level, intervals=False).p_family[:, 0] < level
    equivalent = p_within(fit, pair(2, 1, 0), -MARGIN, MARGIN).max(0)[:, 0] < level
    return float(np.mean(different | equivalent))


@pytest.mark.parametrize("effect", [0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("level", [FIRST, LATER])
def test_so_many_seeds_decide_in_four_of_five_tables(effect: float, level: float) -> None:
    """Also where the difference is smaller than the margin, of which 24% had been decided where 80% was said."""
    seeds = seeds_to_decide(Shape(2, 2, paired=False), effect, MARGIN, level=level)
    assert seeds is not None
    assert decided(seeds, effect, level) > 0.75
    assert seeds == 2 or decided(2 * seeds // 3, effect, level) < 0.8


def test_far_beyond_the_margin_it_is_the_number_for_a_difference() -> None:
    assert seeds_to_decide(Shape(2, 2), 2.0, MARGIN) == seeds_for(Shape(2, 2), 2.0)
    assert power_to_decide(Shape(2, 9), 2.0, MARGIN) == pytest.approx(power(Shape(2, 9), 2.0))


def test_at_the_margin_of_nothing_no_number_decides() -> None:
    assert seeds_to_decide(Shape(2, 2), 0.0, 0.0) is None
    assert power_to_decide(Shape(2, 1), 9.0, MARGIN) == 0.0  # one seed without lent spreads is no test
