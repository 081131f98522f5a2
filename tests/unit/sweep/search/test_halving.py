"""The promotion rule against the algorithm as published, written down as plainly as it can be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_sweeps.sweep.search.halving import Rung, expected_steps, next_promotion, rungs_below

VALUES = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf]), max_size=12)


def oracle(rungs: list[Rung], eta: int) -> tuple[int, int] | None:
    """Algorithm 2 of arXiv 1810.05934: for k = K-1 down to 0, the top |rung k|/eta that were not promoted yet."""
    for level in range(len(rungs) - 1, -1, -1):
        values, promoted = rungs[level].values, rungs[level].promoted
        candidates = []
        for trial, value in values.items():
            better = [t for t, v in values.items() if v < value or (v == value and t < trial)]
            if len(better) < len(values) // eta and value < math.inf and trial not in promoted:
                candidates.append((value, trial))
        if candidates:
            return level, min(candidates)[1]
    return None


@given(st.lists(st.tuples(VALUES, st.sets(st.integers(0, 11))), max_size=3), st.integers(2, 4))
def test_promotions_are_those_of_the_paper(content: list[tuple[list[float], set[int]]], eta: int) -> None:
    rungs = [Rung(dict(enumerate(values)), promoted) for values, promoted in content]
    assert next_promotion(rungs, eta) == oracle(rungs, eta)


def test_a_rung_by_hand() -> None:
    values = {0: 5.0, 1: 3.0, 2: 4.0}
    assert Rung(values, set()).promotable(3) == 1
    assert Rung(values, {1}).promotable(3) is None
    assert Rung(values | {3: 1.0}, {1}).promotable(3) == 3  # a better one came late: it is promoted, too
    assert Rung({0: 5.0, 1: math.inf, 2: math.inf}, set()).promotable(3) == 0
    assert Rung({0: math.inf, 1: math.inf, 2: math.inf}, set()).promotable(3) is None
    assert Rung({0: 5.0, 1: 4.0}, set()).promotable(3) is None


def test_a_short_search_ends_with_a_complete_run() -> None:
    """Two trials and a reduction of 3: nobody is in a top third, so at the end the best is promoted, rung by rung."""
    rungs = [Rung({0: 2.0, 1: 1.0}, set()), Rung({}, set())]
    assert next_promotion(rungs, 3) is None
    assert next_promotion(rungs, 3, at_the_end=True) == (0, 1)
    rungs = [Rung({0: 2.0, 1: 1.0}, {1}), Rung({1: 0.5}, set())]
    assert next_promotion(rungs, 3, at_the_end=True) == (1, 1)
    rungs = [Rung({0: 2.0, 1: 1.0}, {1}), Rung({1: 0.5}, {1})]
    assert next_promotion(rungs, 3, at_the_end=True) is None


def test_a_search_whose_best_trial_is_lost_ends_with_a_complete_run_all_the_same() -> None:
    """The better of two was promoted and diverged: at the end the other one is promoted, through all rungs."""
    rungs = [Rung({0: 3.0, 1: 3.1}, {0}, {0}), Rung({0: 2.0}, {0}, {0})]
    assert next_promotion(rungs, 3) is None
    assert next_promotion(rungs, 3, at_the_end=True) == (0, 1)
    rungs = [Rung({0: 3.0, 1: 3.1}, {0, 1}, {0}), Rung({0: 2.0, 1: 2.5}, {0}, {0})]
    assert next_promotion(rungs, 3, at_the_end=True) == (1, 1)
    rungs = [Rung({0: 3.0, 1: math.inf}, {0}, {0, 1})]
    assert next_promotion(rungs, 3, at_the_end=True) is None


@pytest.mark.parametrize(
    ("steps", "least", "eta", "rungs"),
    [(300, 33, 3, (33, 99, 297)), (300, 100, 3, (100,)), (27, 1, 3, (1, 3, 9)), (300, None, 3, ())],
)
def test_rungs(steps: int, least: int | None, eta: int, rungs: tuple[int, ...]) -> None:
    assert rungs_below(steps, least, eta) == rungs


def test_expected_steps_by_hand() -> None:
    assert expected_steps(9, (100,), 300, 3) == 9 * 100 + 3 * 200
    assert expected_steps(9, (), 300, 3) == 2700
    assert expected_steps(2, (10, 30), 90, 3) == 2 * 10 + 1 * 20 + 1 * 60
