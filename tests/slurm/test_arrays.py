"""One task of an array is stopped, and only that one: the leader, whose job number is the array's, and another.

SLURM gives the last task that it takes out of an array the array's own number. What asks or acts by that number means
every task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import manage, train, wait_until
from slurm.cluster import Cluster
from slurm.submitting import LONG, logs, result, runs, sabotage, submit, wait_for, wait_for_step
from slurm.test_survival import kill_rank, rank_process

from moe_sweeps.records.rundir import RunDir, State

LEADER, MEMBER, QUIET = 0, 1, 2
Stop = Callable[[Cluster, str], object]


def scancel(cluster: Cluster, task: str) -> None:
    cluster.call("scancel", task)


def kill_worker(cluster: Cluster, task: str) -> None:
    cluster.call("scancel", "--signal=KILL", f"{task}.0")


def requeue(cluster: Cluster, task: str) -> None:
    cluster.call("scontrol", "requeue", task)


def preempt(cluster: Cluster, task: str) -> None:
    node = cluster.call("squeue", "-h", "-j", task, "-o", "%N").strip()
    urgent = ["sbatch", "--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null"]
    cluster.call(*urgent, "--mem=100", "--wrap=sleep 1")


def in_order(cluster: Cluster, folders: list[RunDir]) -> list[RunDir]:
    """The run of the array's leader first; all of them train."""
    tasks = {str(wait_for_step(folder, 20).slurm_job_id): folder for folder in folders}
    numbers = (line.split("|") for line in cluster.call("squeue", "-h", "-o", "%A|%F|%i").splitlines())
    leaders = [task for number, array, task in numbers if number == array]
    assert len(leaders) == 1, "SLURM has a leader in each array; without one this test tests nothing"
    return [tasks.pop(leaders[0]), *tasks.values()]


@pytest.mark.parametrize(
    ("leader", "member"),
    [
        (scancel, kill_worker),
        (preempt, requeue),
        pytest.param(kill_worker, scancel, marks=pytest.mark.slow),
        pytest.param(requeue, preempt, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
def test_what_happens_to_one_task_of_an_array_happens_to_no_other(
    cluster: Cluster, folders: Path, leader: Stop, member: Stop
) -> None:
    submit(*LONG, "trainer.steps=200", "seed=0,1,2", "launch.cpus_per_task=6", slow(folders))
    started = in_order(cluster, runs(folders))
    tasks = [str(folder.status().slurm_job_id) for folder in started]
    for folder, stop in zip(started, (leader, member), strict=False):
        stop(cluster, str(folder.status().slurm_job_id))
    came_back = [folder for folder, stop in zip(started, (leader, member), strict=False) if stop is not scancel]
    gone = [folder for folder, stop in zip(started, (leader, member), strict=False) if stop is scancel]
    wait_for([*came_back, started[QUIET]], State.done, State.failed)
    found = [(f.status().state, f.status().attempt, f.status().slurm_job_id) for f in started]
    wanted = [(State.done, 2, task) for task in tasks[:2]] + [(State.done, 1, tasks[QUIET])]
    for folder in gone:
        wanted[started.index(folder)] = (State.preempted, 1, tasks[started.index(folder)])
    assert found == wanted, logs(folders)
    wait_until(lambda: cluster.call("squeue", "-h", "--array", "-n", name_of(folders)) == "", 60)
    assert all(f.status().deaths == 0 for f in gone)


def slow(folders: Path) -> str:
    """Steps that take long enough to be disturbed in the middle."""
    return sabotage(folders.with_name("slow"), "time.sleep(0.03 * step)")


def name_of(folders: Path) -> str:
    (script,) = folders.glob("sweeps/*/slurm/moe-*.sh")
    return script.stem


@pytest.mark.timeout(900)
def test_every_task_of_an_array_that_does_not_fit_its_time_is_gone_on_with(
    cluster: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_time = "if step and 'SLURM_RESTART_COUNT' not in os.environ:"
    crawling = sabotage(folders.with_name("slow"), first_time, "    time.sleep(0.5)")
    limit = ("launch.partition=short", "launch.minutes=1", "launch.signal_seconds=1")
    submit(*LONG, "seed=0,1", *limit, crawling)
    wait_for(runs(folders), State.done, State.failed, seconds=600)
    for status in (folder.status() for folder in runs(folders)):
        assert (status.state, status.deaths) == (State.done, 0), logs(folders)
        assert status.attempt == status.slurm_restarts + 1 >= 2  # each time that its job was requeued is one attempt
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folders.with_name("quiet")))
    assert train("-m", *LONG, "seed=0,1").returncode == 0
    for ours, theirs in zip(runs(folders), runs(folders.with_name("quiet")), strict=True):
        assert result(ours) == result(theirs)


@pytest.mark.parametrize("stop", [requeue, pytest.param(preempt, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_stops_during_start_up_are_no_deaths(cluster: Cluster, folders: Path, stop: Stop) -> None:
    """More often than a run may die; it is never called failed while its job waits, and trains in the end."""
    gate = folders.with_name("gate")
    setup = slow_start(folders.with_name("start"), gate)
    submit(*LONG, "trainer.steps=40", "launch.max_attempts_without_progress=1", setup)
    (folder,) = runs(folders)
    task = str(folder.status().slurm_job_id)
    for restarts in range(2):
        wait_until(lambda: rank_process(folders, 0) is not None, 120)
        stop(cluster, task)
        wait_until(lambda n=restarts: f"Restarts={n + 1} " in cluster.call("scontrol", "show", "job", task), 60)  # type: ignore[misc]
        time.sleep(1.0)
        assert folder.status().state is State.queued, logs(folders)
        assert "0 failed" in (text := manage("status").stdout) or "failed" not in text
    gate.touch()
    wait_for([folder], State.done, State.failed)
    assert (folder.status().state, folder.status().deaths) == (State.done, 0), logs(folders)


def slow_start(folder: Path, gate: Path) -> str:
    """Jobs whose Python waits for `gate` before it has imported anything: signals find no handler there."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"""\
import os, sys, time
if "run" in sys.orig_argv and "SLURM_PROCID" in os.environ:
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.05)
""")
    return f"launch.setup=['export PYTHONPATH={folder}']"


def test_a_worker_that_is_killed_during_start_up_is_a_death_and_its_log_exists(cluster: Cluster, folders: Path) -> None:
    setup = slow_start(folders.with_name("start"), folders.with_name("never"))
    submit(*LONG, "launch.max_attempts_without_progress=1", setup)
    (folder,) = runs(folders)
    wait_until(lambda: rank_process(folders, 0) is not None, 120)
    kill_rank(folders, 0)
    wait_for([folder], State.failed)
    failure = folder.status().failure
    assert failure is not None
    assert failure.type == "NoProgress"
    assert Path(failure.message.rpartition("see ")[2]).read_text()
    # Asked for again, it has all its attempts again.
    folders.with_name("never").touch()
    assert manage("retry").returncode == 0
    wait_for([folder], State.done)
    assert folder.status().deaths == 0
