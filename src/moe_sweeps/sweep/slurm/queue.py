"""What SLURM says about jobs, in one squeue for everything, and with patience when the controller is busy."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moe_sweeps.errors import LaunchError

# Waits between attempts, in seconds: a controller that is restarted or overloaded answers again after a while.
BACK_OFF = (1.0, 4.0, 15.0)
SQUEUE_SECONDS = 60
DEFAULT_MAX_ARRAY_SIZE = 1001
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclass(frozen=True, slots=True)
class Job:
    """One array task that is waiting or running."""

    task: str  # 123_4
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str
    nodes: str


def own_jobs(patience: Sequence[float] = BACK_OFF) -> dict[str, Job]:
    """Every array task of this user that has not ended, by its name 123_4.

    Raises:
        LaunchError: squeue is missing, or fails after all attempts.
    """
    text = call("squeue", "--me", "--array", "--noheader", "--format=%i|%j|%T|%r|%N", patience=patience)
    jobs = [Job(*line.split("|")) for line in text.splitlines() if line.count("|") == 4]
    return {job.task: job for job in jobs}


def ended_jobs(tasks: Iterable[str]) -> dict[str, str]:
    """How array tasks ended, for those that the cluster's accounting knows: 123_4 -> "TIMEOUT". Often there is none.

    Raises:
        LaunchError: there is no sacct, or no accounting behind it.
    """
    asked = f"--jobs={','.join(sorted(tasks))}"
    text = call("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", asked, patience=())
    return dict(line.split("|") for line in text.splitlines() if line.count("|") == 1)


def is_cancelled(job_id: str, restarts: int) -> bool:
    """Whether somebody cancelled a job that its own batch shell asks about, in its start after `restarts` others.

    SLURM calls a job that it ends COMPLETING, whatever the reason. A time limit is told by the time, a preemption by
    its time, and what SLURM has sent back to the queue by the number of restarts; scancel is what is left.
    """
    try:
        job = _values(call("scontrol", "show", "job", job_id, "--oneliner", patience=()))
    except LaunchError:
        return False
    used, limit = seconds_of(job.get("RunTime", "")), seconds_of(job.get("TimeLimit", ""))
    over_time = used is not None and limit is not None and used >= limit
    preempted = job.get("PreemptTime", "None") != "None"
    requeued = int(job.get("Restarts", restarts)) > restarts
    return job.get("JobState") == "COMPLETING" and not (over_time or preempted or requeued)


def longest_minutes(partition: str | None) -> int | None:
    """The time limit of a partition, of several the longest; None where there is none, or no such partition.

    Without a name: of the default partition.
    """
    wanted = set(partition.split(",")) if partition else None
    limits = []
    for line in call("scontrol", "show", "partition", "--oneliner").splitlines():
        values = _values(line)
        if values["PartitionName"] in wanted if wanted else values.get("Default") == "YES":
            limits.append(seconds_of(values.get("MaxTime", "UNLIMITED")))
    known = [seconds // 60 for seconds in limits if seconds is not None]
    return max(known) if known and len(known) == len(limits) else None


def _values(line: str) -> dict[str, str]:
    """The key=value pairs of one line of scontrol."""
    return dict(re.findall(r"(\w+)=(\S*)", line))


def seconds_of(text: str) -> int | None:
    """SLURM's 1-02:03:04, 02:03:04 or 03:04 in seconds; None for UNLIMITED and what else is no time."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def max_array_size() -> int:
    """How many tasks an array may have on this cluster."""
    for line in call("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return int(value)
    return DEFAULT_MAX_ARRAY_SIZE


def call(*command: str, patience: Sequence[float] = BACK_OFF) -> str:
    """Output of one of SLURM's commands, tried again after each wait of `patience`.

    Raises:
        LaunchError: it is missing, or fails after all attempts; with its own words.
    """
    if shutil.which(command[0]) is None:
        raise LaunchError(f"{command[0]} is not on the PATH of this machine. Submit from a login node of the cluster.")
    for wait in (*patience, None):
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
