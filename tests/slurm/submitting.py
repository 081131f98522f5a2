"""What the tests on a real SLURM share."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from helpers import TINY, records, without_times
from processes import train, wait_until
from slurm.cluster import Cluster

from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.training.checkpoint import Checkpoints

ON_SLURM = ("launch=slurm_cpu", "launch.threads=1", "launch.mem_gb=1", "launch.minutes=10")
LINE = (*TINY, "balancer=lossfree")
# Long enough to be disturbed, with checkpoints in between.
LONG = (*LINE, "trainer.steps=300", "trainer.eval_every=300", "trainer.checkpoint_every=20")


def submit(*overrides: str) -> str:
    """`python train.py -m ...` on the cluster; returns what it printed. `overrides` win."""
    done = train("-m", *ON_SLURM, *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sabotage(folder: Path, *lines: str) -> str:
    """A setting that puts `lines` before `Trainer.{train,_train_step}` in jobs: their Python finds a sitecustomize.

    A line sees `self`, the trainer, and `step`: whether it stands in a step.
    """
    folder.mkdir()
    body = "\n".join(f"            {line}" for line in lines)
    (folder / "sitecustomize.py").write_text(f"""\
import os, sys, time
if "run" in sys.orig_argv and "SLURM_PROCID" in os.environ:
    from moe_sweeps.training.trainer import Trainer
    def before(function, step):
        def changed(self, *arguments):
{body}
            return function(self, *arguments)
        return changed
    Trainer.train, Trainer._train_step = before(Trainer.train, False), before(Trainer._train_step, True)
""")
    return f"launch.setup=['export PYTHONPATH={folder}']"


def arrays(output: str) -> list[str]:
    return re.findall(r"submitted job array (\d+)", output)


def runs(root: Path) -> list[RunDir]:
    return RunDir.all(root)


def run_of_seed(root: Path, seed: int) -> RunDir:
    return next(r for r in runs(root) if r.config()["seed"] == seed)


def result(folder: RunDir) -> tuple[Any, Any, dict[str, list[Any]]]:
    """Everything that a run ends with, without times: bit for bit equal where nothing was lost or done twice."""
    found = Checkpoints(folder.checkpoints, 2).load_latest(torch.device("cpu"))
    assert found is not None
    state = found[1]["model"] | found[1]["balancer"]
    tensors = {name: value.tolist() for name, value in state.items()}
    return without_times(folder.summary()), records(folder), tensors


def wait_for(folders: list[RunDir], *states: State, seconds: float = 480) -> None:
    """Wait until each run is in one of `states`; where that does not happen, say what the runs and SLURM say."""
    try:
        wait_until(lambda: all(f.status().state in states for f in folders), seconds)
    except AssertionError as error:
        asked = (["scontrol", "show", "job"], ["sinfo", "-N", "-l"])
        answers = [subprocess.run(q, capture_output=True, text=True, timeout=60, check=False).stdout for q in asked]
        said = [f"{f.run_id}: {f.status()}" for f in folders]
        error.add_note("\n".join([*said, *answers, logs(folders[0].path.parent)]))
        raise


def wait_for_step(folder: RunDir, step: int) -> Status:
    wait_until(lambda: folder.status().step >= step and folder.status().state is State.running, 240)
    return folder.status()


def job_state(cluster: Cluster, task: str) -> str:
    """JobState as `scontrol show job` says it."""
    text = cluster.call("scontrol", "show", "job", task)
    return str(re.findall(r"JobState=(\w+)", text)[0])


def settled_state(cluster: Cluster, task: str, seconds: float = 120) -> str:
    """The state of a job once it is over."""
    deadline = time.monotonic() + seconds
    while (state := job_state(cluster, task)) in ("RUNNING", "COMPLETING", "PENDING"):
        assert time.monotonic() < deadline, f"{task} is still {state}"
        time.sleep(0.2)
    return state


def logs(root: Path) -> str:
    """All that SLURM's own logs say, for messages of failed tests."""
    return "\n".join(f"== {p}\n{p.read_text()[-1500:]}" for p in root.glob("sweeps/*/slurm/*.out"))
