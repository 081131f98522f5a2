"""Which runs a job in the queue still trains; tests/slurm submits to a real one."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from helpers import compose_run
from unit.cli.fake_runs import fake_run

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.slurm import script
from moe_sweeps.launch.slurm import submit as submitting
from moe_sweeps.launch.slurm.queue import Job
from moe_sweeps.launch.slurm.records import ArrayRecord, all_records
from moe_sweeps.launch.slurm.resources import resources
from moe_sweeps.launch.slurm.submit import Wanted, active_runs, submit
from moe_sweeps.records.rundir import RunDir, State, Status


@pytest.mark.parametrize(
    ("queue_says", "state", "left_to_the_job"),
    [
        ("PENDING", State.queued, True),
        ("PENDING", State.failed, True),  # it has not begun, and reads what its runs need then
        ("CONFIGURING", State.preempted, True),  # its nodes boot
        ("REQUEUE_HOLD", State.preempted, True),  # held: it waits for a person, and two jobs would not help
        ("RUNNING", State.queued, True),
        ("RUNNING", State.running, True),
        ("RUNNING", State.preempted, True),  # its batch shell is about to send it back to the queue
        ("SUSPENDED", State.running, True),  # stopped by SLURM; it resumes by itself
        ("STOPPED", State.running, True),
        ("COMPLETING", State.running, True),  # it may be on its way back to the queue
        ("COMPLETING", State.preempted, False),  # cancelled: scancel, then the same line at once
        ("COMPLETING", State.failed, False),
        ("RUNNING", State.failed, False),  # it trains the other runs of a pack, for hours
        ("SUSPENDED", State.failed, False),
    ],
)
def test_which_runs_a_job_in_the_queue_still_trains(
    tmp_path: Path, queue_says: str, state: State, left_to_the_job: bool
) -> None:
    folder = fake_run(tmp_path, 0, state, slurm_job_id="7_0")
    jobs = submitted(tmp_path, folder, "7", queue_says)
    assert set(active_runs(tmp_path, jobs)) == ({folder.path.name} if left_to_the_job else set())


@pytest.mark.parametrize(
    ("queue_says", "state", "ended_in", "left_to_the_job"),
    [
        ("COMPLETING", State.planned, "7_0", False),  # it failed a second ago, and `retry` was typed
        ("RUNNING", State.planned, "7_0", False),  # the same: its batch shell is about to end, or it has other runs
        ("RUNNING", State.preempted, "7_0", False),
        ("SUSPENDED", State.preempted, "7_0", False),
        ("RUNNING", State.preempted, None, False),  # its job went back to the queue without it, and runs again
        ("PENDING", State.planned, "7_0", True),  # it went back for other runs, and will train this one, too
        ("CONFIGURING", State.planned, None, True),
        ("RUNNING", State.queued, "6_0", True),  # submitted from another shell meanwhile
        ("RUNNING", State.running, "7_0", True),  # SLURM requeued the job, which has begun with the run already
    ],
)
def test_which_job_trains_a_run_that_is_retried(
    tmp_path: Path, queue_says: str, state: State, ended_in: str | None, left_to_the_job: bool
) -> None:
    folder = fake_run(tmp_path, 0, state, slurm_job_id="7_0")
    jobs = submitted(tmp_path, folder, "7", queue_says)
    retried = {folder.path.name: ended_in}
    assert set(active_runs(tmp_path, jobs, retried)) == ({folder.path.name} if left_to_the_job else set())


def test_a_run_that_looks_lost_is_left_to_its_job(tmp_path: Path) -> None:
    """`retry` while nobody could ask SLURM: it is not said to have ended in any job, so the job that runs has it."""
    folder = fake_run(tmp_path, 0, State.preempted, attempt=1, slurm_job_id="7_0")
    jobs = submitted(tmp_path, folder, "7", "RUNNING")
    assert set(active_runs(tmp_path, jobs, {"another run": "7_0"})) == {folder.path.name}


def test_a_damaged_run_stops_no_submission_and_is_left_to_its_job(tmp_path: Path) -> None:
    damaged = fake_run(tmp_path, 0, State.queued, slurm_job_id="7_0")
    other = fake_run(tmp_path, 1, State.planned)
    jobs = submitted(tmp_path, damaged, "7", "RUNNING") | submitted(tmp_path, other, "8", "RUNNING")
    shutil.rmtree(damaged.path)
    assert set(active_runs(tmp_path, jobs)) == {damaged.path.name, other.path.name}
    assert other.status().slurm_job_id == "8_0"  # its submission had died before it said so


def test_a_job_that_has_got_an_old_number_trains_nothing_here(tmp_path: Path) -> None:
    folder = fake_run(tmp_path, 0, State.queued, slurm_job_id="7_0")
    (job,) = submitted(tmp_path, folder, "7", "PENDING").values()
    assert active_runs(tmp_path, {"7_0": dataclasses.replace(job, name="my-other-array")}) == {}
    assert set(active_runs(tmp_path, {"7_0": job})) == {folder.path.name}


def test_what_another_user_submitted_is_seen_and_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that somebody else wrote would be refused by its job."""
    folder = fake_run(tmp_path, 0, State.planned)
    (job,) = submitted(tmp_path, folder, "7", "PENDING").values()
    (record,) = all_records(tmp_path)
    record.job_id = None  # the submission died before it noted the number
    record.write()
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert set(active_runs(tmp_path, {"7_0": job})) == {folder.path.name}
    assert [found.job_id for found in all_records(tmp_path)] == [None]
    assert folder.status().state is State.planned


