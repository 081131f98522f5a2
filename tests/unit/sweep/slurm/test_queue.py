"""What is read out of SLURM's answers; tests/slurm has a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from moe_sweeps.errors import LaunchError
from moe_sweeps.sweep.slurm import queue

Answer = Callable[[str], None]
PARTITIONS = """\
PartitionName=batch AllowGroups=ALL Default=YES DefaultTime=NONE MaxTime=UNLIMITED State=UP
PartitionName=short AllowGroups=ALL Default=NO DefaultTime=NONE MaxTime=00:30:00 State=UP
PartitionName=day AllowGroups=ALL Default=NO DefaultTime=NONE MaxTime=1-00:00:00 State=UP
"""


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Answer:
    def answer(text: str) -> None:
        def call(*command: str, patience: Sequence[float] = ()) -> str:
            if not text:
                raise LaunchError("no answer")
            return text

        monkeypatch.setattr(queue, "call", call)

    return answer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("10:00", 600), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_times_of_slurm(text: str, seconds: int | None) -> None:
    assert queue.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("partition", "minutes"),
    [("short", 30), ("day", 1440), ("short,day", 1440), ("short,batch", None), (None, None), ("nowhere", None)],
)
def test_the_longest_time_of_a_partition(says: Answer, partition: str | None, minutes: int | None) -> None:
    says(PARTITIONS)
    assert queue.longest_minutes(partition) == minutes


@pytest.mark.parametrize(
    ("change", "cancelled"),
    [
        ("", True),
        ("JobState=RUNNING", False),  # a task of it was killed
        ("RunTime=00:10:02", False),  # over its time limit
        ("PreemptTime=2026-11-25T10:00:00", False),
        ("Restarts=3", False),  # sent back to the queue already
        ("TimeLimit=UNLIMITED", True),
    ],
)
def test_a_cancelled_job_is_told_from_one_that_slurm_ended(says: Answer, change: str, cancelled: bool) -> None:
    job = "JobId=7 JobState=COMPLETING Restarts=2 RunTime=00:01:00 TimeLimit=00:10:00 PreemptTime=None"
    says(f"{job} {change}")
    assert queue.is_cancelled("7", restarts=2) is cancelled


def test_who_gets_no_answer_goes_on(says: Answer) -> None:
    says("")
    assert not queue.is_cancelled("7", restarts=0)
