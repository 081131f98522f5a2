"""Schedules against torch's own and hand values."""

from __future__ import annotations

import math

import pytest
import torch

from moe_sweeps.optim.schedule import OneCycleCosineConfig


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
