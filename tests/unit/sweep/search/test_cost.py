"""The budget of a search: what is said to fit does fit."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import TINY

from moe_sweeps.model.sizes import sizes
from moe_sweeps.sweep.budget import OverBudget
from moe_sweeps.sweep.estimate import RunEstimate
from moe_sweeps.sweep.search.cost import SearchCost
from moe_sweeps.sweep.search.plan import make_search_plan

SPACE = {
    "open": ("aux.coef=interval(0.1,0.2)", "search.trials=10", "seed=0,1"),
    "listed": ("aux.coef=0.1,0.2,0.3,0.4", "search.trials=100"),  # of which four can be trained
}


def search_cost(space: str, workers: int, trained: int = 0) -> SearchCost:
    plan = make_search_plan(("search=random", *TINY, *SPACE[space]))
    size = sizes(plan.base, plan.base.data.vocab_size)
    return SearchCost(plan, size, RunEstimate(60.0, "a guess", 1), 1, workers, 1 << 40, trained)


@pytest.mark.parametrize(
    ("space", "workers", "trained", "budget", "fits"),
    [
        ("open", 1, 0, "10m", 5),
        ("open", 1, 48, "10m", 6),  # two runs are trained already
        ("open", 4, 0, "70s", 2),
        ("listed", 1, 0, "3m", 3),  # and not 75 of 100
        ("open", 1, 0, "90s", None),
    ],
)
def test_what_fits_is_accepted_and_one_more_is_not(
    space: str, workers: int, trained: int, budget: str, fits: int | None
) -> None:
    cost = search_cost(space, workers, trained)
    words = "nothing smaller" if fits is None else f"search.trials={fits}$"
    with pytest.raises(OverBudget, match=words):
        cost.require_budget(budget)
    for count in range(1, cost.plan.most_trained):
        plan = dataclasses.replace(cost.plan, search=dataclasses.replace(cost.plan.search, trials=count))
        smaller = dataclasses.replace(cost, plan=plan)
        if count <= (fits or 0):
            smaller.require_budget(budget)
        else:
            with pytest.raises(OverBudget):
                smaller.require_budget(budget)
