"""The simulation of "which arm is best", short: clearly beaten arms stop getting seeds, and the answer stays true."""

from __future__ import annotations

import pytest
import which_is_best as best
from decide import ARMS

TABLES = 8


def test_beaten_arms_get_few_seeds_and_the_answer_costs_fewer_runs() -> None:
    runs = best.tables_of("steps of 1 sd", TABLES)
    one, equal = best.decided(runs, 40 * ARMS, 0), best.equal_seeds(runs, 20, 0)
    near, far = one.counts[:, :2].mean(), one.counts[:, 2:].mean()
    assert far < near / 2
    assert one.shown.sum() >= TABLES - 2
    assert one.runs < equal.runs
    assert not one.contradicted.any()


@pytest.mark.parametrize("budget", [18.0, 30.0, 60.0])
def test_the_budget_is_kept(budget: float) -> None:
    one = best.decided(best.tables_of("all alike", TABLES), budget, 0)
    assert (one.counts.sum(1) <= budget).all()
    assert (one.counts >= 3).all()


def test_a_claim_for_an_arm_that_is_not_best_is_contradicted() -> None:
    one = best.decided(best.tables_of("one of 2 sd, five alike", TABLES), 40 * ARMS, 1)
    assert not one.shown.any()
    assert one.contradicted.sum() >= TABLES - 2
