"""When a checkpoint is due, by a clock that the test turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run, never, records, trainer, without_times

from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.training.checkpoint_schedule import MOST_OF_THE_TIME, CheckpointSchedule


class FakeClock:
    """Seconds that pass when somebody says so; each look at it takes `tick`."""

    def __init__(self, tick: float = 0.0) -> None:
        self.seconds, self.tick = 1000.0, tick

    def __call__(self) -> float:
        self.seconds += self.tick
        return self.seconds


def saves_at(rhythm: CheckpointSchedule, clock: FakeClock, cost: float, seconds: int) -> list[int]:
    """The whole seconds of training, from 1 on, after which `rhythm` saves; saving takes `cost`."""
    found = []
    for second in range(1, seconds + 1):
        clock.seconds += 1
        if rhythm.is_due_by_clock():
            found.append(second)
            with rhythm.measured():
                clock.seconds += cost
    return found


def test_what_saving_costs_decides_and_stays_below_its_share() -> None:
    clock = FakeClock()
    rhythm = CheckpointSchedule(TrainerConfig(), clock)
    assert saves_at(rhythm, clock, cost=0.5, seconds=300) == [60, 120, 180, 240, 300]  # 0.5 s of 60
    rhythm = CheckpointSchedule(TrainerConfig(), clock)
    found = saves_at(rhythm, clock, cost=3.0, seconds=1000)
    assert found == [60, 357, 654, 951]  # 297 s of training, then 3 s: one percent
    assert MOST_OF_THE_TIME == 3.0 / (357 - 60 + 3.0)


def test_the_last_cost_counts() -> None:
    """A file system that has become slow, and then fast again."""
    clock = FakeClock()
    rhythm = CheckpointSchedule(TrainerConfig(), clock)
    for cost, following in ((10.0, 990.0), (0.1, 60.0), (2.0, 198.0)):
        with rhythm.measured():
            clock.seconds += cost
        assert rhythm.seconds_between == pytest.approx(following)


def test_minutes_that_are_set_are_kept_whatever_saving_costs() -> None:
    clock = FakeClock()
    rhythm = CheckpointSchedule(TrainerConfig(checkpoint_minutes=0.5, checkpoint_every=7), clock)
    assert saves_at(rhythm, clock, cost=9.0, seconds=100) == [30, 60, 90]
    assert [step for step in range(1, 20) if rhythm.is_due_by_steps(step)] == [7, 14]


def test_steps_that_are_set_stand_alone() -> None:
    clock = FakeClock()
    rhythm = CheckpointSchedule(TrainerConfig(checkpoint_every=100), clock)
    assert saves_at(rhythm, clock, cost=1.0, seconds=500) == []
    assert not CheckpointSchedule(TrainerConfig(), clock).is_due_by_steps(100)


def test_a_run_saves_by_its_clock_with_the_results_of_one_that_does_not(folders: Path, real_data: TokenData) -> None:
    line = (*TINY, "trainer.keep_checkpoints=9", "trainer.checkpoint_every=null")
    quiet = trainer(compose_run(*line), real_data)
    expected = quiet.train(never)
    assert quiet.saver.checkpoints.steps() == [24]  # it ended long before a minute was over
    minutes = (f"paths.runs={folders.with_name('clock')}", "trainer.checkpoint_minutes=0.5")
    saving = trainer(compose_run(*line, *minutes), real_data)
    saving.saver.schedule = CheckpointSchedule(saving.run.trainer, FakeClock(tick=5.0))  # a look in every step
    found = saving.train(never)
    assert saving.saver.checkpoints.steps() == [6, 12, 18, 24]
    assert saving.folder.run_id == quiet.folder.run_id
    assert without_times(found) == without_times(expected)
    assert records(saving.folder) == records(quiet.folder)
