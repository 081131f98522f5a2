"""Tests between arms against values computed elsewhere: scipy directly, R's own worked examples, and by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from scipy import stats  # type: ignore[import-untyped]

from moe_sweeps.results.columns import METRICS, PRIMARY
from moe_sweeps.results.compare import (
    PAIRED,
    SINGLE,
    WELCH,
    Comparison,
    Sample,
    compare,
    complete,
    detectable_effect,
    holm,
    pooled_sd,
)
from moe_sweeps.results.outcomes import ArmRun
from moe_sweeps.results.stats import estimate
from moe_sweeps.results.tables import Arm, compare_arms

# Student's sleep data (Biometrika 6, 1908, p. 20), which R ships as `sleep`: extra hours of sleep with two drugs.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def sample(values: Sequence[float], start: str | None = "same", seeds: Sequence[int] | None = None) -> Sample:
    chosen = list(seeds or range(len(values)))
    return Sample(dict(zip(chosen, values, strict=True)), {s: start and f"{start}{s}" for s in chosen})


def compared(a: Sample, b: Sample) -> Comparison:
    found = compare(a, b)
    assert found is not None
    return found


def test_paired_by_seed_is_what_r_prints_for_the_sleep_data() -> None:
    # R: with(sleep, t.test(extra[group == 1], extra[group == 2], paired = TRUE))
    found = compared(sample(DRUG_1), sample(DRUG_2))
    assert (found.kind, found.n) == (PAIRED, (10,))
    assert found.difference == pytest.approx(-1.58)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert [found.low, found.high] == pytest.approx([-2.4598858, -0.7001142], abs=5e-8)


@pytest.mark.parametrize("start", ["other", None])
def test_seeds_that_began_differently_are_independent_samples_as_in_r(start: str | None) -> None:
    # R: t.test(extra ~ group, data = sleep)
    found = compared(sample(DRUG_1), sample(DRUG_2, start))
    assert (found.kind, found.n) == (WELCH, (10, 10))
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert [found.low, found.high] == pytest.approx([-3.3654832, 0.2054832], abs=5e-8)


def test_one_seed_that_began_differently_undoes_the_pairing() -> None:
    b = sample(DRUG_2)
    other = Sample(b.values, {**b.pairing, 3: "another start"})
    assert compared(sample(DRUG_1), other).kind == WELCH


def test_missing_pairs_are_left_out_of_both_sides() -> None:
    found = compared(sample([3.0, 3.2, 3.9], seeds=[0, 1, 7]), sample([3.1, 3.4, 3.6], seeds=[0, 1, 2]))
    assert (found.kind, found.n) == (PAIRED, (2,))
    assert found.difference == pytest.approx(-0.15)
    reference = stats.ttest_rel([3.0, 3.2], [3.1, 3.4])
    assert found.p == pytest.approx(float(reference.pvalue))


def test_no_common_seed_is_unpaired() -> None:
    found = compared(sample([3.0, 3.2], seeds=[0, 1]), sample([3.1, 3.4], seeds=[2, 3]))
    assert (found.kind, found.n) == (WELCH, (2, 2))
    assert found.p == pytest.approx(float(stats.ttest_ind([3.0, 3.2], [3.1, 3.4], equal_var=False).pvalue))


def test_one_seed_has_a_difference_and_no_test() -> None:
    found = compared(sample([3.0]), sample([3.1]))
    assert (found.kind, found.n) == (SINGLE, (1,))
    assert found.difference == pytest.approx(-0.1)
    assert (found.p, found.low, found.high) == (None, None, None)
    assert found.verdict == "one seed: nothing can be concluded"


def test_two_seeds_by_hand() -> None:
    # differences -0.1 and -0.2: mean -0.15, sd 0.0707107, error 0.05; t(0.975, 1) = 12.7062
    found = compared(sample([3.0, 3.0]), sample([3.1, 3.2]))
    assert [found.low, found.high] == pytest.approx([-0.78531, 0.48531], abs=1e-5)
    assert found.p == pytest.approx(2 * math.atan(1 / 3) / math.pi)  # Student's t with 1 degree of freedom is Cauchy's


def test_without_a_value_there_is_no_comparison() -> None:
    assert compare(sample([]), sample([3.0])) is None
    assert compare(sample([3.0]), sample([])) is None


@pytest.mark.parametrize("start", ["same", "other"])
@pytest.mark.parametrize("shift", [0.0, 0.1, 1 / 3])
def test_zero_variance_is_not_certainty(start: str, shift: float) -> None:
    # R 4: t.test(c(0.1, 0.1, 0.1)) stops: "data are essentially constant"
    found = compared(sample([3.0 + shift] * 3), sample([3.0] * 3, start))
    assert found.difference == pytest.approx(shift)
    assert (found.p, found.low, found.high) == (None, None, None)
    assert found.verdict == "no test: no spread"


def test_holm_is_what_r_gives() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_detectable_effect_is_the_inverse_of_rs_power() -> None:
    # R: power.t.test(n = 20, delta = 1, sd = 1) has power 0.8689528
    assert detectable_effect(1.0, (20, 20), power=0.8689528) == pytest.approx(1.0, abs=1e-6)
    shift, freedom = math.sqrt(5) * 2.0, 4
    critical = stats.t.ppf(0.975, freedom)
    power = float(stats.nct.sf(critical, freedom, shift))
    assert detectable_effect(1.5, (5,), power=power) == pytest.approx(3.0)
    assert detectable_effect(1.0, (1,)) is None
    assert detectable_effect(1.0, (1, 5)) is None


def test_pooled_sd_by_hand() -> None:
    # variances 1 (2 degrees of freedom) and 4 (1): (2 + 4) / 3
    found = pooled_sd([[1.0, 2.0, 3.0], [0.0, math.sqrt(8)], [7.0]])
    assert found == pytest.approx((math.sqrt(2), 3))
    assert pooled_sd([[1.0], []]) is None


def test_a_difference_below_what_can_be_detected_is_grey_whatever_its_p() -> None:
    small = Comparison(PAIRED, (3,), -0.01, -0.011, -0.009, 0.001)
    found = complete({"a": small}, 0.01, None, None)["a"]
    assert found.p_holm == 0.001
    assert found.detectable == pytest.approx(detectable_effect(0.01, (3,)))
    assert found.grey
    assert found.verdict == "no detectable difference"


def test_a_single_seed_is_measured_against_the_noise_floor() -> None:
    found = complete({"a": Comparison(SINGLE, (1,), -0.01), "b": Comparison(SINGLE, (1,), 0.05)}, None, None, 0.02)
    assert found["a"].verdict == "one seed: nothing can be concluded"
    assert found["b"].verdict == "above the noise floor, but one seed"


def test_an_arm_that_lost_seeds_gets_no_verdict() -> None:
    clear = Comparison(PAIRED, (3,), -1.0, -1.1, -0.9, 1e-6, 1e-6, 0.1)
    assert clear.verdict == "better"
    assert (
        Comparison(PAIRED, (3,), -1.0, -1.1, -0.9, 1e-6, 1e-6, 0.1, lost=1).verdict
        == "no verdict: 1 diverged or stopped"
    )
    assert Comparison(PAIRED, (3,), -1.0, -1.1, -0.9, 1e-6, 1e-6, 0.1, lower_is_better=False).verdict == "worse"


def simulated(rng: random.Random, arms: int, seeds: int, gain: float, paired: bool) -> tuple[Arm, ...]:
    """Arms whose seeds share most of their noise; all but the first two are alike, the second is better by `gain`."""
    shared = [rng.gauss(0, 0.02) for _ in range(seeds)]
    made = []
    for place in range(arms):
        rows: list[dict[str, Any]] = [
            {"seed": s, "data_seed": None, "pairing.batches": f"b{s}",
             "pairing.initial_weights": f"w{s}" if paired else f"w{place}{s}",
             "val_loss": 4 + (shared[s] if paired else 0) + rng.gauss(0, 0.01) - gain * (place == 1)}
            for s in range(seeds)
        ]  # fmt: skip
        runs = tuple(ArmRun(f"{place}{s}", "", s, "done", "", False, row) for s, row in enumerate(rows))
        cells = {m.column: estimate([]) for m in METRICS}
        made.append(Arm(str(place), str(place), {}, runs, cells, ("c",), ("d",)))
    return tuple(made)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_identical_arms_are_called_better_in_at_most_five_percent_of_tables(seeds: int, paired: bool) -> None:
    rng, tables = random.Random(seeds), 300
    named = 0
    for _ in range(tables):
        found = compare_arms(simulated(rng, 5, seeds, 0.0, paired), "0", PRIMARY, None)
        named += any(c.verdict in ("better", "worse") for c in found.values())
    assert named <= 0.05 * tables


def test_a_real_gain_is_found() -> None:
    rng = random.Random(1)
    found = [compare_arms(simulated(rng, 5, 5, 0.06, True), "0", PRIMARY, None) for _ in range(50)]
    assert sum(table["1"].verdict == "better" for table in found) >= 40
    assert sum(any(table[a].verdict == "better" for a in "234") for table in found) <= 2
