"""Forks on a real SLURM: arms wait for their own trunk alone, and end as on this machine, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY
from processes import train
from slurm.cluster import Cluster
from slurm.submitting import ON_SLURM, arrays, logs, result, runs, sabotage, submit, wait_for

from moe_sweeps.records.rundir import RunDir, State

LINE = (*TINY, "trainer.steps=60", "balancer=aux,lossfree", "seed=0,1", "fork.step=30")
FORKS = 4


def trunks_and_arms(root: Path, seed: int) -> tuple[list[RunDir], list[RunDir]]:
    """The trunk and the arms of a seed."""
    own = [run for run in runs(root) if run.config()["seed"] == seed]
    is_trunk = {run: run.config()["fork"]["role"] == "trunk" for run in own}
    return [r for r in own if is_trunk[r]], [r for r in own if not is_trunk[r]]


def reason(cluster: Cluster, run: RunDir) -> str:
    """Why SLURM keeps the run's job waiting."""
    return cluster.call("squeue", "-h", "-j", str(run.status().slurm_job_id), "-o", "%r").strip()


@pytest.mark.timeout(900)
def test_arms_wait_for_their_trunk_and_end_as_here(
    cluster: Cluster, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trunk of seed 0 stands still until it is requeued; seed 1 does not wait for it."""
    still = "    while self.step == 20 and 'SLURM_RESTART_COUNT' not in os.environ: time.sleep(0.1)"
    slow = sabotage(folders.with_name("slow"), "if step and self.run.seed == 0:", still)
    assert len(arrays(submit(*LINE, slow))) == 3  # trunks, and the arms of each
    (late,), waiting = trunks_and_arms(folders, 0)
    (quick,), others = trunks_and_arms(folders, 1)
    wait_for([quick, *others], State.done, State.failed)
    assert [reason(cluster, run) for run in waiting] == ["Dependency"] * 2
    cluster.call("scontrol", "requeue", str(late.status().slurm_job_id))
    wait_for(runs(folders), State.done, State.failed)
    assert {run.status().state for run in runs(folders)} == {State.done}, logs(folders)
    assert (late.status().attempt, quick.status().attempt, waiting[0].status().attempt) == (2, 1, 1)

    here = folders.with_name("here")
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(here))
    assert train("-m", *LINE).returncode == 0
    assert {r.run_id: result(r) for r in runs(folders)} == {r.run_id: result(r) for r in runs(here)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trunk_that_fails_stops_its_own_arms_alone(cluster: Cluster, folders: Path) -> None:
    """SLURM removes their jobs, and that is said; once the cause is mended, the same line trains the trunk and them."""
    broken = folders.with_name("broken")
    broken.touch()
    fail = f"if step and self.run.seed == 0 and os.path.exists({str(broken)!r}): raise RuntimeError('a broken node')"
    line = (*LINE, sabotage(folders.with_name("failing"), fail))
    followed = train("-m", *ON_SLURM, *line, "launch.wait=true")
    (trunk,), arms = trunks_and_arms(folders, 0)
    assert followed.returncode == 1
    assert "2 runs, its trunk " + trunk.path.name in " ".join(followed.stdout.split())
    assert "died" not in followed.stdout
    states = [run.status().state for run in (trunk, *arms, *trunks_and_arms(folders, 1)[1])]
    assert states == [State.failed, *[State.queued] * 2, *[State.done] * 2], logs(folders)
    assert cluster.call("squeue", "-h", "--array") == ""
    broken.unlink()
    assert len(arrays(submit(*line))) == 2
    wait_for(runs(folders), State.done, State.failed)
    assert {run.status().state for run in runs(folders)} == {State.done}, logs(folders)
