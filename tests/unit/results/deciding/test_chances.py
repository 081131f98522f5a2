"""The chance of an answer, against simulated seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from moe_sweeps.results.deciding.chances import PRIOR, critical, equal_later, found_later, spread_found_later
from moe_sweeps.results.power import Shape, detectable


@pytest.mark.parametrize("seeds", [3, 8])
def test_critical_is_what_a_table_finds_in_half_of_all_cases(seeds: int) -> None:
    assert critical(seeds, 1, 0.04) == detectable(Shape(2, seeds, paired=False), chance=0.5, level=0.04)


def test_critical_between_and_beyond_simulated_seeds() -> None:
    ends = critical(8, 1, 0.04), critical(10, 1, 0.04)
    assert ends[1] < critical(9, 1, 0.04) < ends[0]
    assert critical(160, 1, 0.04) == pytest.approx(critical(40, 1, 0.04) / 2)
    assert math.isinf(critical(1, 1, 0.04))
    assert math.isinf(critical(5, 1, 0.0))


@pytest.mark.parametrize(("away", "seen", "later", "needed"), [(1.0, 3, 10, 1.2), (0.1, 4, 20, 0.8), (-2.0, 3, 5, 1.5)])
def test_found_later_is_that_of_drawn_seeds(away: float, seen: int, later: int, needed: float) -> None:
    """The distance is drawn from its distribution given what was seen, then the further seeds are."""
    random = np.random.default_rng(0)
    before = 2 / seen
    weight = PRIOR**2 / (PRIOR**2 + before)
    true = weight * away + math.sqrt(weight * before) * random.standard_normal(200_000)
    new = later - seen
    further = true + math.sqrt(2 / new) * random.standard_normal(200_000)
    final = (seen * away + new * further) / later
    assert found_later(away, seen, later, needed) == pytest.approx(float((abs(final) > needed).mean()), abs=0.004)
    above = found_later(away, seen, later, needed, one_sided=True)
    assert above == pytest.approx(float((final > needed).mean()), abs=0.004)


def test_without_further_seeds_it_is_found_or_not() -> None:
    assert found_later(2.0, 5, 5, 1.9) == 1.0
    assert found_later(-2.0, 5, 5, 1.9) == 1.0
    assert found_later(1.0, 5, 5, 1.9) == 0.0
    assert found_later(-2.0, 5, 5, 1.9, one_sided=True) == 0.0
    assert found_later(2.0, 5, 5, 1.9, one_sided=True) == 1.0
    assert found_later(9.0, 5, 50, math.inf) == 0.0


def test_a_spread_that_is_told_from_its_bound() -> None:
    random = np.random.default_rng(1)
    variance = (0.5 * random.standard_normal((40_000, 8))).var(-1, ddof=1)
    low, high = stats.chi2.ppf([0.02, 0.98], 7) / 7
    drawn = float(((variance < low) | (variance > high)).mean())
    assert spread_found_later(0.5, 8, 0.04) == pytest.approx(drawn, abs=0.01)
    assert spread_found_later(0.5, 1, 0.04) == 0.0


def drawn_later(middle: float, seen: int, later: int) -> np.ndarray:
    """What `later` seeds show of a difference that `seen` seeds showed as `middle`."""
    random = np.random.default_rng(0)
    before, new = 2 / seen, later - seen
    weight = PRIOR**2 / (PRIOR**2 + before)
    true = weight * middle + math.sqrt(weight * before) * random.standard_normal(200_000)
    further = true + math.sqrt(2 / new) * random.standard_normal(200_000)
    return np.asarray((seen * middle + new * further) / later)


@pytest.mark.parametrize("middle", [0.0, 0.3, -0.3, 1.5, -1.5])
@pytest.mark.parametrize("half", [0.2, 0.7, 2.0])
def test_equal_later_is_that_of_drawn_seeds(middle: float, half: float) -> None:
    """A margin of 0.2 can never be shown where 0.4 is needed: 40 seeds an arm were bought for such a one."""
    inside, outside = 0.4, 0.5
    found = drawn_later(middle, 4, 20)
    expected = float((abs(found) < half - inside).mean() + (abs(found) > half + outside).mean())
    chance = equal_later(half - abs(middle), 2 * half, 4, 20, inside, outside)
    assert chance == pytest.approx(expected, abs=0.004)


def test_without_further_seeds_a_difference_is_within_the_margins_or_not() -> None:
    assert equal_later(0.7, 1.4, 5, 5, 0.4, 0.5) == 1.0
    assert equal_later(0.3, 1.4, 5, 5, 0.4, 0.5) == 0.0  # 0.4 from the middle, and within 0.3 it is shown
    assert equal_later(-0.6, 1.4, 5, 5, 0.4, 0.5) == 1.0  # outside
    assert equal_later(-0.4, 1.4, 5, 5, 0.4, 0.5) == 0.0
    assert equal_later(0.7, 1.4, 5, 50, math.inf, 0.5) == 0.0
