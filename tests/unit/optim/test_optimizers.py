"""Every registered optimizer keeps its contract; and what these optimizers are held to by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contracts import optimizers
from contracts.optimizers import SHAPES, UP, made_up
from optimizing import EVERY_OPTIMIZER, group_by_role, kind_of, soon, train

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.optim import AdamWConfig, MuonConfig, OptimizerConfig, ShampooConfig, SoapConfig, state_bytes

every_optimizer = pytest.mark.parametrize("config", EVERY_OPTIMIZER, ids=kind_of)


@pytest.mark.parametrize("check", optimizers.CHECKS, ids=lambda check: check.__name__)
@every_optimizer
def test_every_optimizer_keeps_the_contract(config: OptimizerConfig, check: Callable[[OptimizerConfig], None]) -> None:
    check(config)


OURS = ("adamw", "shampoo", "muon", "soap")


@pytest.mark.parametrize("config", [soon(kind) for kind in OURS], ids=kind_of)
def test_the_state_is_counted_to_the_byte(config: OptimizerConfig) -> None:
    params, grads = made_up(1)
    optimizer = train(config, params, grads)
    up, down, attention, router, table, norm = 3 * 2 * 120, 3 * 120, 3 * 144, 36, 480, 12
    total = up + down + attention + router + table + norm
    sides = 3 * 3 * (10**2 + 12**2) + 3 * 2 * 12**2  # of gates, ups and downs; of query, key and value
    numbers = {
        "adamw": 2 * total + len(SHAPES),  # and a step count each
        # All are merged into one dimension, with one factor, root and failure count.
        "shampoo": 2 * total + 9 * (2 * 120**2 + 1) + 3 * (2 * 144**2 + 1) + 2 * (36**2 + 480**2 + 12**2) + 3,
        "muon": up + down + attention + 2 * (router + table + norm),
        "soap": 2 * total + 2 * (sides + 3**2 + 12**2 + 12**2),  # the router's two sides, one of the table
    }
    assert state_bytes(optimizer) == 4 * numbers[config.kind]


def test_state_of_other_blocks_is_refused() -> None:
    params, grads = made_up(1)
    saved = train(ShampooConfig(), params, grads).state_dict()
    other = ShampooConfig(max_preconditioner_dim=10).build(group_by_role(params))
    with pytest.raises((MoeSweepsError, ValueError)):
        other.load_state_dict(saved)


@pytest.mark.parametrize("config", [ShampooConfig(), MuonConfig(), SoapConfig()], ids=kind_of)
def test_a_parameter_without_gradient_is_an_error(config: OptimizerConfig) -> None:
    params, _ = made_up(0)
    with pytest.raises(MoeSweepsError, match=f"parameter {UP} has no gradient"):
        config.build(group_by_role(params)).step()


def test_all_optimizers_share_adamws_defaults() -> None:
    """So that between arms only the method differs."""
    shared = {f: getattr(AdamWConfig(), f) for f in ("base_lr", "weight_decay", "beta1", "beta2", "eps")}
    for config in EVERY_OPTIMIZER:
        assert {f: getattr(config, f, value) for f, value in shared.items()} == shared
