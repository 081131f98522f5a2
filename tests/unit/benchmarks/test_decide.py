"""The simulation of `moe-sweeps decide`, short: it errs no more than it may, and needs fewer runs than equal seeds."""

from __future__ import annotations

import decide
import numpy as np
import pytest

TABLES = 120


def drawn(name: str, seeds: int = 14) -> tuple[decide.Array, decide.Array]:
    random = np.random.default_rng(7)
    true = decide.effects(name, random, TABLES)
    return true, random.standard_normal((TABLES, decide.ARMS, seeds)) + true[..., None]


def test_identical_arms_are_seldom_called_different() -> None:
    _, runs = drawn("none")
    wrong = int(decide.decided(runs, 14 * decide.ARMS, most=14).found.any(1).sum())
    assert decide.interval(wrong, TABLES)[0] < 0.05  # more than 11 of 120 are not a rate of 5%


def test_it_answers_more_for_its_runs_and_keeps_its_budget() -> None:
    _, runs = drawn("mixed", seeds=40)
    equal, one = decide.equal_seeds(runs, 14), decide.decided(runs, 14 * decide.ARMS)
    assert (one.cost <= 14 * decide.ARMS).all()
    assert decide.ratio(one, equal) > 1.3
    assert one.found.sum() > 0.9 * equal.found.sum()


def test_tables_that_share_a_budget_keep_it_together() -> None:
    _, runs = drawn("mixed")
    one = decide.decided(runs, 5 * decide.ARMS, tables=6, most=14)
    assert (one.cost.reshape(-1, 6).sum(1) <= 6 * 5 * decide.ARMS).all()
    assert one.cost.max() > 5 * decide.ARMS  # one may take more than its share


def test_a_trunk_is_paid_once_for_all_arms() -> None:
    counts = np.array([3, 2, 1])
    assert decide.FORKED.cost(counts) == pytest.approx(6 * 0.75 + 3 * 0.25)
    assert decide.PLAIN.cost(counts) == 6
