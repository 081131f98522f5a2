"""The noise that a plan of forks is judged by, against planted spreads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from planted import FORK_SD, SD, finish

from moe_sweeps.sweep.detect import SpreadOf, measured_noise
from moe_sweeps.sweep.fork_noise import fork_noise, noise_for, replicates
from moe_sweeps.sweep.plan import make_plan

LINE = ("balancer=aux", "aux.coef=0.1,0.4", "seed=range(0,6)")


def forks(arms: str, trunks: int, count: int, interaction: float, own: float) -> list[dict[str, object]]:
    """Finished forks: trunk + what a treatment does to a trunk + what is a replicate's own."""
    random = np.random.default_rng(0)
    rows = []
    for seed in range(trunks):
        trunk = 0.1 * random.standard_normal()
        for arm in arms:
            unit = trunk + interaction * random.standard_normal()
            rows += [
                {"fork.step": 8, "fork.arm": "t", "fork.role": "arm", "arm": arm, "seed": seed, "state": "done",
                 "fork.replicate": number, "val_loss": 4 + unit + own * random.standard_normal()}
                for number in range(count)
            ]  # fmt: skip
    return rows


def test_the_spread_of_forks_is_that_within_trunks() -> None:
    rows = forks("abc", 50, 1, 0.0, FORK_SD)
    sd, freedom = fork_noise(rows)[8]
    assert sd == pytest.approx(FORK_SD, rel=0.2)
    assert freedom == pytest.approx(98, abs=2)
    assert fork_noise([row for row in rows if row["arm"] == "a"]) == {}


def test_two_trunks_of_two_arms_by_hand() -> None:
    values = {("a", 0): 4.0, ("b", 0): 5.0, ("a", 1): 5.0, ("b", 1): 4.0}  # differences 1 and -1: variance 2
    rows = [
        {"fork.step": 8, "fork.arm": "t", "arm": arm, "seed": seed, "state": "done", "val_loss": value}
        for (arm, seed), value in values.items()
    ]
    assert fork_noise(rows)[8] == pytest.approx((1.0, 1))  # of one arm: half of it


def test_a_unit_scatters_as_the_mean_of_as_many_replicates_as_the_plan_has() -> None:
    """Replicates thin out their own noise, not what a treatment does to their trunk."""
    rows = forks("abc", 200, 4, 0.01, 0.02)
    for most in (1, 2, 4):
        expected = math.sqrt(0.01**2 + 0.02**2 / most)
        assert fork_noise(rows, most)[8][0] == pytest.approx(expected, rel=0.08)


def test_replicates_of_one_number_are_compared() -> None:
    """Number r perturbs all arms of a trunk alike, in whatever order the runs are read."""
    rows = [
        {"fork.step": 8, "fork.arm": "t", "arm": arm, "seed": seed, "state": "done", "fork.replicate": number,
         "val_loss": 4 + 5.0 * number + (0.1 if (arm, seed) in {("a", 0), ("b", 1)} else 0.0)}
        for seed in (0, 1) for arm, numbers in (("a", (0, 1)), ("b", (1, 0))) for number in numbers
    ]  # fmt: skip
    assert fork_noise(rows, 1)[8] == pytest.approx((0.1, 1))


def test_forks_of_the_plans_size_tell_its_noise(folders: Path) -> None:
    finish([*LINE, "fork.step=8"], sd=FORK_SD)
    noise = noise_for(make_plan([*TINY, *LINE, "fork.step=8"]))
    assert noise
    assert noise.spread_of is SpreadOf.forks
    assert noise.freedom == 5  # (2 arms - 1) (6 trunks - 1)
    assert FORK_SD / 2 < noise.sd < 2 * FORK_SD
    for other in (["fork.step=12"], ["fork.step=8", "fork.trunk=['aux.coef=0.2']"]):  # another size
        assert noise_for(make_plan([*TINY, *LINE, *other])) is None


def test_more_replicates_than_are_finished_are_not_made_up(folders: Path) -> None:
    finish([*LINE, "fork.step=8"], sd=FORK_SD)
    plan = make_plan([*TINY, *LINE, "fork.step=8", "fork.replicates=3"])
    noise, single = noise_for(plan), noise_for(make_plan([*TINY, *LINE, "fork.step=8"]))
    assert replicates(plan) == 3
    assert noise
    assert noise == single
    assert noise.replicates == 1


def test_unforked_runs_are_a_bound(folders: Path) -> None:
    finish(["balancer=aux", "seed=range(0,8)"])
    plan = make_plan([*TINY, *LINE, "fork.step=8"])
    noise = noise_for(plan)
    unforked = measured_noise(folders, next(iter(make_plan([*TINY, *LINE]).runs.values())).run)
    assert noise
    assert unforked
    assert noise.spread_of is SpreadOf.unforked
    assert (noise.sd, noise.freedom) == (unforked.sd, 7)
    assert SD / 2 < noise.sd < 2 * SD
    assert noise.shape(2, 4, noise.lent).lent == ()  # a table of forks borrows no spread
    assert noise_for(make_plan([*TINY, *LINE])) == unforked


def test_nothing_finished_tells_nothing(folders: Path) -> None:
    assert noise_for(make_plan([*TINY, *LINE, "fork.step=8"])) is None
