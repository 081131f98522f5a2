"""What the tests on a real SLURM share."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import TINY, records, without_times
from processes import train, wait_until
from slurm.cluster import Cluster

from moe_sweeps.rundir import RunDir, State, Status

ON_SLURM = ("launch=slurm_cpu", "launch.threads=1", "launch.mem_gb=1", "launch.minutes=10")
LINE = (*TINY, "balancer=lossfree")
# Long enough to be disturbed, with checkpoints in between.
LONG = (*LINE, "trainer.steps=300", "trainer.eval_every=300", "trainer.checkpoint_every=20")


def submit(*overrides: str, multi: bool = True) -> str:
    """`python train.py [-m] ...` on the cluster; returns what it printed."""
    done = train(*(["-m"] if multi else []), *overrides, *ON_SLURM)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def arrays(output: str) -> list[str]:
    return re.findall(r"submitted job array (\d+)", output)


def runs(root: Path) -> list[RunDir]:
    return RunDir.all(root)


def run_of_seed(root: Path, seed: int) -> RunDir:
    return next(r for r in runs(root) if r.config()["seed"] == seed)


def result(folder: RunDir) -> tuple[Any, Any, str]:
    """Everything that a run ends with, without times: bit for bit equal where nothing was lost or done twice."""
    weights = sorted(folder.checkpoints.glob("step-*.json"))[-1]
    digest = json.loads(weights.read_text()).get("sha256", "")
    summary = without_times(folder.summary())
    return summary, records(folder), str(digest)


def wait_for(folders: list[RunDir], *states: State, seconds: float = 120) -> None:
    wait_until(lambda: all(f.status().state in states for f in folders), seconds)


def wait_for_step(folder: RunDir, step: int) -> Status:
    wait_until(lambda: folder.status().step >= step and folder.status().state is State.running, 120)
    return folder.status()


def job_state(cluster: Cluster, task: str) -> str:
    """JobState as `scontrol show job` says it."""
    text = cluster.call("scontrol", "show", "job", task)
    return re.findall(r"JobState=(\w+)", text)[0]


def settled_state(cluster: Cluster, task: str, seconds: float = 30) -> str:
    """The state of a job once it is over."""
    deadline = time.monotonic() + seconds
    while (state := job_state(cluster, task)) in ("RUNNING", "COMPLETING", "PENDING"):
        assert time.monotonic() < deadline, f"{task} is still {state}"
        time.sleep(0.2)
    return state


def logs(root: Path) -> str:
    """All that SLURM's own logs say, for messages of failed tests."""
    return "\n".join(f"== {p}\n{p.read_text()[-1500:]}" for p in root.glob("sweeps/*/slurm/*.out"))


Disturb = Callable[[str, str], object]  # the task's job, its node
