"""`launch=slurm` on a real SLURM of four virtual nodes: what it runs, refuses, and says when a task fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from processes import train
from slurm.cluster import Cluster
from slurm.submitting import LINE, ON_SLURM, arrays, logs, result, run_of_seed, runs, settled_state, submit, wait_for

from moe_sweeps.rundir import State
from moe_sweeps.sweep.slurm.records import Record, all_records

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
    assert "nothing to submit" in submit(*CANONICAL)


def test_more_runs_than_an_array_may_hold_and_several_in_a_job(cluster: Cluster, folders: Path) -> None:
    output = submit(*LINE, "seed=range(12)", "launch.pack=2")
    assert len(arrays(output)) == 2
    assert [[len(names) for names in r.jobs] for r in all_records(folders)] == [[2] * 5, [2]]
    wait_for(runs(folders), State.done)
    assert len(runs(folders)) == 12


@pytest.mark.parametrize(
    ("setting", "words"),
    [("launch.partition=nowhere", "invalid partition"), ("launch.sbatch=['time=soon']", "Invalid --time")],
)
def test_what_sbatch_refuses_is_said_in_its_words_and_leaves_nothing(
    cluster: Cluster, folders: Path, setting: str, words: str
) -> None:
    done = train("-m", *LINE, "seed=0,1", *ON_SLURM, setting)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(all_records(folders))
    assert cluster.call("squeue", "-h") == ""
    assert {r.status().state for r in runs(folders)} == {State.planned}


def test_a_launcher_that_died_half_way_is_gone_on_with(cluster: Cluster, folders: Path) -> None:
    """Before sbatch: a record and no job. During: a job in the queue whose number nobody noted. After: all is there."""
    for node in cluster.nodes:
        cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        first = arrays(submit(*LINE, "seed=0,1"))
        (record,) = all_records(folders)
        record.job_id = None  # died between sbatch and the note
        record.write()
        never = Record.new(
            record.path.parent, folders, [[run_of_seed(folders, 0).path.name]], record.resources, folders
        )
        never.write()  # died before sbatch
        second = submit(*LINE, "seed=0,1,2")
        assert "1 run in 1 job" in second
        assert "2 runs in the queue" in second
        assert Record.read(record.path).job_id == first[0]
        assert "submitted job array" not in submit(*LINE, "seed=0,1,2")
        assert len(cluster.call("squeue", "-h", "-r").splitlines()) == 3
    finally:
        for node in cluster.nodes:
            cluster.call("scontrol", "update", f"nodename={node}", "state=resume")
    wait_for(runs(folders), State.done)
    assert {r.status().attempt for r in runs(folders)} == {1}


def broken(folder: Path, condition: str) -> str:
    """A setting that makes training raise where `condition` holds: the jobs' Python finds a sitecustomize there."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'run' in sys.orig_argv and 'SLURM_PROCID' in os.environ:\n"
        "    from moe_sweeps.trainer import Trainer\n"
        "    train = Trainer.train\n"
        "    def broken(self, *arguments):\n"
        f"        if {condition}:\n"
        "            raise RuntimeError('a broken machine')\n"
        "        return train(self, *arguments)\n"
        "    Trainer.train = broken\n"
    )
    return f"launch.setup=['export PYTHONPATH={folder}']"


def test_a_task_that_raises_is_not_silent(cluster: Cluster, folders: Path) -> None:
    setup = broken(folders.with_name("broken"), "self.run.seed == 1")
    done = train("-m", *LINE, "seed=0,1,2", *ON_SLURM, setup, "launch.wait=true")
    assert done.returncode == 1, done.stdout + done.stderr + logs(folders)
    assert "a broken machine" in done.stdout
    states = [run_of_seed(folders, seed).status().state for seed in range(3)]
    assert states == [State.done, State.failed, State.done]
    assert "RuntimeError: a broken machine" in (run_of_seed(folders, 1).last_traceback() or "")
    tasks = [str(run_of_seed(folders, seed).status().slurm_job_id) for seed in range(3)]
    assert [settled_state(cluster, task) for task in tasks] == ["COMPLETED", "FAILED", "COMPLETED"]


def test_rank_one_of_two_that_raises_is_not_silent(cluster: Cluster, folders: Path) -> None:
    setup = broken(folders.with_name("broken"), "os.environ['SLURM_PROCID'] == '1'")
    output = submit(*LINE, "launch.tasks_per_node=2", setup)
    (folder,) = runs(folders)
    wait_for([folder], State.failed)
    assert settled_state(cluster, f"{arrays(output)[0]}_0") == "FAILED", logs(folders)
    status = folder.status()
    assert status.failure is not None
    assert "rank 1 of 2: a broken machine" in status.failure.message
    assert "a broken machine" in (folder.path / "traceback.txt").read_text()
