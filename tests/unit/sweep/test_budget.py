"""--budget: durations, and offers that really fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from unit.sweep.test_estimate import finish

from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.budget import OverBudget, parse_duration, require_budget
from moe_sweeps.sweep.cost import PlanCost, plan_cost
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.plan import Plan, make_plan

LINE = [*TINY, "aux.coef=0.1,0.2", "seed=0,1,2"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("30min", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["2", "", "h", "2x", "2h x", "0s", "-2h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="Write 90s, 30m"):
        parse_duration(text)


@pytest.fixture
def six_runs(folders: Path) -> tuple[Plan, PlanCost, Estimator]:
    """Six runs of 100 seconds on two workers."""
    finish(*TINY, "seed=9", seconds=100.0, tokens=24 * 4 * 32)
    plan, estimator = make_plan(LINE), Estimator(folders)
    return plan, plan_cost(plan, estimator, 2), estimator


def test_a_plan_that_fits_is_let_through(six_runs: tuple[Plan, PlanCost, Estimator]) -> None:
    plan, cost, estimator = six_runs
    require_budget(plan, cost, "5m", LINE, estimator)


def test_offers_of_what_would_fit(six_runs: tuple[Plan, PlanCost, Estimator], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, cost, estimator = six_runs
    monkeypatch.setattr("moe_sweeps.sweep.budget.available_cores", lambda: 2)
    with pytest.raises(OverBudget) as caught:
        require_budget(plan, cost, "200s", LINE, estimator)
    lines = str(caught.value).splitlines()
    assert lines[0] == "--budget 200s is refused: the plan takes about 5.0 min with 2 workers"
    assert "launch.workers=3 on a machine with that many free cores (this one has 2): about 3.3 min" in lines[1]
    assert "seed=0,1, 2 of 3 seeds: about 3.3 min" in lines[2]
    assert "trainer.steps=16, another experiment" in lines[-1]


def test_what_is_finished_is_part_of_the_offers(six_runs: tuple[Plan, PlanCost, Estimator]) -> None:
    """Finished seeds cost nothing and stay in; with other steps they are other runs, and are trained anew."""
    for coef in ("0.1", "0.2"):
        finish(*TINY, f"aux.coef={coef}", "seed=2", seconds=100.0, tokens=24 * 4 * 32)
    plan, estimator = make_plan(LINE), six_runs[2]
    with pytest.raises(OverBudget) as caught:
        require_budget(plan, plan_cost(plan, estimator, 2), "100s", LINE, estimator)
    text = str(caught.value)
    assert "the plan takes about 3.3 min with 2 workers" in text
    assert "seed=2,0, 2 of 3 seeds: about 1.7 min" in text
    assert "trainer.steps=8, another experiment: about 1.7 min" in text  # of 24: six runs of 100 s take 300 s


def test_one_run_is_the_least(six_runs: tuple[Plan, PlanCost, Estimator]) -> None:
    plan, cost, estimator = six_runs
    with pytest.raises(OverBudget) as caught:
        require_budget(plan, cost, "1s", LINE, estimator)
    assert str(caught.value).splitlines()[1:] == ["  nothing smaller that was tried fits"]


def test_a_smaller_scale_is_offered(folders: Path) -> None:
    line = ["scale=proxy", "seed=0,1"]
    finish("scale=proxy", "seed=9", seconds=1000.0, tokens=2_048_000)
    finish("scale=smoke", "seed=9", seconds=10.0, tokens=153_600)
    plan, estimator = make_plan(line), Estimator(folders)
    with pytest.raises(OverBudget, match=r"would fit: scale=smoke, another experiment: about 20 s"):
        require_budget(plan, plan_cost(plan, estimator, 1), "60s", line, estimator)
