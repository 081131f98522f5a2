"""Forks of a grid: trunks, replicates, identities, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.identity import canonical_form, identity, run_id
from moe_sweeps.host.reading import read_yaml
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.noise import size_of
from moe_sweeps.sweep.manifest import manifest_of
from moe_sweeps.sweep.plan import Plan, make_plan

FORK = (*TINY, "fork.step=10")


def plan(*line: str) -> Plan:
    return make_plan([*FORK, *line])


def test_a_run_without_a_fork_has_no_trace_of_it() -> None:
    run = compose_run(*TINY)
    assert "fork" not in canonical_form(run)
    assert run_id(compose_run(*TINY, "fork.noise=0.5", "fork.role=trunk")) == run_id(run)


def test_one_trunk_a_seed_whose_recipe_is_that_of_the_first_arm(folders: Path) -> None:
    found = plan("balancer=lossfree,aux", "seed=0,1", "fork.replicates=3")
    assert len(found.runs) == 2 * 2 * 3
    trunks = list(found.trunks.values())
    assert [(t.run.balancer.kind, t.run.seed, t.run.last_step) for t in trunks] == [
        ("lossfree", 0, 10),
        ("lossfree", 1, 10),
    ]
    assert {p.run.fork.run for p in found.runs.values()} == set(found.trunks)
    assert all(p.run.seed == found.trunks[p.run.fork.run or ""].run.seed for p in found.runs.values())
    assert list(found.to_train)[:2] == list(found.trunks)


def test_the_baseline_of_a_sweep_file_is_the_recipe(folders: Path) -> None:
    found = make_plan(["sweep=aux_coef", "fork.step=50", "seed=0"])
    (trunk,) = found.trunks.values()
    assert (trunk.run.balancer.kind, trunk.run.aux.coef) == ("aux", 0.1)


def test_a_typed_recipe_replaces_what_is_swept(folders: Path) -> None:
    found = plan("balancer=aux,lossfree", "router.z_loss=0.02", "fork.trunk=['balancer=quantile']")
    (trunk,) = found.trunks.values()
    assert (trunk.run.balancer.kind, trunk.run.router.z_loss, trunk.run.trainer.steps) == ("quantile", 0.02, 24)
    assert found.trunks.keys() == plan("balancer=quantile", "router.z_loss=0.02").trunks.keys()


def test_replicates_and_seeds_are_one_arm_and_several_runs(folders: Path) -> None:
    found = plan("balancer=aux,lossfree", "seed=0,1", "fork.replicates=2")
    assert len({p.arm for p in found.runs.values()}) == 2
    assert {p.label for p in found.runs.values()} == {"balancer=aux", "balancer=lossfree"}


@pytest.mark.parametrize(
    "other",
    [["fork.noise=1e-4"], ["fork.step=11"], ["fork.trunk=['balancer=quantile']"], ["fork.step=null"]],
    ids=lambda line: line[0],
)
def test_what_makes_another_arm_of_a_fork(folders: Path, other: list[str]) -> None:
    arms = [{p.arm for p in plan(*line).runs.values()} for line in ([], other)]
    assert not arms[0] & arms[1]
    one, two = (canonical_form(next(iter(plan(*line).runs.values())).run) for line in ([], other))
    assert size_of(one) != size_of(two) or other == ["fork.noise=1e-4"]


def test_more_replicates_keep_the_runs_there_are(folders: Path) -> None:
    assert set(plan("fork.replicates=2").runs) < set(plan("fork.replicates=3").runs)
    assert set(plan().runs) < set(plan("fork.replicates=2").runs)


def test_other_batches_are_another_trunk(folders: Path) -> None:
    trunks = [t.run for t in plan("data_seed=0,1").trunks.values()]
    assert [t.effective_data_seed for t in trunks] == [0, 1]


def test_seeds_are_in_the_run_and_not_in_the_arm_of_a_trunk(folders: Path) -> None:
    trunks = [t.run for t in plan("seed=0,1").trunks.values()]
    assert len({identity(t)["arm"] for t in trunks}) == 1
    assert len({run_id(t) for t in trunks}) == 2


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ("model.width=16,32", "model.width", "shape"),
        ("model.init_std=0.02,0.01", "model.init_std", "begins with"),
        ("experts=e8,dense", "experts", "shape"),
        ("experts.num_experts=4,8", "experts.num_experts", "number of experts"),
        ("experts.ffn_hidden=16,32", "experts.ffn_hidden", "shape"),
        ("router.init=normal,zero", "router.init", "begins with"),
        ("router.noise=none,learned", "router.noise", "has others"),
        ("optimizer=adamw,muon", "optimizer", "another optimizer"),
        ("optimizer=soap optimizer.max_preconditioner_dim=8,16", "optimizer.max_preconditioner_dim", "blocks"),
        ("trainer.batch_size=4,8", "trainer.batch_size", "place in the data"),
        ("trainer.seq_len=32,16", "trainer.seq_len", "place in the data"),
        ("trainer.precision=float32,bfloat16", "trainer.precision", "arithmetic"),
        ("schedule.warmup_steps=4,8", "schedule.warmup_steps", "both warm-ups are over before step 10"),
        ("schedule.start_fraction=0.01,0.5", "schedule.start_fraction", "warm-up"),
    ],
)
def test_what_acts_before_the_fork_alone_is_refused(folders: Path, change: str, field: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*change.split(" "))
    assert caught.value.field == field
    assert why in caught.value.rule


@pytest.mark.parametrize(
    "change",
    [
        "balancer=aux,lossfree,none",
        "aux.coef=0.1,0.5",
        "lr_split.expert=1.0,0.5 lr_split=static",
        "optimizer.base_lr=1e-3,1e-2",
        "optimizer.weight_decay=0.1,0",
        "schedule=cosine,wsd",
        "schedule.warmup_steps=4,12",
        "schedule.end_fraction=0.1,0",
        "trainer.steps=24,40",
        "trainer.grad_clip=1,0.25",
        "router.z_loss=0.01,0",
        "router=topk_softmax,sigmoid",
        "router.noise=none,fixed",
        "experts.top_k=2,1",
    ],
)
def test_what_acts_after_the_fork_can_be_asked(folders: Path, change: str) -> None:
    assert len(plan(*change.split(" ")).trunks) == 1


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (["fork.step=10,12"], "fork.step"),
        (["fork.step=24"], "fork.step"),
        (["fork.step=0"], "fork.step"),
        (["fork.replicates=0"], "fork.replicates"),
        (["fork.replicates=2,3"], "fork.replicates"),
        (["fork.replicates=2", "fork.replicate=1"], "fork.replicates"),
        (["fork.noise=0"], "fork.noise"),
        (["fork.noise=1e-3,1e-2"], "fork.noise"),
        (["fork.role=arm,trunk"], "fork.role"),
        (["fork.arm=abcabcabcabc"], "fork.arm"),
        (["fork.run=abcabcabcabc"], "fork.run"),
        (["fork.trunk=['seed=3']"], "fork.trunk"),
        (["fork.trunk=['fork.step=3']"], "fork.trunk"),
        (["fork.trunk=['aux.coef=0.1,0.2']"], "fork.trunk"),
        (["fork.trunk=['aux.cof=0.1']"], "aux.cof"),
        (["trainer.stop_at=10"], "trainer.stop_at"),
    ],
    ids=" ".join,
)
def test_forks_that_are_no_question(folders: Path, line: list[str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*line)
    assert caught.value.field == field


def test_a_manifest_knows_trunks_and_replicates(folders: Path) -> None:
    found = manifest_of(plan("balancer=aux,lossfree", "fork.replicates=2"), "test")
    read = Manifest.from_dict(json.loads(json.dumps(found.to_dict())))
    assert read == found
    assert read.fork is not None
    assert read.fork.question == "from step 10 on"
    assert read.fork.recipe["balancer"] == "aux"
    assert [run.replicate for run in read.runs.values()] == [0, 1, 0, 1]
    assert {run.trunk for run in read.runs.values()} == set(read.fork.trunks)
    assert next(iter(read.trained)) in read.fork.trunks
    assert not any(key in request.overrides for request in read.requested for key in ("fork.arm", "fork.run"))
    assert "fork" not in manifest_of(make_plan([*TINY]), "test").to_dict()


@pytest.mark.parametrize(
    "line",
    [
        [*FORK, "balancer=aux,lossfree", "aux.coef=0.1,0.2", "seed=0,1", "fork.replicates=2"],
        [*FORK, "balancer=aux,lossfree", "fork.trunk=[]"],
        ["sweep=lossfree_vs_aux", "fork.step=100", "seed=0"],  # its arms have keys that the baseline lacks
    ],
    ids=["typed", "empty recipe", "file"],
)
def test_the_line_of_one_run_leads_back_to_it(folders: Path, line: list[str]) -> None:
    """What overrides.yaml keeps: typed alone, it is the same run of the same trunk."""
    found = make_plan(line)
    for planned in found.runs.values():
        typed = read_yaml(planned.frozen("test", 1).path / "overrides.yaml")
        assert list(make_plan(typed).runs) == [planned.run_id]


def test_a_recipe_may_leave_a_setting_of_the_arm_out(folders: Path) -> None:
    found = plan("balancer=lossfree", "balancer.rate=0.01", "fork.trunk=['balancer=aux','~balancer.rate']")
    assert found.trunks.keys() == plan("balancer=aux").trunks.keys()
    with pytest.raises(ConfigError, match=r"fork\.trunk=~balancer\.rat is refused.*Did you mean ~balancer\.rate"):
        plan("balancer=lossfree", "balancer.rate=0.01", "fork.trunk=['balancer=aux','~balancer.rat']")


def test_recipes_move_no_id(folders: Path) -> None:
    """Ids as they were before a recipe could leave a setting out."""
    assert make_plan(["sweep=lossfree_vs_aux", "fork.step=100", "seed=0"]).sweep_id == "de1f985ed624"


def test_shuffled_arms_are_the_same_forks_each_time(folders: Path) -> None:
    line = ("balancer=shuffle(aux,lossfree,none,quantile)", "aux.coef=shuffle(range(0.1,0.9,0.1))")
    assert len({plan(*line).sweep_id for _ in range(4)}) == 1


def test_null_and_doubled_steps_are_no_recipe(folders: Path) -> None:
    line = ("balancer=aux,lossfree",)
    assert plan(*line, "fork.trunk=null").sweep_id == plan(*line).sweep_id
    assert plan("fork.step=10,10", *line).sweep_id == plan(*line).sweep_id
