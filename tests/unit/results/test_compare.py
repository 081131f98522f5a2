"""Differences between arms: which runs count, which test is used, and what is said of the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from unit.results import oracle

from moe_sweeps.records.numbers import BY_COLUMN, PRIMARY, Metric, metric_of
from moe_sweeps.results.compare import INDEPENDENT, PAIRED, SINGLE, Comparison, Sample, began_alike, compare_all
from moe_sweeps.results.looks import FIRST, LATER

MAXVIO, ACCURACY = BY_COLUMN["val_maxvio_global"], BY_COLUMN["val_accuracy"]
# Student's sleep data (Biometrika 6, 1908, p. 20), which R ships as `sleep`: extra hours of sleep with two drugs.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def sample(values: Sequence[float], start: str | None = "same", seeds: Sequence[int] | None = None) -> Sample:
    chosen = list(seeds or range(len(values)))
    return Sample(dict(zip(chosen, values, strict=True)), {s: start and f"{start}{s}" for s in chosen})


def compared(a: Sample, b: Sample, metric: Metric = PRIMARY) -> Comparison:
    return compare_all({"b": b, "a": a}, "b", metric)["a"]


def test_paired_by_seed_is_what_r_prints_for_the_sleep_data() -> None:
    # R: with(sleep, t.test(extra[group == 1], extra[group == 2], paired = TRUE)); their correlation is 0.795
    found = compared(sample(DRUG_1), sample(DRUG_2))
    assert (found.kind, found.n) == (PAIRED, (10, 10))
    assert found.difference == pytest.approx(-1.58)
    assert found.p == pytest.approx(0.002833, abs=5e-7)


@pytest.mark.parametrize("start", ["other", None])
def test_seeds_that_began_differently_are_independent_samples_as_in_r(start: str | None) -> None:
    # R: t.test(extra ~ group, data = sleep)
    found = compared(sample(DRUG_1), sample(DRUG_2, start))
    assert (found.kind, found.n) == (INDEPENDENT, (10, 10))
    assert found.p == pytest.approx(0.07939, abs=5e-6)


def test_seeds_that_do_not_go_together_are_independent_though_they_began_alike() -> None:
    shuffled = [DRUG_2[i] for i in (5, 2, 7, 0, 9, 1, 3, 8, 6, 4)]
    assert compared(sample(DRUG_1), sample(shuffled)).kind == INDEPENDENT


def test_one_seed_that_began_differently_undoes_the_pairing() -> None:
    b = sample(DRUG_2)
    assert began_alike([sample(DRUG_1), b])
    assert not began_alike([sample(DRUG_1), Sample(b.values, {**b.pairing, 3: "another start"})])


def test_every_run_of_both_sides_counts_where_seeds_are_independent() -> None:
    found = compared(sample([3.0, 3.2, 3.9], seeds=[0, 1, 7]), sample([3.1, 3.4, 3.6], seeds=[3, 4, 2]))
    assert found.n == (3, 3)
    reference = stats.ttest_ind([3.0, 3.2, 3.9], [3.1, 3.4, 3.6], equal_var=False)
    assert found.p == pytest.approx(float(reference.pvalue))


def test_one_seed_has_a_difference_and_no_test() -> None:
    found = compared(sample([3.0]), sample([3.1]))
    assert (found.kind, found.n) == (SINGLE, (1, 1))
    assert found.difference == pytest.approx(-0.1)
    assert (found.p, found.low, found.high) == (None, None, None)
    assert found.verdict == "one seed: nothing can be concluded"


def test_one_seed_is_judged_by_the_spread_that_alike_runs_lend() -> None:
    lent = np.full(6, 2 * 0.02**2), np.full(6, 2.0)
    arms = {"base": sample([4.0]), "near": sample([4.03]), "far": sample([4.5])}
    found = compare_all(arms, "base", PRIMARY, lent=lent)
    assert found["far"].verdict == "worse (one seed)"
    assert found["near"].verdict == "undecided"
    assert found["far"].low is not None
    assert 0 < found["far"].low < 0.5


def test_an_arm_with_one_seed_is_one_more_of_the_family() -> None:
    """Two families at the level each would err in up to twice as many tables."""
    runs = {"base": [4.0, 4.02, 4.01], "a": [4.1, 4.12, 4.13], "b": [4.2, 4.21, 4.23]}
    two = {arm: sample(values, None) for arm, values in runs.items()}
    alone, beside = compare_all(two, "base", PRIMARY), compare_all({**two, "c": sample([4.0])}, "base", PRIMARY)
    a, b = alone["a"].p_family, alone["b"].p_family
    assert a is not None
    assert b is not None
    assert beside["a"].p == pytest.approx(alone["a"].p, rel=0.1)  # the baseline stands in one more
    assert beside["a"].p_family == pytest.approx(2 * a, rel=0.1)  # Holm: second of three, not of two
    assert beside["b"].p_family == pytest.approx(1.5 * b, rel=0.1)
    assert beside["c"].kind == SINGLE


def test_after_the_last_look_there_is_a_p_and_no_interval() -> None:
    found = compare_all({"base": sample([4.0, 4.01]), "a": sample([4.5, 4.51])}, "base", PRIMARY, look=11)["a"]
    assert found.p_family is not None
    assert (found.low, found.high, found.detectable, found.verdict) == (None, None, None, "undecided")


def test_without_a_value_there_is_no_comparison() -> None:
    assert compare_all({"a": sample([]), "b": sample([3.0])}, "b", PRIMARY) == {}
    assert compare_all({"a": sample([3.0]), "b": sample([])}, "b", PRIMARY) == {}
    assert compare_all({"a": sample([3.0])}, "b", PRIMARY) == {}


@pytest.mark.parametrize("start", ["same", "other"])
@pytest.mark.parametrize("shift", [0.0, 0.1, 1 / 3])
def test_zero_variance_is_not_certainty(start: str, shift: float) -> None:
    # R 4: t.test(c(0.1, 0.1, 0.1)) stops: "data are essentially constant"
    found = compared(sample([3.0 + shift] * 3), sample([3.0] * 3, start))
    assert found.difference == pytest.approx(shift)
    assert (found.p, found.low, found.high) == (None, None, None)
    assert found.verdict == "no test: no spread"


def test_the_verdict_asks_for_the_corrected_p_alone() -> None:
    """The detectable difference is a number for planning: a found difference below it is found."""
    small = Comparison(PRIMARY, PAIRED, (3, 3), -0.01, -0.011, -0.009, 0.001, 0.001, detectable=0.5)
    assert small.verdict == "better"
    assert replace(small, p_family=0.06).verdict == "undecided"
    assert replace(small, level=0.0005).verdict == "undecided"
    assert replace(small, lost=1).verdict == "no verdict: 1 diverged or stopped"
    assert replace(small, mixed=True).verdict == "no verdict: mixed code or data"
    assert replace(small, metric=ACCURACY).verdict == "worse"


def test_maxvio_is_compared_as_a_ratio() -> None:
    """Twice as much is twice as much at every level, and units of the spread do not matter."""
    base = [1.0, 1.1, 0.95, 1.05]
    low, high = (
        compared(sample([2 * k * v for v in base]), sample([k * v for v in base], "x"), MAXVIO) for k in (1, 9)
    )
    assert low.difference == pytest.approx(math.log(2))
    assert low.p == pytest.approx(high.p)
    assert MAXVIO.spell_effect(low.difference) == "×2.00"
    assert PRIMARY.spell_effect(0.05) == "+0.0500"


def test_a_value_without_a_logarithm_is_not_compared() -> None:
    assert compare_all({"a": sample([0.0, 0.1]), "b": sample([0.2, 0.3])}, "b", MAXVIO) == {}
    assert compare_all({"a": sample([0.0, 0.1]), "b": sample([0.2, 0.3])}, "b", metric_of("something")) != {}


def test_later_looks_have_a_level_of_their_own() -> None:
    arms = {"base": sample([4.0, 4.02, 4.01]), "a": sample([4.2, 4.22, 4.23])}
    first, second, last = (compare_all(arms, "base", PRIMARY, look=look)["a"] for look in (1, 2, 11))
    assert (first.level, second.level, last.level) == (FIRST, LATER, 0.0)
    assert first.verdict == "worse"
    assert last.verdict == "undecided"
    assert first.p_family == second.p_family


# --- probability of improvement ---------------------------------------------------------------------------------------


def test_the_probability_of_two_arms_is_the_one_sided_test_of_welch() -> None:
    found = compared(sample(DRUG_1), sample(DRUG_2, None))
    less = stats.ttest_ind(DRUG_1, DRUG_2, equal_var=False, alternative="less").pvalue
    assert found.probability_better == pytest.approx(1 - float(less))
    assert compared(sample(DRUG_1), sample(DRUG_2, None), ACCURACY).probability_better == pytest.approx(float(less))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_probability_in_a_table_is_that_of_the_oracle(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    arms = (4 + random.standard_normal((5, seeds)) * np.geomspace(1, 4, 5)[:, None]).tolist()
    found = compare_all({str(i): sample(arm, None) for i, arm in enumerate(arms)}, "0", PRIMARY)
    assert [c.probability_better for c in found.values()] == pytest.approx(oracle.lower(arms), rel=1e-5)


def test_the_probability_does_not_promise_more_than_comes_true() -> None:
    """Arms whose true differences are spread wide, as a flat prior has them: of those at 60% to 99% at least as many
    are better as the probabilities say."""
    random, said, held = np.random.default_rng(8), [], []
    for _ in range(200):
        true = 8 * random.standard_normal(4)
        runs = true[:, None] + random.standard_normal((4, 3))
        found = compare_all({str(i): sample(arm.tolist(), None) for i, arm in enumerate(runs)}, "0", PRIMARY)
        for arm, c in found.items():
            if c.probability_better is not None and 0.6 < c.probability_better < 0.99:
                said.append(c.probability_better)
                held.append(true[int(arm)] < true[0])
    assert len(said) > 40
    assert np.mean(held) > np.mean(said) - 2 * math.sqrt(0.25 / len(said))


def test_there_is_no_probability_where_there_is_no_test() -> None:
    assert compared(sample([3.0]), sample([3.1])).probability_better is None
    assert compared(sample([3.0, 3.0]), sample([3.0, 3.0])).probability_better is None
    found = compared(sample([3.0, 3.1, 3.2]), sample([3.4, 3.5, 3.3]))
    assert replace(found, lost=1).probability_better is None
    assert replace(found, mixed=True).probability_better is None
    assert found.probability_better is not None


def test_a_verdict_and_its_probability_never_disagree() -> None:
    random = np.random.default_rng(9)
    for _ in range(60):
        runs = random.standard_normal((5, 3)) + 3 * random.standard_normal((5, 1))
        for c in compare_all({str(i): sample(a.tolist(), None) for i, a in enumerate(runs)}, "0", PRIMARY).values():
            assert c.probability_better is not None
            assert not c.decided or (c.probability_better > 0.98) == c.better
            assert c.probability_better == 0.5 or (c.probability_better > 0.5) == c.better
