"""What SLURM says about jobs, in one squeue for everything, and with patience when the controller is busy."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass

from moe_sweeps.errors import LaunchError

# Waits between attempts, in seconds: a controller that is restarted or overloaded answers again after a while.
BACK_OFF = (1.0, 4.0, 15.0)
SQUEUE_SECONDS = 60
DEFAULT_MAX_ARRAY_SIZE = 1001


@dataclass(frozen=True, slots=True)
class Job:
    """One array task that is waiting or running."""

    task: str  # 123_4
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str
    nodes: str


def own_jobs() -> dict[str, Job]:
    """Every array task of this user that has not ended, by its name 123_4.

    Raises:
        LaunchError: squeue is missing, or fails after all attempts.
    """
    text = call("squeue", "--me", "--array", "--noheader", "--format=%i|%j|%T|%r|%N")
    jobs = [Job(*line.split("|")) for line in text.splitlines() if line.count("|") == 4]
    return {job.task: job for job in jobs}


def max_array_size() -> int:
    """How many tasks an array may have on this cluster."""
    for line in call("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return int(value)
    return DEFAULT_MAX_ARRAY_SIZE


def call(*command: str) -> str:
    """Output of one of SLURM's commands.

    Raises:
        LaunchError: it is missing, or fails after all attempts; with its own words.
    """
    if shutil.which(command[0]) is None:
        raise LaunchError(f"{command[0]} is not on the PATH of this machine. Submit from a login node of the cluster.")
    for wait in (*BACK_OFF, None):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_SECONDS, check=False)
            if done.returncode == 0:
                return done.stdout
            problem = done.stderr.strip() or done.stdout.strip()
        except subprocess.TimeoutExpired:
            problem = f"no answer within {SQUEUE_SECONDS} s"
        if wait is not None:
            time.sleep(wait)
    raise LaunchError(f"{' '.join(command[:2])} failed: {problem}")
