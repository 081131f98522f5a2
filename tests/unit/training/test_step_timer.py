"""The step timer against a clock that the test turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moe_sweeps.training import step_timer
from moe_sweeps.training.step_timer import StepTimer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(step_timer, "time", found)
    return found


def run_step(timer: StepTimer, clock: Clock, step: int, **seconds: float) -> None:
    """Two micro-batches, each with half of the seconds."""
    timer.begin_step(step)
    for _ in range(2):
        for name, value in seconds.items():
            clock.now += 3.0  # what belongs to no part
            with timer.part(name):
                clock.now += value / 2


def timer(every: int = 1) -> StepTimer:
    return StepTimer(torch.device("cpu"), every)


def test_means_over_the_interval_and_over_the_run(clock: Clock) -> None:
    ours = timer()
    run_step(ours, clock, 1, forward=50.0, backward=50.0)  # the first step of an attempt is left out
    run_step(ours, clock, 2, forward=1.0, backward=2.0)
    run_step(ours, clock, 3, forward=2.0, backward=4.0)
    assert ours.read_interval() == {"seconds_forward": 1.5, "seconds_backward": 3.0}
    assert ours.read_interval() == {}
    run_step(ours, clock, 4, forward=6.0, backward=0.0)
    assert ours.read_interval() == {"seconds_forward": 6.0, "seconds_backward": 0.0}
    assert ours.means() == {"seconds_forward": 3.0, "seconds_backward": 2.0}


@pytest.mark.parametrize(("every", "expected"), [(3, {"seconds_forward": 4.5}), (0, {}), (20, {})])
def test_every_n_th_step_is_sampled(clock: Clock, every: int, expected: dict[str, Any]) -> None:
    ours = timer(every)
    for step in range(1, 8):
        run_step(ours, clock, step, forward=float(step))
    assert ours.means() == expected  # steps 3 and 6


def test_totals_survive_a_resume(clock: Clock) -> None:
    first, second = timer(), timer()
    for step in (1, 2, 3):
        run_step(first, clock, step, forward=float(step))
    second.load_state_dict(first.state_dict())
    for step in (4, 5):
        run_step(second, clock, step, forward=float(step))  # step 4 begins an attempt
    assert second.means() == {"seconds_forward": pytest.approx((2 + 3 + 5) / 3, rel=1e-5)}
    assert second.read_interval() == second.means()
