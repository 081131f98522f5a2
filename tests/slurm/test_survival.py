"""What a cluster does to jobs, on a real SLURM: each run ends as one that nobody disturbed, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from helpers import records
from processes import train
from slurm.cluster import Cluster
from slurm.submitting import LINE, LONG, logs, result, run_of_seed, runs, sabotage, submit, wait_for, wait_for_step

from moe_sweeps.records.rundir import RunDir, State

KILLED, PREEMPTED, NODE_LOST, REQUEUED = range(4)  # by the number of the node
TIMED_OUT = 4  # a seed


def node_of(cluster: Cluster, task: str) -> str:
    return cluster.call("squeue", "-h", "-j", task, "-o", "%N").strip()


def submit_what_does_not_fit_its_time(folders: Path) -> None:
    """A run that is slow until its job has been requeued, in jobs of one minute; SLURM warns it after half of that."""
    first_time = "if step and 'SLURM_RESTART_COUNT' not in os.environ:"
    slow = sabotage(folders.with_name("slow"), first_time, "    time.sleep(0.5)")
    limit = ("launch.partition=short", "launch.minutes=1", "launch.signal_seconds=1")
    submit(*LONG, f"seed={TIMED_OUT}", *limit, slow, "launch.sbatch=['nodelist=n1']")


@pytest.mark.timeout(900)
def test_runs_survive_what_a_cluster_does(cluster: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs at once, each on a node of its own, each disturbed in its own way, and one that outlasts its jobs."""
    submit_what_does_not_fit_its_time(folders)
    # They are slow until each has been disturbed, one after the other.
    first_time = "if step and 'SLURM_RESTART_COUNT' not in os.environ:"
    slower = sabotage(folders.with_name("slower"), first_time, "    time.sleep(0.1)")
    submit(*LONG, "seed=0,1,2,3", "launch.cpus_per_task=6", slower)
    started = [str(wait_for_step(run_of_seed(folders, seed), 30).slurm_job_id) for seed in range(4)]
    nodes, tasks = zip(*sorted((node_of(cluster, task), task) for task in started), strict=True)
    urgent = ["sbatch", "--partition=high", "--exclusive", f"--nodelist={nodes[PREEMPTED]}", "--output=/dev/null"]
    cluster.call(*urgent, "--mem=100", "--wrap=sleep 1")
    cluster.call("scancel", "--signal=KILL", f"{tasks[KILLED]}.0")
    cluster.lose_node(nodes[NODE_LOST])
    cluster.call("scontrol", "requeue", tasks[REQUEUED])
    cluster.start_node(nodes[NODE_LOST])
    cluster.call("scontrol", "update", f"nodename={nodes[NODE_LOST]}", "state=resume", check=False)

    quiet = folders.with_name("quiet")
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(quiet))
    assert train("-m", *LONG, "seed=0,1,2,3,4").returncode == 0
    wait_for(runs(folders), State.done, State.failed, seconds=400)
    states = {r.config()["seed"]: (str(r.status().state), r.status().attempt) for r in runs(folders)}
    assert {state for state, _ in states.values()} == {"done"}, f"{states}\n{logs(folders)}"
    assert all(attempt >= 2 for _, attempt in states.values()), states
    for seed in range(5):
        assert result(run_of_seed(folders, seed)) == result(run_of_seed(quiet, seed)), f"seed {seed}: {states}"


def rank_process(runs_root: Path, rank: int) -> int | None:
    """The process of one rank of a job whose runs are below `runs_root`."""
    marks = (f"MOE_SWEEPS_RUNS={runs_root}\0".encode(), f"SLURM_PROCID={rank}\0".encode())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            line = (process / "cmdline").read_bytes().split(b"\0")  # srun and the job's teardown name the module, too
            is_worker = b"python" in line[0] and {b"moe_sweeps.launch.slurm.job", b"run"} <= set(line)
            if is_worker and all(mark in environment for mark in marks):
                return int(process.name)
        except OSError:
            continue  # it ended meanwhile
    return None


def kill_rank(runs_root: Path, rank: int) -> None:
    """SIGKILL to the process of one rank."""
    pid = rank_process(runs_root, rank)
    assert pid is not None  # 0 would mean this process's own group
    os.kill(pid, signal.SIGKILL)


def test_two_nodes_with_two_tasks_are_one_run(cluster: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one process trains it, up to the order of sums; with rank 3 killed, exactly as when left alone."""
    shape = ("launch.nodes=2", "launch.tasks_per_node=2", "trainer.micro_batch_size=1")
    # With seed 0 rounding decides a near-tie of one token at step 40, whatever adds up the gradients (docs/LOG.md).
    line = (*LINE, "seed=2", "trainer.steps=120", "trainer.checkpoint_every=10")
    submit(*line, *shape)
    (quiet,) = runs(folders)
    killed_root = folders.with_name("killed")
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(killed_root))
    submit(*line, *shape)
    (killed,) = runs(killed_root)
    wait_for_step(killed, 20)
    kill_rank(killed_root, 3)
    alone_root = folders.with_name("alone")
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(alone_root))
    assert train(*line, "trainer.micro_batch_size=1").returncode == 0
    (alone,) = runs(alone_root)

    wait_for([quiet, killed], State.done, State.failed)
    assert (quiet.status().state, killed.status().state) == (State.done, State.done), logs(killed_root)
    assert killed.status().attempt == 2
    assert result(killed) == result(quiet)
    assert quiet.provenance()["attempts"][0]["processes"] == 4
    assert_equal_up_to_the_order_of_sums(quiet, alone)


def assert_equal_up_to_the_order_of_sums(many: RunDir, one: RunDir) -> None:
    """Losses to rounding; loads and biases the same numbers. Beyond 60 steps, rounding has decided near-ties."""
    for ours, theirs in zip(records(many), records(one), strict=True):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        if theirs["step"] <= 60:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    counted = 0
    for ours, theirs in zip(records(many, "routing.jsonl"), records(one, "routing.jsonl"), strict=True):
        exact = [key for key in theirs if key in ("load_LE", "bias_LE", "domain_load") and theirs["step"] <= 60]
        assert {key: ours[key] for key in exact} == {key: theirs[key] for key in exact}, theirs["step"]
        counted += len(exact)
    assert counted > 30
