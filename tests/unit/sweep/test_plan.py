"""Plans: the canonical line, collapse reasons, manifests, and refusal before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.cli.plan_view import collapse_reasons
from moe_sweeps.errors import ConfigError
from moe_sweeps.records.rundir import State, Status
from moe_sweeps.sweep.manifest import manifest_of
from moe_sweeps.sweep.plan import make_plan

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


def test_a_sweep_is_its_set_of_runs(folders: Path) -> None:
    swapped = ["aux.coef=0.6,0.1,0.2", "balancer=lossfree,aux", *TINY]
    assert make_plan(CANONICAL).sweep_id == make_plan(swapped).sweep_id
    assert make_plan(CANONICAL).sweep_id != make_plan([*CANONICAL, "seed=1"]).sweep_id


def test_a_plan_sees_what_is_done(folders: Path) -> None:
    plan = make_plan(CANONICAL)
    first = next(iter(plan.runs.values())).frozen("test", threads=1)
    first.write_summary({"val_loss": 3.0})
    first.write_status(Status(State.done))
    states = [p.state for p in make_plan(CANONICAL).runs.values()]
    assert states == [State.done] + [State.planned] * 3


def test_axes_that_are_linked_to_axes(tmp_path: Path) -> None:
    line = [
        "lr_split=static",
        "lr_split.expert=1,${lr_split.dense}",
        "lr_split.dense=0.50,1",
        "aux.coef=${lr_split.dense}",
    ]
    plan = make_plan([*line, f"paths.runs={tmp_path}"])
    assert plan.axes == {"lr_split.expert": ["1", "0.5"], "lr_split.dense": ["0.5", "1"], "aux.coef": ["0.5", "1"]}
    split = [(p.run.lr_split.expert, p.run.lr_split.dense, p.run.aux.coef) for p in plan.runs.values()]  # type: ignore[attr-defined]
    assert split == [(1, 0.5, 0.5), (1, 1, 1), (0.5, 0.5, 0.5)]
    assert len({p.label for p in plan.runs.values()}) == 3
    assert "${" not in str(manifest_of(plan, ""))
    typed = [str(s) for s in list(plan.runs.values())[2].typed]
    assert typed[1:3] == ["lr_split.expert=${lr_split.dense}", "lr_split.dense=0.5"]


def test_a_sweep_has_one_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths\.runs=.*the folders are the same for all runs of a sweep"):
        make_plan(["seed=0,1", f"paths.runs={tmp_path}/${{seed}}"])
