"""Statistics over seeds against worked examples, tables and scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats as scipy_stats  # type: ignore[import-untyped]

from moe_sweeps.results.stats import Estimate, estimate, t_quantile


# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, upper critical values of Student's t, column 0.975
# (itl.nist.gov/div898/handbook/eda/section3/eda3672.htm).
@pytest.mark.parametrize(
    ("degrees", "critical"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (100, 1.984)]
)
def test_t_quantile_is_the_one_of_the_nist_table(degrees: int, critical: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(critical, abs=5e-4)


def test_estimate_by_hand() -> None:
    # mean 3; squared deviations 1 + 0 + 1, over n - 1 = 2, root 1; half-width 4.302653 * 1 / sqrt(3) = 2.484138
    found = estimate([2.0, 3.0, 4.0])
    assert (found.n, found.mean, found.sd) == (3, 3.0, 1.0)
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)


def test_two_values_use_one_degree_of_freedom() -> None:
    # 12.706205 * (0.2 / sqrt(2)) / sqrt(2) = 1.2706205
    found = estimate([1.0, 1.2])
    assert found.half_width == pytest.approx(1.2706205, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_interval_is_scipys(confidence: float) -> None:
    values = [3.91, 3.87, 3.95, 3.90, 3.99]
    found = estimate(values, confidence)
    assert found.mean is not None
    assert found.half_width is not None
    sem = scipy_stats.sem(values)
    low, high = scipy_stats.t.interval(confidence, df=4, loc=found.mean, scale=sem)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high), rel=1e-12)


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    assert estimate([3.5]) == Estimate(1, 3.5, None, None)
    assert estimate([]) == Estimate(0, None, None, None)


def test_equal_values_have_exactly_no_spread() -> None:
    assert estimate([0.1] * 3) == Estimate(3, 0.1, 0.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate([1.0, bad])
