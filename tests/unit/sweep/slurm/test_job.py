"""What becomes of a job whose runs were stopped on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.slurm import job


def test_a_run_that_paused_where_it_was_told_does_not_go_back_to_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requeued: list[str] = []

    def requeue(folders: Sequence[RunDir]) -> int:
        requeued.extend(folder.run_id for folder in folders)
        return 0

    monkeypatch.setattr(job, "requeue", requeue)
    paused = fake_run(tmp_path, 1, State.preempted, step=50, paused_at=50)
    stopped = fake_run(tmp_path, 2, State.preempted, step=50)
    assert job.judge([paused], job.UNFINISHED) == 0
    assert requeued == []
    job.judge([paused, stopped], job.UNFINISHED)
    assert requeued == [stopped.run_id]
