"""What becomes of a job when its tasks have ended; tests/slurm has real jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.slurm import job

LIMIT = 2  # attempts without progress, in the config of a fake run


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The calls of scontrol requeue, none of which is refused; nobody has cancelled the job."""
    calls: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(job, "is_cancelled", lambda job_id, restarts: False)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    return calls


def with_checkpoint(folder: RunDir, step: int) -> RunDir:
    (folder.checkpoints / f"step-{step:08d}.json").write_text("{}")
    return folder


def test_a_job_whose_runs_are_over_ends(folders: Path, requeued: list[list[str]]) -> None:
    over = [fake_run(folders, n, s) for n, s in enumerate((State.done, State.diverged, State.cancelled))]
    assert job.judge(over, 0) == job.OK
    assert job.judge([*over, fake_run(folders, 9, State.failed)], 1) == job.FAILED
    assert requeued == []


def test_an_unfinished_run_goes_back_to_the_queue(folders: Path, requeued: list[list[str]]) -> None:
    run = with_checkpoint(fake_run(folders, 1, State.preempted, attempt=1, slurm_job_id="7_0"), 10)
    assert job.judge([run, fake_run(folders, 2, State.done)], 85) == 0
    assert requeued == [["scontrol", "requeue", "77"]]
    assert (run.status().state, run.status().slurm_job_id, run.status().deaths) == (State.queued, "7_0", 1)


def test_requeues_without_progress_stop_at_a_limit(folders: Path, requeued: list[list[str]]) -> None:
    run = with_checkpoint(fake_run(folders, 1, State.running, attempt=1), 10)
    for _ in range(LIMIT - 1):
        assert job.judge([run], 137) == 0
    with_checkpoint(run, 20)  # progress: it is counted anew
    for _ in range(LIMIT - 1):
        assert job.judge([run], 137) == 0
    assert job.judge([run], 137) == job.FAILED
    assert len(requeued) == 2 * (LIMIT - 1)
    assert run.status().state is State.failed
    failure = run.status().failure
    assert failure is not None
    assert "2 attempts in a row ended (the last with exit code 137)" in failure.message


def test_one_that_is_given_up_does_not_take_the_others_with_it(folders: Path, requeued: list[list[str]]) -> None:
    hopeless = fake_run(folders, 1, State.running, attempt=2, deaths=1, death_step=0)
    fellow = with_checkpoint(fake_run(folders, 2, State.preempted, attempt=1), 10)
    assert job.judge([hopeless, fellow], 137) == 0
    assert (hopeless.status().state, fellow.status().state) == (State.failed, State.queued)
    assert len(requeued) == 1


def test_a_cancelled_job_stays_away(folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "is_cancelled", lambda job_id, restarts: (job_id, restarts) == ("77", 2))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run = fake_run(folders, 1, State.running, attempt=1)
    assert job.judge([run], 143) == job.UNFINISHED
    assert run.status().state is State.preempted
    assert requeued == []


def test_a_job_that_cannot_be_requeued_is_not_called_queued(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    run = fake_run(folders, 1, State.preempted, attempt=1)
    assert job.judge([run], 85) == 1
    assert (run.status().state, run.status().deaths) == (State.preempted, 1)


def test_a_run_that_paused_where_it_was_told_does_not_go_back_to_the_queue(
    folders: Path, requeued: list[list[str]]
) -> None:
    paused = fake_run(folders, 1, State.preempted, step=50, paused_at=50)
    assert job.judge([paused], job.UNFINISHED) == job.OK
    assert requeued == []
    stopped = fake_run(folders, 2, State.preempted, step=50)
    assert job.judge([paused, stopped], job.UNFINISHED) == 0
    assert (paused.status().state, stopped.status().state) == (State.preempted, State.queued)
