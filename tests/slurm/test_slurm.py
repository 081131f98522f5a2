"""`launch=slurm` on a real SLURM of four virtual nodes: what it runs, refuses, and says when a task fails."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import TINY
from newcomers import CHOSEN, install
from processes import manage, train
from slurm.cluster import Cluster
from slurm.conftest import MAX_ARRAY_SIZE
from slurm.submitting import (
    LINE,
    LONG,
    ON_SLURM,
    arrays,
    logs,
    result,
    run_of_seed,
    runs,
    sabotage,
    settled_state,
    submit,
    wait_for,
    wait_for_step,
)

from moe_sweeps.launch.slurm.records import all_records
from moe_sweeps.records.rundir import State

CANONICAL = (*TINY, "balancer=aux,lossfree", "aux.coef=0.1,0.2,0.6")


def test_canonical_line_is_one_array_of_four_with_the_results_of_this_machine(
    cluster: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = arrays(submit(*CANONICAL))
    assert len(found) == 1
    assert [len(record.jobs) for record in all_records(folders)] == [4]
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folders.with_name("local")))
    local = train("-m", *CANONICAL)
    assert local.returncode == 0, local.stderr
    wait_for(runs(folders), State.done)
    here, there = (sorted(runs(root), key=lambda r: r.run_id) for root in (folders.with_name("local"), folders))
    assert [r.run_id for r in here] == [r.run_id for r in there]
    assert [result(r) for r in here] == [result(r) for r in there]
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(folders))
    again = submit(*CANONICAL)
    assert "already done: 4, to run: 0" in again
    assert "submit" not in again


def test_a_job_finds_the_components_of_an_installed_package(
    cluster: Cluster, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job imports a snapshot of the sources and, as every process of this Python, what is installed beside them."""
    monkeypatch.setenv("PYTHONPATH", str(install(tmp_path / "site")))
    submit(*TINY, *CHOSEN)
    wait_for(runs(folders), State.done)
    assert [run.config()["router"]["kind"] for run in runs(folders)] == ["softplus"]


def test_more_runs_than_an_array_may_hold_and_several_in_a_job(cluster: Cluster, folders: Path) -> None:
    output = submit(*LINE, "seed=range(12)", "launch.pack=2")
    assert len(arrays(output)) == 2
    assert [[len(names) for names in r.jobs] for r in all_records(folders)] == [[2] * 5, [2]]
    wait_for(runs(folders), State.done)
    assert len(runs(folders)) == 12


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("launch.partition=nowhere", "invalid partition"),
        ("launch.sbatch=['time=soon']", "Invalid --time"),
        # SLURM takes it, and lets it wait for ever.
        ("launch.partition=short", "launch.minutes=10 is refused: no job may run longer than 1 minutes"),
    ],
)
def test_what_cannot_run_is_refused_at_once_and_leaves_nothing(
    cluster: Cluster, folders: Path, setting: str, words: str
) -> None:
    done = train("-m", *LINE, "seed=0,1", *ON_SLURM, setting)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(folders.glob("sweeps/*/slurm/*"))
    assert cluster.call("squeue", "-h") == ""
    assert {r.status().state for r in runs(folders)} == {State.planned}


