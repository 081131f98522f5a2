"""--detect: promises against simulated tables, and noise against numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, compose_run

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.rundir import State, Status
from moe_sweeps.results.contrasts import Fit
from moe_sweeps.results.looks import FIRST
from moe_sweeps.results.verdicts import against_baseline
from moe_sweeps.sweep.detect import Asked, Measured, SpreadOf, measured_noise, promise


def test_a_promise_is_kept_by_the_tables() -> None:
    """Tables of the promised shape find the planted effect as often as promised, within 5 points."""
    measured = Measured(0.02, (2,) * 6)
    found = promise(0.06, measured, Asked((5,) * 4))
    assert found.seeds is not None
    rng, tables = np.random.default_rng(1), 600
    for seeds, promised in ((5, found.power), (found.seeds, None)):
        runs = 0.02 * rng.standard_normal((tables, 4, seeds))
        runs[:, 1] += 0.06
        lent = 4e-4 * rng.chisquare(2, (tables, 6)), np.full((tables, 6), 2.0)
        p = against_baseline(Fit.of(runs, others=lent), intervals=False).p_family[:, 0]
        reached = float(np.mean(p < FIRST))
        if promised is not None:
            assert reached == pytest.approx(promised, abs=0.05)
        else:
            assert reached > 0.75


def test_a_promise_of_forks_is_kept_by_tables_that_trunks_move() -> None:
    """Trunks scatter five times as much as the arms within them, and no spread is borrowed."""
    measured = Measured(0.02, (10,), spread_of=SpreadOf.forks)
    found = promise(0.06, measured, Asked((5,) * 4))
    assert found.seeds is not None
    rng, tables = np.random.default_rng(1), 600
    for trunks in (5, found.seeds):
        runs = 0.02 * rng.standard_normal((tables, 4, trunks)) + 0.1 * rng.standard_normal((tables, 1, trunks))
        runs[:, 1] += 0.06
        p = against_baseline(Fit.of(runs, by_design=True), intervals=False).p_family[:, 0]
        reached = float(np.mean(p < FIRST))
        if trunks == 5:
            assert reached == pytest.approx(found.power, abs=0.05)
        else:
            assert reached > 0.75


def test_more_arms_need_more_seeds_and_correlation_fewer() -> None:
    few, many = (promise(0.06, Measured(0.02, (2, 2)), Asked((3,) * arms)).seeds for arms in (2, 12))
    together = promise(0.06, Measured(0.02, (2, 2), (0.7, 0.4, 0.9)), Asked((3,) * 12)).seeds
    assert few is not None
    assert many is not None
    assert together is not None
    assert together < many
    assert few < many


def test_pairing_counts_only_where_it_is_shown() -> None:
    assert Measured(1.0, (2,), (0.5, -0.1, 0.8)).used_correlation == 0
    assert Measured(1.0, (2,), (0.5, 0.1, 0.8)).used_correlation == 0.5
    assert Measured(1.0, (2,)).used_correlation == 0


def test_extremes() -> None:
    assert promise(1e-6, Measured(1.0, (2, 2)), Asked((2, 2))).seeds is None
    assert promise(1.0, Measured(1.0, (2, 2)), Asked((1,))).seeds is not None  # one arm: as beside a baseline
    with pytest.raises(ValueError, match="above 0"):
        promise(0.0, Measured(1.0, (2, 2)), Asked((2, 2)))


def test_a_plan_of_one_seed_is_promised_what_a_table_of_one_seed_finds() -> None:
    """Alike arms lend their spread; without them nothing can be found (here every arm that lends is in the plan)."""
    noise = Measured(1.0, (2,) * 6, of_arm={"a": 2, "b": 2})
    assert promise(8.0, noise, Asked((1, 1), ("c", "d"))).power > 0.3
    assert promise(8.0, noise, Asked((1, 1), ("a", "b"))).power == 0


def test_the_power_of_unequal_seeds_is_that_of_the_arm_with_the_fewest() -> None:
    noise = Measured(1.0, ())
    few, unequal, many = (promise(4.0, noise, Asked(c)).power for c in ((3, 3, 3), (5, 3, 5), (5, 5, 5)))
    assert few < unequal < many


def test_runs_that_are_there_count_and_arms_of_the_plan_lend_nothing() -> None:
    finished = {"a": frozenset("123"), "b": frozenset("45"), "x": frozenset("678")}
    noise = Measured(1.0, (2, 1, 2), of_arm={"a": 2, "b": 1, "x": 2}, finished=finished)
    asked = Asked.of({"a": {"1": 1}, "b": {"4": 4, "9": 9}, "c": {"0": 0, "r": 0}}, "b", noise)  # c: two replicates
    assert (asked.arms, asked.counts) == (("b", "c", "a"), (3, 1, 3))
    assert noise.lent_to(asked.arms) == (2,)
    assert asked.spelt() == "1 to 3 seeds"
    assert Asked.of({"a": {"1": 1}, "c": {"0": 0, "2": 2}}, None, None) == Asked((1, 2), ("a", "c"))


def test_the_interval_of_a_standard_deviation() -> None:
    """For 4 degrees of freedom chi-squared has the quantiles 0.4844 and 11.1433 (any table)."""
    low, high = Measured(1.0, (1, 3)).interval()
    assert low == pytest.approx(math.sqrt(4 / 11.1433), rel=1e-4)
    assert high == pytest.approx(math.sqrt(4 / 0.4844), rel=1e-4)


def finish(line: tuple[str, ...], val_loss: float) -> str:
    folder = freeze(compose_run(*TINY, *line), [], command="test")
    folder.write_summary({"val_loss": val_loss})
    folder.write_status(Status(State.done))
    return folder.run_id


def test_noise_is_that_of_all_arms_of_this_size(folders: Path) -> None:
    assert measured_noise(folders, compose_run(*TINY)) is None
    for s, v in enumerate((4.0, 4.2, 4.4)):
        finish(("balancer=aux", f"seed={s}"), v)
    for s, v in enumerate((4.5, 4.7, 5.2)):
        finish(("balancer=lossfree", f"seed={s}"), v)
    finish(("balancer=aux", "seed=9", "model.layers=3"), 9.0)  # another size
    finish(("balancer=aux", "seed=9", "trainer.steps=48"), 9.0)  # another length
    noise = measured_noise(folders, compose_run(*TINY))
    assert noise is not None
    assert noise.sd == pytest.approx(math.sqrt((np.var([4.0, 4.2, 4.4]) + np.var([4.5, 4.7, 5.2])) * 3 / 4))
    assert noise.lent == (2, 2)
    assert sorted(noise.of_arm.values()) == [2, 2]
    assert sorted(map(len, noise.finished.values())) == [3, 3]


def test_one_seed_is_no_noise(folders: Path) -> None:
    finish(("balancer=aux",), 4.0)
    finish(("balancer=lossfree",), 5.0)
    assert measured_noise(folders, compose_run(*TINY)) is None