@pytest.mark.parametrize(
    ("private", "state", "retried", "left"),
    [
        ("jobs", State.queued, {}, True),
        ("jobs", State.running, {}, True),
        ("jobs", State.failed, {}, False),
        ("jobs", State.preempted, {"fake-000000000000": "7_0"}, False),  # it failed in that job, and is retried
        ("none", State.queued, {}, False),  # squeue shows all jobs, and not this one
    ],
)
def test_a_run_whose_job_squeue_may_hide_is_not_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: str, state: State, retried: dict[str, str], left: bool
) -> None:
    fake_cluster(tmp_path, monkeypatch)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho 'PrivateData             = {private}'\n")
    (tmp_path / "answer").write_text("echo Submitted batch job 8")
    wanted, launch = one_wanted(tmp_path / "runs")
    wanted.folder.write_status(Status(state, attempt=1, slurm_job_id="7_0"))
    submitted(tmp_path / "runs", wanted.folder, "7", "PENDING")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(submitting, "longest_minutes", lambda _: None)
    done = submit([wanted], launch, tmp_path / "runs", "s", retried)
    assert [record.job_id for record in done.arrays] == ([] if left else ["8"])
    assert done.active == ([wanted.folder] if left else [])


# A cluster of three commands. sbatch takes every job, as the lines of `queue` show; its answer is what `answer` does.
FAKE_CLUSTER = {
    "sbatch": """case "$1" in --test-only) exit 0;; esac
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
if [ -e {folder}/accepts ]; then echo "7_0|$name|PENDING|None|" >> {folder}/queue; fi
. {folder}/answer""",
    "squeue": "cat {folder}/queue",
    "scontrol": "exit 0",
}


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        "exec sleep 60",
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
        "echo 'the mail server says hello'",
    ],
)
def test_a_job_whose_submission_had_no_answer_is_looked_for_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, accepts: bool
) -> None:
    """A busy controller takes the job, and its answer comes too late: submitting again would train nothing twice, but
    hold a second place in the queue."""
    fake_cluster(tmp_path, monkeypatch)
    (tmp_path / "answer").write_text(answer)
    if accepts:
        (tmp_path / "accepts").touch()
    wanted, launch = one_wanted(tmp_path / "runs")
    with pytest.raises(LaunchError) as unknown:
        submit([wanted], launch, tmp_path / "runs", "s")
    assert "submits nothing twice" in " ".join(unknown.value.__notes__)
    (tmp_path / "answer").write_text("echo Submitted batch job 8")
    again = submit([wanted], launch, tmp_path / "runs", "s")
    assert [record.job_id for record in again.arrays] == ([] if accepts else ["8"])
    assert [folder.path for folder in again.active] == ([wanted.folder.path] if accepts else [])
    assert wanted.folder.status().slurm_job_id == ("7_0" if accepts else "8_0")


