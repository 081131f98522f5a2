"""Every registered balancer keeps what every balancer must keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from contracts import balancers, training
from helpers import TINY, compose_run, make_run

from moe_sweeps.balancing import NoBalancerConfig, z_loss
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.schema import RunConfig

for_every_balancer = pytest.mark.parametrize("kind", sorted(REGISTRY["balancer"]))


@pytest.mark.parametrize("router", sorted(REGISTRY["router"]))
@pytest.mark.parametrize("check", balancers.CHECKS, ids=lambda check: check.__name__)
@for_every_balancer
def test_every_balancer_keeps_the_contract(kind: str, check: Callable[[RunConfig], None], router: str) -> None:
    check(balancers.run_with(kind, f"router={router}"))


@for_every_balancer
def test_stopped_and_resumed_is_bit_identical(folders: Path, real_data: TokenData, kind: str) -> None:
    run = compose_run(*TINY, f"balancer={kind}", "aux.scope=global")
    training.stopped_and_resumed_is_bit_identical(run, real_data, folders)


@for_every_balancer
def test_evaluation_changes_no_state(folders: Path, real_data: TokenData, kind: str) -> None:
    training.evaluation_changes_no_state(compose_run(*TINY, f"balancer={kind}"), real_data)


def test_the_control_does_nothing() -> None:
    balancer = NoBalancerConfig().build(make_run(), 1, 3)
    z_TE = torch.randn(5, 3)
    assert balancer.ranking_TE(0, z_TE, z_TE.softmax(-1)) is z_TE
    assert balancer.state_dict() == {}


@pytest.mark.parametrize("kind", ["none", "expert_choice"])
@pytest.mark.parametrize("router", ["topk_softmax", "sigmoid"])
def test_the_z_loss_alone_moves_the_router_alone(router: str, kind: str) -> None:
    run = balancers.run_with(kind, f"router={router}")
    assert balancers.moved_by(run, lambda routing: z_loss([routing])) == {"router.weight_ED"}
