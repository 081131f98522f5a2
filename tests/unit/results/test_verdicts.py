"""The family test: against a slow oracle, against closed forms, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from unit.results import oracle

from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.moderated import Array
from moe_sweeps.results.verdicts import Family, against_baseline, holm

ISSUE = [[4.150, 4.160, 4.155], [4.100, 4.1105, 4.1055], [4.15, 4.25, 4.10]]


def judged(runs: Array, *, blocks: bool = True) -> Family:
    return against_baseline(Fit.of(runs, blocks=blocks))


@pytest.mark.parametrize(("arms", "seeds"), [(3, 2), (3, 3), (4, 5), (6, 3), (9, 4)])
def test_agrees_with_the_oracle(arms: int, seeds: int) -> None:
    random = np.random.default_rng([arms, seeds])
    spreads = np.geomspace(1, 4, arms)
    for _ in range(6):
        runs = 4 + random.standard_normal((arms, seeds)) * spreads[:, None] + random.standard_normal((arms, 1))
        expected = oracle.family(runs.tolist())
        np.testing.assert_allclose(judged(runs, blocks=False).p_family, expected, rtol=1e-5)


def test_agrees_with_the_oracle_where_runs_are_missing() -> None:
    runs = np.random.default_rng(3).standard_normal((5, 6))
    runs[1, 2] = runs[3, 0] = runs[3, 5] = np.nan
    expected = oracle.family([row[np.isfinite(row)].tolist() for row in runs])
    np.testing.assert_allclose(judged(runs, blocks=False).p_family, expected, rtol=1e-5)


def test_two_arms_alone_are_compared_by_welch() -> None:
    runs = np.random.default_rng(4).standard_normal((2, 5)) * [[1.0], [3.0]]
    expected = stats.ttest_ind(runs[1], runs[0], equal_var=False)
    found = judged(runs, blocks=False)
    low, high = expected.confidence_interval(1 - FIRST)
    assert found.p_family == pytest.approx([expected.pvalue])
    assert [*found.low, *found.high] == pytest.approx([low, high])


def test_two_arms_whose_seeds_go_together_are_compared_by_a_paired_test() -> None:
    random = np.random.default_rng(5)
    runs = random.standard_normal((1, 6)) * 3 + random.standard_normal((2, 6)) * 0.1
    assert judged(runs).p_family == pytest.approx([stats.ttest_rel(runs[1], runs[0]).pvalue])
    assert judged(runs, blocks=False).p_family[0] > 0.5


def test_a_noisy_third_arm_does_not_delete_the_finding_of_another() -> None:
    """Issue 19, point 1: with the third arm the second read "no detectable difference"."""
    alone, beside = judged(np.array(ISSUE[:2])), judged(np.array(ISSUE))
    assert alone.p_family[0] < FIRST
    assert beside.p_family[0] < FIRST
    assert beside.p_family[1] > FIRST


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, np.nan])) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_do_not_matter(factor: float) -> None:
    runs = np.random.default_rng(6).standard_normal((5, 3))
    plain, scaled = judged(runs), judged(runs * factor)
    np.testing.assert_allclose(scaled.p_family, plain.p_family, rtol=1e-6)
    np.testing.assert_allclose(scaled.low, plain.low * factor, rtol=1e-6)


def test_the_order_of_arms_does_not_matter() -> None:
    runs = np.random.default_rng(7).standard_normal((5, 4))
    order = [0, 3, 1, 4, 2]
    np.testing.assert_allclose(judged(runs[order]).p_family, judged(runs).p_family[[2, 0, 3, 1]], rtol=1e-9)


def test_many_tables_at_once_are_the_tables_one_by_one() -> None:
    runs = np.random.default_rng(8).standard_normal((20, 4, 3)) + np.arange(4)[:, None]
    together = against_baseline(Fit.of(runs))
    for place, one in enumerate(runs):
        np.testing.assert_allclose(together.p_family[place], judged(one).p_family, rtol=1e-9)
        np.testing.assert_allclose(together.low[place], judged(one).low, rtol=1e-6, atol=1e-8)


def test_an_interval_excludes_zero_exactly_where_the_arm_is_decided() -> None:
    random = np.random.default_rng(9)
    runs = random.standard_normal((500, 5, 3)) + random.choice([0, 3, 6], (500, 5, 1))
    found = against_baseline(Fit.of(runs))
    excludes = (found.low >= 0) | (found.high <= 0)
    assert (excludes == (found.p_family < FIRST)).all()
    assert 0.1 < excludes.mean() < 0.9
    assert ((found.low <= found.difference) & (found.difference <= found.high)).all()


def test_an_arm_with_one_run_is_no_member_of_the_family() -> None:
    runs = np.random.default_rng(10).standard_normal((4, 3))
    runs[2, 1:] = np.nan
    found = judged(runs, blocks=False)
    assert np.isnan(found.p_family[1])
    assert np.isfinite(found.p_family[[0, 2]]).all()
    borrowed = against_baseline(Fit.of(runs, blocks=False), single=True)
    assert np.isfinite(borrowed.p_family).all()
    assert np.isfinite(borrowed.low).all()


def test_equal_values_everywhere_have_no_test() -> None:
    with pytest.raises(ValueError, match="no spread"):
        judged(np.ones((3, 3)))
