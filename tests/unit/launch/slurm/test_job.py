"""What becomes of a job when its tasks have ended; tests/slurm has real jobs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from unit.cli.fake_runs import fake_run

from moe_sweeps.launch import work as working
from moe_sweeps.launch.slurm import job
from moe_sweeps.launch.slurm.queue import JobEnd
from moe_sweeps.launch.slurm.records import ArrayRecord
from moe_sweeps.records.rundir import RunDir, State

LIMIT = 2  # attempts without progress, in the config of a fake run


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The calls of scontrol requeue, none of which is refused; nobody has cancelled the job."""
    calls: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    ends(monkeypatch, JobEnd.by_itself)
    # The leader of an array: its own job number is the array's.
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.setenv(name, "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    return calls


def ends(monkeypatch: pytest.MonkeyPatch, *endings: JobEnd) -> list[tuple[str, int]]:
    """What SLURM says of how the job ends, one word after the other; returns what it is asked."""
    asked: list[tuple[str, int]] = []

    def why_it_ends(task: str, restarts: int) -> JobEnd:
        asked.append((task, restarts))
        return endings[min(len(asked), len(endings)) - 1]

    monkeypatch.setattr(job, "why_it_ends", why_it_ends)
    return asked


def judge(folders: list[RunDir], code: int) -> int:
    record = ArrayRecord(folders[0].path.parent / "moe-x.json", "", [], {}, "", 0.0, "77")
    return job.judge(record, folders, code)


def with_checkpoint(folder: RunDir, step: int) -> RunDir:
    (folder.checkpoints / f"step-{step:08d}.json").write_text("{}")
    return folder


def test_a_job_whose_runs_are_over_ends(folders: Path, requeued: list[list[str]]) -> None:
    over = [fake_run(folders, n, s) for n, s in enumerate((State.done, State.diverged, State.cancelled))]
    assert judge(over, 0) == job.OK
    assert judge([*over, fake_run(folders, 9, State.failed)], 1) == job.FAILED
    assert requeued == []


def test_an_unfinished_run_goes_back_to_the_queue(folders: Path, requeued: list[list[str]]) -> None:
    run = with_checkpoint(fake_run(folders, 1, State.preempted, attempt=1, slurm_job_id="77_3"), 10)
    assert judge([run, fake_run(folders, 2, State.done)], 85) == 0
    assert requeued == [["scontrol", "requeue", "77_3"]]
    assert (run.status().state, run.status().slurm_job_id, run.status().deaths) == (State.queued, "77_3", 0)


def test_a_clean_stop_without_a_new_checkpoint_counts(folders: Path, requeued: list[list[str]]) -> None:
    """A time limit that is shorter than the way to the first checkpoint would be tried for ever."""
    run = with_checkpoint(fake_run(folders, 1, State.preempted, attempt=1, started_step=10), 10)
    assert judge([run], 85) == 0
    run.write_status(replace(run.status(), state=State.preempted))
    assert judge([run], 85) == job.FAILED


def test_requeues_without_progress_stop_at_a_limit(folders: Path, requeued: list[list[str]]) -> None:
    run = with_checkpoint(fake_run(folders, 1, State.running, attempt=1), 10)
    for _ in range(LIMIT - 1):
        assert judge([run], 137) == 0
    with_checkpoint(run, 20)  # progress: it is counted anew
    for _ in range(LIMIT - 1):
        assert judge([run], 137) == 0
    assert judge([run], 137) == job.FAILED
    assert len(requeued) == 2 * (LIMIT - 1)
    assert run.status().state is State.failed
    failure = run.status().failure
    assert failure is not None
    assert "2 attempts in a row ended (the last with exit code 137)" in failure.message


def test_one_that_is_given_up_does_not_take_the_others_with_it(folders: Path, requeued: list[list[str]]) -> None:
    hopeless = fake_run(folders, 1, State.running, attempt=2, deaths=1, death_step=0)
    fellow = with_checkpoint(fake_run(folders, 2, State.preempted, attempt=1), 10)
    assert judge([hopeless, fellow], 137) == 0
    assert (hopeless.status().state, fellow.status().state) == (State.failed, State.queued)
    assert len(requeued) == 1


def test_one_that_failed_stays_failed_and_without_a_job_when_its_fellows_go_back(
    folders: Path, requeued: list[list[str]]
) -> None:
    failed = fake_run(folders, 1, State.failed, attempt=1, slurm_job_id="77_3")
    fellow = with_checkpoint(fake_run(folders, 2, State.preempted, attempt=1, slurm_job_id="77_3"), 10)
    assert judge([failed, fellow], 85) == 0
    assert (failed.status().state, failed.status().slurm_job_id) == (State.failed, None)
    assert (fellow.status().state, fellow.status().slurm_job_id) == (State.queued, "77_3")
    fellow.write_status(replace(fellow.status(), state=State.done))
    assert judge([failed, fellow], 0) == job.FAILED


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_cancelled_job_stays_away_and_is_no_death(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    asked = ends(monkeypatch, JobEnd.cancelled)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run = fake_run(folders, 1, State.running if attempt else State.queued, attempt=attempt)
    for _ in range(2 * LIMIT):
        assert judge([run], 143) == job.UNFINISHED
    assert asked[0] == ("77_3", 2)
    assert (run.status().state, run.status().deaths, run.status().failure) == (State.preempted, 0, None)
    assert requeued == []


@pytest.mark.parametrize("state", [State.queued, State.running, State.failed])
def test_what_slurm_requeues_is_queued_and_no_death(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """During start-up, in the middle, and where the end of its peers made it fail: SLURM starts it again."""
    ends(monkeypatch, JobEnd.requeued)
    run = fake_run(folders, 1, state, attempt=1, slurm_job_id="77_3")
    for _ in range(2 * LIMIT):
        assert judge([run], 143) == job.UNFINISHED
    assert (run.status().state, run.status().deaths, run.status().failure) == (State.queued, 0, None)
    assert requeued == []


def test_a_preempted_job_that_ended_in_its_grace_time_goes_back_and_is_no_death(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, JobEnd.preempted)
    run = fake_run(folders, 1, State.queued, slurm_job_id="77_3")
    for _ in range(2 * LIMIT):
        assert judge([run], 143) == 0
    assert (run.status().state, run.status().deaths) == (State.queued, 0)
    assert requeued == [["scontrol", "requeue", "77_3"]] * 2 * LIMIT


def test_a_job_that_slurm_requeues_while_its_shell_does_is_queued(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    ends(monkeypatch, JobEnd.preempted, JobEnd.requeued)
    run = fake_run(folders, 1, State.preempted, attempt=1)
    assert judge([run], 85) == job.UNFINISHED
    assert run.status().state is State.queued


def test_a_job_that_cannot_be_requeued_is_not_called_queued(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))
    run = fake_run(folders, 1, State.preempted, attempt=1)
    assert judge([run], 85) == 1
    assert (run.status().state, run.status().deaths) == (State.preempted, 1)


def test_the_log_that_a_failure_names_exists(folders: Path, requeued: list[list[str]]) -> None:
    """A run whose workers never got so far as to write one is pointed to what its job printed."""
    begun, never = (fake_run(folders, n, State.queued, deaths=LIMIT - 1, death_step=0) for n in range(2))
    printed = folders / "77_3_0_log.err"
    printed.write_text("slurmstepd: error: Detected 1 oom-kill event(s)\n")
    begun.log.write_text("12:00 INFO step 1\n")
    never.log.unlink(missing_ok=True)
    assert judge([begun, never], 137) == job.FAILED
    for run, log in ((begun, begun.log), (never, printed)):
        failure = run.status().failure
        assert failure is not None
        assert failure.message.endswith(f"see {log}")


def test_a_run_that_paused_where_it_was_told_does_not_go_back_to_the_queue(
    folders: Path, requeued: list[list[str]]
) -> None:
    paused = fake_run(folders, 1, State.preempted, step=50, paused_at=50)
    assert judge([paused], job.UNFINISHED) == job.OK
    assert requeued == []
    stopped = fake_run(folders, 2, State.preempted, step=50)
    assert judge([paused, stopped], job.UNFINISHED) == 0
    assert (paused.status().state, stopped.status().state) == (State.preempted, State.queued)


@pytest.mark.parametrize("state", [State.queued, State.preempted, State.running, State.failed])
def test_a_run_that_another_job_has_by_now_is_left_to_that(
    folders: Path, requeued: list[list[str]], state: State
) -> None:
    """It failed here and was retried, while this job trained its other runs."""
    retried = fake_run(folders, 1, state, attempt=1, slurm_job_id="78_0")
    before = retried.status()
    assert judge([retried, fake_run(folders, 2, State.done)], 1) == (job.FAILED if state is State.failed else job.OK)
    assert requeued == []
    fellow = with_checkpoint(fake_run(folders, 3, State.preempted, attempt=1, slurm_job_id="77_3"), 10)
    assert judge([retried, fellow], 85) == 0
    assert requeued == [["scontrol", "requeue", "77_3"]]
    assert retried.status() == before


def test_a_run_that_is_retried_while_its_job_is_judged_keeps_its_new_job(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM is asked why the job ends, which takes seconds; that is when `retry` comes."""
    run = fake_run(folders, 1, State.running, attempt=1, slurm_job_id="77_3")

    def retried_meanwhile(task: str, restarts: int) -> JobEnd:
        run.write_status(replace(run.status(), state=State.queued, slurm_job_id="78_0"))
        return JobEnd.by_itself

    monkeypatch.setattr(job, "why_it_ends", retried_meanwhile)
    assert judge([run], 137) == job.FAILED
    assert requeued == []
    assert (run.status().state, run.status().slurm_job_id, run.status().deaths) == (State.queued, "78_0", 0)


def test_a_folder_that_was_moved_away_does_not_take_its_fellows_down(
    folders: Path, requeued: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, fellow = fake_run(folders, 1, State.queued), fake_run(folders, 2, State.queued)
    shutil.rmtree(gone.path)
    trained: list[RunDir] = []

    def work(folder: RunDir, ranks: object) -> None:
        trained.append(folder)
        folder.write_status(replace(folder.status(), state=State.done))

    monkeypatch.setattr(working, "work", work)
    assert job.run([gone, fellow]) == job.FAILED
    assert trained == [fellow]
    assert f"{gone.path.name} is left out: " in capsys.readouterr().out
    assert judge([gone, fellow], 1) == job.FAILED
    assert requeued == []
    stopped = with_checkpoint(fake_run(folders, 3, State.preempted, attempt=1, slurm_job_id="77_3"), 10)
    assert judge([gone, stopped], 85) == 0
    assert requeued == [["scontrol", "requeue", "77_3"]]