def test_a_refused_submission_leaves_neither_record_nor_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cluster(tmp_path, monkeypatch)
    (tmp_path / "answer").write_text("echo 'sbatch: error: Invalid account' >&2; exit 1")
    wanted, launch = one_wanted(tmp_path / "runs")
    with pytest.raises(LaunchError, match="Invalid account"):
        submit([wanted], launch, tmp_path / "runs", "s")
    assert not list((tmp_path / "runs" / "sweeps" / "s" / "slurm").glob("moe-*"))


def fake_cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "queue").touch()
    for name, lines in FAKE_CLUSTER.items():
        (folder / name).write_text("#!/bin/sh\n" + lines.replace("{folder}", f"'{folder}'") + "\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(script, "SBATCH_SECONDS", 1)


def one_wanted(root: Path) -> tuple[Wanted, SlurmConfig]:
    run = compose_run("launch=slurm_cpu")
    assert isinstance(run.launch, SlurmConfig)
    launch = dataclasses.replace(run.launch, threads=1)
    return Wanted(fake_run(root, 0, State.planned), resources(run, 60.0), root), launch


def submitted(root: Path, folder: RunDir, number: str, queue_says: str) -> dict[str, Job]:
    """Job `number`, which has the run, as its record and the queue tell of it."""
    place = root / "sweeps" / number / "slurm"
    place.mkdir(parents=True)
    record = ArrayRecord.new(place, root, [[folder.path.name]], {}, root)
    record.job_id = number
    record.write()
    return {f"{number}_0": Job(f"{number}_0", record.name, queue_says, "None", "n1")}


def test_arms_wait_for_the_job_of_their_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trunks are submitted first, whatever their names; an array of arms waits for the one task that trains theirs."""
    fake_cluster(tmp_path, monkeypatch)
    (tmp_path / "answer").write_text(f"n=$(cat {tmp_path}/n 2>/dev/null || echo 10); echo $((n + 1)) > {tmp_path}/n\n"
                                     "echo Submitted batch job $n")  # fmt: skip
    one, launch = one_wanted(tmp_path / "runs")
    folders = [fake_run(tmp_path / "runs", number) for number in range(5, 9)]
    trunks = [dataclasses.replace(one, folder=folder) for folder in folders[2:]]
    arms = [dataclasses.replace(one, folder=f, after=t.folder.path.name)
            for f, t in zip(folders[:2], trunks, strict=True)]  # fmt: skip
    done = submit([*arms, *trunks], launch, tmp_path / "runs", "s")
    assert [(record.after, record.job_id) for record in done.arrays] == [
        (None, "10"), (folders[2].path.name, "11"), (folders[3].path.name, "12"),
    ]  # fmt: skip
    first, second, third = (record.path.with_suffix(".sh").read_text() for record in done.arrays)
    assert "dependency" not in first
    assert "#SBATCH --dependency=afterok:10_0" in second
    assert "#SBATCH --dependency=afterok:10_1" in third
    assert "#SBATCH --kill-on-invalid-dep=yes" in second
    assert ArrayRecord.read(done.arrays[1].path) == done.arrays[1]


def test_arms_wait_for_a_trunk_that_is_in_the_queue_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cluster(tmp_path, monkeypatch)
    one, launch = one_wanted(tmp_path / "runs")
    launch = dataclasses.replace(launch, sbatch=["dependency=singleton"])
    trunk = fake_run(tmp_path / "runs", 7, State.queued, slurm_job_id="7_0")
    (job,) = submitted(tmp_path / "runs", trunk, "7", "PENDING").values()
    (tmp_path / "queue").write_text(f"7_0|{job.name}|PENDING|None|\n")
    (tmp_path / "answer").write_text("echo Submitted batch job 8")
    arm = dataclasses.replace(one, folder=fake_run(tmp_path / "runs", 5), after=trunk.path.name)
    (record,) = submit([arm], launch, tmp_path / "runs", "s").arrays
    assert "--dependency=singleton,afterok:7_0" in record.path.with_suffix(".sh").read_text()
