"""The analysis of forks: what its unit is, that nothing is found where nothing is, and what it can find at which cost.

The noise is what was measured on the proxy of 800 steps: between two arms of one seed the standard deviation of the
difference is .0142 from step 0, .0065 from a common checkpoint at step 200, and .0037 with replicates, which
are taken to be four: the record does not say how many.

Axes: tables, arms K, trunks N, replicates R.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moe_sweeps.records.numbers import PRIMARY
from moe_sweeps.results.compare import Sample, build_fit
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.moderated import Array
from moe_sweeps.results.nested import start_of, unit_values, units
from moe_sweeps.results.outcomes import ArmRun
from moe_sweeps.results.tables import Arm
from moe_sweeps.results.verdicts import against_baseline

UNFORKED, FORKED, REPLICATED, REPLICATES = 0.0142, 0.0065, 0.0037, 4
# Variances of one arm: 2 (i + r) = FORKED^2 and 2 (i + r / 4) = REPLICATED^2.
OF_REPLICATE = (FORKED**2 - REPLICATED**2) / 2 / (1 - 1 / REPLICATES)
OF_ARM = FORKED**2 / 2 - OF_REPLICATE
OF_TRUNK = 0.017**2
STEPS, FORK_AT = 800, 200
EFFECT = 0.005


def row(seed: int, replicate: int, loss: float | None, **other: Any) -> dict[str, Any]:
    fork = {"fork.step": 200, "fork.role": "arm", "fork.run": f"t{seed}", "fork.replicate": replicate}
    start = {"pairing.batches": f"b{seed}", "pairing.initial_weights": f"w{seed}{replicate}"}
    return {"seed": seed, "data_seed": None, "loss": loss, **fork, **start, **other}


def simulated(
    random: np.random.Generator, tables: int, arms: int, trunks: int, replicates: int, *, of_arm: float = OF_ARM
) -> Array:
    """Losses (tables, K, N, R) without any difference between arms."""
    found: Array = np.sqrt(OF_TRUNK) * random.standard_normal((tables, 1, trunks, 1))
    found = found + np.sqrt(of_arm) * random.standard_normal((tables, arms, trunks, 1))
    found = found + np.sqrt(OF_REPLICATE) * random.standard_normal((tables, arms, trunks, replicates))
    return np.asarray(found)


def finds(values: Array, *, by_design: bool = True) -> Array:
    """Which tables (tables,) call an arm different."""
    found = against_baseline(Fit.of(values, by_design=by_design), intervals=False).p_family
    called: Array = np.nanmin(found, -1) < FIRST
    return called


def test_any_number_of_an_arm_is_averaged_over_replicates_as_its_column_is() -> None:
    """Figures over training take theirs from curves; with one replicate a trunk they would end beside the table."""
    rows = [row(seed, r, 4.0, run_id=f"{seed}{r}", summary_loss=seed + r / 10) for seed in (0, 1) for r in (0, 1)]
    runs = tuple(ArmRun(str(r["run_id"]), "f", r["seed"], "done", "", row=r) for r in rows)
    arm = Arm("a", "a", {}, runs, {}, (), ())
    course = {"00": 4.0, "01": 4.4, "10": 5.0}
    found = arm.sample_of(lambda r: course.get(r["run_id"]))
    assert found.values == {(0, None): pytest.approx(4.2), (1, None): 5.0}
    assert arm.sample("summary_loss").values == {(0, None): pytest.approx(0.05), (1, None): pytest.approx(1.05)}


def test_the_unit_is_the_mean_over_the_replicates_of_a_trunk() -> None:
    rows = [row(0, 0, 4.0), row(0, 1, 4.2), row(1, 0, 5.0), row(1, 1, None), row(0, 1, 4.4)]
    assert unit_values(rows, lambda r: r["loss"]) == {(0, None): pytest.approx(4.2), (1, None): 5.0}
    assert [len(found) for found in units(rows).values()] == [2, 2]


def test_a_unit_began_with_its_trunk_and_other_runs_with_their_weights() -> None:
    def weights(one: Any) -> Any:
        return one["pairing.initial_weights"]

    both = [row(0, 0, 4.0), row(0, 1, 4.2)]
    assert start_of(both, weights) == start_of(both[:1], weights) == ("t0", 200, "b0")
    assert start_of([row(0, 0, 4.0, **{"fork.run": None})], weights) is None
    assert start_of([*both, row(0, 2, 4.0, **{"fork.run": "other"})], weights) is None
    assert start_of([row(0, 0, 4.0, **{"fork.step": None})], weights) == "w00"


def test_trunks_are_blocks_although_two_of_them_show_nothing() -> None:
    """From runs that began alike by accident, the correlation must be shown; of trunks it is known."""
    values: list[dict[object, float]] = [{0: 4.00, 1: 4.01}, {0: 4.02, 1: 4.00}]
    for forked in (False, True):
        fit = build_fit([Sample(v, {0: "a", 1: "b"}, forked) for v in values], PRIMARY)
        assert fit is not None
        assert bool(fit.layout.blocked) is forked


def test_a_table_of_forks_finds_nothing_where_nothing_is() -> None:
    """At most 5% of A/A tables, for few and many arms, trunks and replicates; 2,000 tables know that to a point."""
    random = np.random.default_rng(20261129)
    for arms, trunks, replicates in ((2, 3, 1), (2, 4, 8), (6, 3, 2), (6, 6, 4)):
        for of_arm in (0.0, OF_ARM, OF_REPLICATE):
            runs = simulated(random, 2000, arms, trunks, replicates, of_arm=of_arm)
            assert finds(runs.mean(-1)).mean() <= 0.05 + 0.01, (arms, trunks, replicates, of_arm)


def test_replicates_taken_for_seeds_find_what_is_not_there() -> None:
    """What the nested analysis is for: the same runs, with each replicate as a seed of its own."""
    random = np.random.default_rng(20261129)
    runs = simulated(random, 2000, 2, 4, 16)
    naive = finds(runs.reshape(2000, 2, -1)).mean()
    assert finds(runs.mean(-1)).mean() <= 0.06
    assert naive > 0.15  # 20% of 8,000 tables; 12% with 8 replicates, 7% with 4


def test_an_effect_of_5_millinats_costs_a_quarter() -> None:
    """Found in 80% of tables by forks, and not by unforked runs for four times the compute."""
    random = np.random.default_rng(20261129)
    trunks = 18  # 17 find it in 81% of 8,000 tables, and unforked runs need 69 seeds
    forks = simulated(random, 2000, 2, trunks, 1).mean(-1)
    forks[:, 1] -= EFFECT
    assert finds(forks).mean() >= 0.8
    steps = trunks * (FORK_AT + 2 * (STEPS - FORK_AT))
    seeds = 4 * steps // (2 * STEPS)
    unforked = UNFORKED / np.sqrt(2) * random.standard_normal((2000, 2, seeds))
    unforked[:, 1] -= EFFECT
    assert finds(unforked, by_design=False).mean() < 0.8
