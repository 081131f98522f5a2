"""What a core-hour decides: the numbers behind it on values that were made up, and on the committed runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import compose_run
from resolving_power import DESIGNS, RECIPES, Design, by_fork, by_recipe, core_hours, resolution, row, within_trunks

from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.noise import size_of
from moe_sweeps.records.numbers import PRIMARY


def test_spread_and_signal_by_hand() -> None:
    found = resolution([[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]])  # each has variance 2; the means are 2, 6 and 10
    assert found.sd == pytest.approx(math.sqrt(2))
    assert found.freedom == 3
    assert found.signal == pytest.approx(math.sqrt((16 - 2 / 2) / 2))


def test_recipes_that_lie_no_further_apart_than_seeds_have_no_signal() -> None:
    assert resolution([[0.0, 1.0], [0.1, 1.1]]).signal == 0.0
    assert resolution([[0.0, 1.0, 2.0]]).signal is None


def test_a_recipe_with_one_seed_tells_of_the_signal_alone() -> None:
    assert resolution([[0.0, 2.0], [10.0]]).freedom == 1


@pytest.mark.parametrize("groups", [[], [[1.0]], [[1.0], [2.0]], [[1.0, 1.0]]], ids=str)
def test_without_noise_nothing_is_promised(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="two seeds that differ"):
        resolution(groups)


def test_what_a_trunk_moves_alike_is_no_noise() -> None:
    arms_A, trunks_T = np.array([[0.0], [1.0], [5.0]]), np.array([[10.0, -3.0]])
    left_AT = np.array([[0.5, -0.5], [-0.5, 0.5], [0.0, 0.0]])  # sums to 0 over arms and over trunks
    found = within_trunks((arms_A + trunks_T + left_AT).tolist())
    assert (found.recipes, found.freedom) == (3, 2)
    assert found.sd == pytest.approx(math.sqrt(1.0 / 2))
    assert found.signal == pytest.approx(math.sqrt((7 - 0.5 / 2) / 0.5))  # the variance of 0, 1 and 5 is 7


@pytest.mark.parametrize("groups", [[], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [3.0]]], ids=str)
def test_arms_that_share_no_trunks_are_refused(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="the same trunks"):
        within_trunks(groups)


def test_a_trunk_is_paid_for_once() -> None:
    alone, forked = core_hours(0.005, 0.01, 100.0), core_hours(0.005, 0.01, 100.0, 0.25)
    assert alone is not None
    assert forked is not None
    assert forked / alone == pytest.approx((6 * 0.75 + 0.25) / 6, rel=0.15)  # and as many seeds, one more or less


def test_core_hours_fall_with_the_square_of_the_spread() -> None:
    loud, quiet = (core_hours(0.005, sd, 100.0) for sd in (0.02, 0.01))
    assert loud is not None
    assert quiet is not None
    assert loud / quiet == pytest.approx(4, rel=0.1)  # few seeds pay a little more for not knowing the spread
    assert core_hours(0.005, 0.01, 200.0) == pytest.approx(2 * quiet)
    assert core_hours(1e-5, 0.02, 100.0) is None  # more seeds than anybody trains


def test_the_committed_runs_of_the_old_proxy_are_found_whatever_scale_means_now() -> None:
    old = DESIGNS[0]
    groups = by_recipe(REPOSITORY / "results" / old.runs / "runs", old, PRIMARY)
    assert [len(g) for g in groups] == [3] * len(RECIPES)
    assert sorted(groups[0]) == pytest.approx([4.1349, 4.1482, 4.1651], abs=1e-4)
    assert row(old, 110.0)["sd of val_loss"] == pytest.approx(0.0176, abs=1e-4)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: str(d.name))
def test_every_design_has_committed_runs_of_several_seeds(design: Design) -> None:
    root = REPOSITORY / "results" / design.runs / "runs"
    groups = (by_fork if design.fork else by_recipe)(root, design, PRIMARY)
    assert len(groups[0]) >= 3
    assert (within_trunks if design.fork else resolution)(groups).sd > 0


def test_no_two_designs_share_a_run() -> None:
    sizes = [size_of(canonical_form(compose_run(*d.settings))) for d in DESIGNS if not d.fork]
    assert len(set(sizes)) == len(sizes)
