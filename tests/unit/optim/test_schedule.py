"""Schedules against torch's own and hand values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from contracts import schedules
from helpers import compose_run, make_run

from moe_sweeps.config.groups import DenseFFNConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.optim.schedule import (
    ConstantConfig,
    CosineConfig,
    DecayShape,
    OneCycleCosineConfig,
    WarmupStableDecayConfig,
)


@pytest.mark.parametrize(("warmup", "total"), [(10, 100), (300, 1000), (2, 5)])
def test_onecycle_equals_torch(warmup: int, total: int) -> None:
    config = OneCycleCosineConfig(warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torch_schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=total, pct_start=warmup / total, div_factor=100, final_div_factor=0.1
    )
    for step in range(total):
        assert config.factor(step, total) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        if step < total - 1:
            torch_schedule.step()


def test_landmarks() -> None:
    config = OneCycleCosineConfig(warmup_steps=11)
    assert config.factor(0, 101) == pytest.approx(0.01)
    assert config.factor(5, 101) == pytest.approx((0.01 + 1) / 2)  # half-way up a cosine
    assert config.factor(10, 101) == 1.0
    assert config.factor(55, 101) == pytest.approx((1 + 0.1) / 2)
    assert config.factor(100, 101) == pytest.approx(0.1)
    assert config.factor(32, 101) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 22 / 90)) / 2)


def test_one_step_of_warmup_starts_at_the_peak() -> None:
    assert OneCycleCosineConfig(warmup_steps=1).factor(0, 10) == 1.0


def test_cosine_equals_torch() -> None:
    """Torch's linear warm-up from 1/W, then its cosine."""
    warmup, total, end = 8, 60, 0.05
    config = CosineConfig(warmup_steps=warmup, end_fraction=end)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=end)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup - 1])
    for step in range(total):
        assert config.factor(step, total) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        both.step()


def test_warmup_stable_decay_by_hand() -> None:
    config = WarmupStableDecayConfig(warmup_steps=4, decay_fraction=0.2, end_fraction=0.01)
    found = [config.factor(step, 20) for step in range(20)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:16] == [1.0] * 12
    assert found[16:] == pytest.approx([0.01**0.25, 0.1, 0.01**0.75, 0.01])  # four steps of the last fifth


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(DecayShape.linear, [0.8, 0.6, 0.4, 0.2]), (DecayShape.sqrt, [1 - 0.8 * (i / 4) ** 0.5 for i in (1, 2, 3, 4)])],
)
def test_shapes_of_the_decay(shape: DecayShape, expected: list[float]) -> None:
    config = WarmupStableDecayConfig(warmup_steps=1, decay_fraction=0.4, decay_shape=shape, end_fraction=0.2)
    assert [config.factor(step, 10) for step in range(10)] == pytest.approx([1.0] * 6 + expected)


def test_constant_after_its_warmup() -> None:
    assert [ConstantConfig(warmup_steps=2).factor(step, 5) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert [ConstantConfig(warmup_steps=1).factor(step, 3) for step in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("check", schedules.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", sorted(REGISTRY["schedule"]))
def test_every_schedule_keeps_the_contract(kind: str, check: Callable[[RunConfig], None]) -> None:
    check(schedules.run_with(kind))


def test_a_role_may_have_its_own_schedule() -> None:
    schedule = compose_run("schedule.router=constant", "schedule.norm=cosine", "schedule.end_fraction=0.3").schedule
    assert schedule.of(Role.dense) is schedule
    assert schedule.of(Role.router) == ConstantConfig(warmup_steps=schedule.warmup_steps)
    assert schedule.of(Role.norm) == CosineConfig(warmup_steps=schedule.warmup_steps, end_fraction=0.3)


def test_a_role_s_schedule_counts_only_where_it_differs() -> None:
    base = run_id(compose_run())
    assert run_id(compose_run("schedule.router=constant")) != base
    assert run_id(compose_run("schedule.router=onecycle_cosine")) == base
    assert run_id(compose_run("schedule.router=null")) == base

    def dense(schedule: OneCycleCosineConfig) -> RunConfig:
        return make_run(experts=DenseFFNConfig(), schedule=schedule)

    plain = run_id(dense(OneCycleCosineConfig()))
    assert run_id(dense(OneCycleCosineConfig(router="constant"))) == plain
    assert run_id(dense(OneCycleCosineConfig(norm="constant"))) != plain
