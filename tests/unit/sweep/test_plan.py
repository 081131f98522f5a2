"""Plans: the canonical line, collapse reasons, manifests, and refusal before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.cli.plan_view import collapse_reasons
from moe_sweeps.errors import ConfigError
from moe_sweeps.files import read_json
from moe_sweeps.rundir import State, Status
from moe_sweeps.sweep.plan import make_plan, write_manifest

CANONICAL = ["balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6", *TINY]


def test_the_canonical_line_is_four_runs_of_six(folders: Path) -> None:
    plan = make_plan(CANONICAL)
    assert (len(plan.requests), len(plan.runs)) == (6, 4)
    labels = [p.label for p in plan.runs.values()]
    assert labels == [
        "balancer=aux aux.coef=0.1",
        "balancer=aux aux.coef=0.2",
        "balancer=aux aux.coef=0.6",
        "balancer=lossfree",
    ]
    readers = "balancer=aux or balancer=aux_lossfree"
    reason = f"aux.coef is not read by balancer=lossfree ({readers} reads it): set in 3 combinations"
    assert collapse_reasons(plan) == [reason]
    assert not folders.exists()  # planning writes nothing


def test_with_three_seeds_it_is_twelve_of_eighteen_in_four_arms(folders: Path) -> None:
    plan = make_plan([*CANONICAL, "seed=0,1,2"])
    assert (len(plan.requests), len(plan.runs)) == (18, 12)
    assert len({p.arm for p in plan.runs.values()}) == 4
    assert len({p.label for p in plan.runs.values()}) == 4


def test_the_same_value_twice_is_one_run(folders: Path) -> None:
    plan = make_plan([*TINY, "seed=1,1"])
    assert (len(plan.requests), len(plan.runs)) == (2, 1)
    assert collapse_reasons(plan) == ["1 combination means the same as another one"]


def test_one_bad_combination_refuses_the_whole_sweep(folders: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan([*TINY, "experts.top_k=1,9"])
    assert "experts.top_k=9 is refused" in str(caught.value)
    assert caught.value.__notes__ == ["in the combination experts.top_k=9; nothing was started"]
    assert not folders.exists()


def test_the_manifest_is_the_design_matrix(folders: Path) -> None:
    plan = make_plan(CANONICAL)
    content = read_json(write_manifest(plan, "python train.py -m ..."))
    assert content["axes"] == {"balancer": ["aux", "lossfree"], "aux.coef": ["0.1", "0.2", "0.6"]}
    assert len(content["requested"]) == 6
    collapsed = [r for r in content["requested"] if r["unread"]]
    assert [r["unread"] for r in collapsed] == [{"aux.coef": "balancer=aux or balancer=aux_lossfree"}] * 3
    assert len({r["run_id"] for r in collapsed}) == 1
    assert list(content["runs"]) == list(plan.runs)
    again = read_json(write_manifest(make_plan(CANONICAL), "python train.py -m ..."))
    assert again == content  # also the date of its first writing


def test_a_sweep_is_its_set_of_runs(folders: Path) -> None:
    swapped = ["aux.coef=0.6,0.1,0.2", "balancer=lossfree,aux", *TINY]
    assert make_plan(CANONICAL).sweep_id == make_plan(swapped).sweep_id
    assert make_plan(CANONICAL).sweep_id != make_plan([*CANONICAL, "seed=1"]).sweep_id


def test_a_plan_sees_what_is_done(folders: Path) -> None:
    plan = make_plan(CANONICAL)
    first = next(iter(plan.runs.values())).frozen("test", threads=1)
    first.write_status(Status(State.done))
    states = [p.state for p in make_plan(CANONICAL).runs.values()]
    assert states == [State.done] + [State.planned] * 3