@pytest.fixture
def drained(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with nodes that start nothing."""
    for node in cluster.nodes:
        cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    yield cluster
    cluster.call("scancel", "--user=root")
    for node in cluster.nodes:
        cluster.call("scontrol", "update", f"nodename={node}", "state=resume")


def deadly_sbatch(folder: Path, line: str) -> str:
    """A PATH on which sbatch runs `line` instead of a submission; $sbatch is the real one."""
    folder.mkdir()
    real = shutil.which("sbatch")
    (folder / "sbatch").write_text(
        f'#!/bin/sh\nsbatch={real}\ncase "$*" in *--test-only*) exec $sbatch "$@";; esac\n{line}\n'
    )
    (folder / "sbatch").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_launcher_killed_half_way_is_gone_on_with(
    drained: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first of two arrays, while it is submitted, and after everything; then jobs leave the queue again."""
    line = (*LINE, "seed=range(7)")

    def waiting() -> int:
        return len(drained.call("squeue", "--noheader", "--array").splitlines())

    moments = (("kill -9 $PPID", 0), ('$sbatch "$@" >/dev/null; kill -9 $PPID', MAX_ARRAY_SIZE))
    for number, (moment, in_queue) in enumerate(moments):
        with monkeypatch.context() as context:
            context.setenv("PATH", deadly_sbatch(folders.with_name(f"bin{number}"), moment))
            died = train("-m", *ON_SLURM, *line)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert waiting() == in_queue
        assert {record.job_id for record in all_records(folders)} == {None}
    output = submit(*line)
    assert "2 runs in 2 jobs" in output
    assert "5 runs in the queue" in output
    assert waiting() == 7
    again = submit(*line)
    assert "submitted" not in again
    assert "7 runs in the queue or running already" in again
    assert waiting() == 7

    by_hand = run_of_seed(folders, 6)
    drained.call("scancel", str(by_hand.status().slurm_job_id))
    assert "1 lost" in manage("status").stdout
    assert f"repaired: {by_hand.path.name}: planned" in manage("status", "--repair").stdout
    assert manage("cancel", "--all").returncode == 0
    assert waiting() == 0
    assert {r.status().state for r in runs(folders)} == {State.cancelled}


def test_a_task_that_raises_is_not_silent_and_is_submitted_again_by_retry(cluster: Cluster, folders: Path) -> None:
    mended = folders.with_name("mended")
    condition = f"if self.run.seed == 1 and not os.path.exists('{mended}'):"
    setup = sabotage(folders.with_name("broken"), condition, "    raise RuntimeError('a broken machine')")
    done = train("-m", *LINE, "seed=0,1,2", *ON_SLURM, setup, "launch.wait=true")
    assert done.returncode == 1, done.stdout + done.stderr + logs(folders)
    assert "a broken machine" in done.stdout
    states = [run_of_seed(folders, seed).status().state for seed in range(3)]
    assert states == [State.done, State.failed, State.done]
    broken = run_of_seed(folders, 1)
    assert "RuntimeError: a broken machine" in (broken.last_traceback() or "")
    tasks = [str(run_of_seed(folders, seed).status().slurm_job_id) for seed in range(3)]
    assert [settled_state(cluster, task) for task in tasks] == ["COMPLETED", "FAILED", "COMPLETED"]

    mended.touch()
    again = manage("retry")
    assert again.returncode == 0, again.stderr
    (number,) = arrays(again.stdout)
    watched = manage("watch")
    assert watched.returncode == 0, watched.stdout + watched.stderr + logs(folders)
    assert (broken.status().state, broken.status().slurm_job_id) == (State.done, f"{number}_0")
    assert [run_of_seed(folders, seed).status().attempt for seed in range(3)] == [1, 2, 1]


def test_jobs_that_somebody_cancels_do_not_come_back(cluster: Cluster, folders: Path) -> None:
    """By scancel: the same command resumes them. By `moe-sweeps cancel`: the worker saves, and it stays so."""
    line = (*LONG, "seed=0,1", sabotage(folders.with_name("slow"), "time.sleep(0.05 * step)"))
    submit(*line)
    first, second = (run_of_seed(folders, seed) for seed in (0, 1))
    tasks = [str(wait_for_step(folder, 10).slurm_job_id) for folder in (first, second)]
    cluster.call("scancel", tasks[0])
    assert manage("cancel", second.run_id).returncode == 0
    assert [settled_state(cluster, task) for task in tasks] == ["CANCELLED", "COMPLETED"], logs(folders)
    assert second.status().state is State.cancelled
    assert second.checkpoint_step() == second.status().step > 0
    output = submit(*line)
    assert "1 run in 1 job" in output, output
    wait_for([first], State.done)
    assert first.status().attempt == 2


def test_rank_one_of_two_that_raises_is_not_silent(cluster: Cluster, folders: Path) -> None:
    condition = "if os.environ['SLURM_PROCID'] == '1':"
    setup = sabotage(folders.with_name("broken"), condition, "    raise RuntimeError('a broken machine')")
    output = submit(*LINE, "launch.tasks_per_node=2", setup)
    (folder,) = runs(folders)
    wait_for([folder], State.failed)
    assert settled_state(cluster, f"{arrays(output)[0]}_0") == "FAILED", logs(folders)
    status = folder.status()
    assert status.failure is not None
    assert "rank 1 of 2: a broken machine" in status.failure.message
    assert "a broken machine" in (folder.path / "traceback.txt").read_text()
