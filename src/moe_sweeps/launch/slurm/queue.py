"""What SLURM says about jobs: one squeue for all of them, repeated when the controller is busy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moe_sweeps.errors import LaunchError
from moe_sweeps.host.machine_memory import OUT_OF_MEMORY

# Seconds between attempts: a controller that restarts or is overloaded answers again after a while.
BACK_OFF = (1.0, 4.0, 15.0)
ANSWER_SECONDS = 60.0
# The limit for commands that a person waits for: SLURM's own try for minutes to reach a controller that is down.
READING_SECONDS = 8.0
DEFAULT_MAX_ARRAY_SIZE = 1001
# Environment variables with a user's own defaults for these commands. SQUEUE_STATES=RUNNING would hide jobs, which
# would then be submitted twice; SCANCEL_INTERACTIVE would wait for an answer.
PERSONAL = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
# SLURM's commands are installed, and no cluster is configured here: there is nothing to wait for.
NO_CLUSTER = re.compile(r"establish a configuration source|DNS SRV lookup failed", re.IGNORECASE)
# There is a cluster, and its controller is down, overloaded or out of reach.
NO_ANSWER = re.compile(
    r"no answer within|unable to contact|unable to establish|connection refused|communication connection failure"
    r"|socket timed out|zero bytes were transmitted|no route to host|unknown host",
    re.IGNORECASE,
)
ELSEWHERE = (
    "Is this a login node of the cluster? launch=local trains on this machine, launch.dry_run=true prints the scripts."
)
# States of a job that has not begun, or restarts: it will read the run folders. CONFIGURING: its nodes boot.
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
COMPLETING = "COMPLETING"


@dataclass(frozen=True, slots=True)
class Job:
    """One array task that is waiting or running."""

    task: str  # 123_4
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str
    nodes: str


class JobEnd(StrEnum):
    """Why a job ends, as far as its batch shell can tell after its tasks have ended."""

    by_itself = "by itself"  # its tasks ended, or something other than SLURM killed them
    time_limit = "time limit"
    preempted = "preempted"  # for another job; it may have ended before SLURM requeued it
    requeued = "requeued"  # SLURM starts it again
    cancelled = "cancelled"
    unknown = "unknown"  # SLURM does not answer


def require_slurm() -> None:
    """Refuse to submit from a machine without SLURM; plans, scripts and tables work anywhere.

    Raises:
        LaunchError: this machine cannot submit, or no controller answers.
    """
    for command in ("sbatch", "squeue", "scontrol"):
        require(command)
    call("scontrol", "show", "config")


def own_jobs(
    patience: Sequence[float] = BACK_OFF, seconds: float = ANSWER_SECONDS, others: Sequence[int] = ()
) -> dict[str, Job]:
    """Every array task of this user, and of the users with the ids `others`, that has not ended, by its name 123_4;
    `seconds` for each attempt. Hidden partitions are asked about, too.

    Raises:
        LaunchError: squeue is missing, or fails after all attempts.
    """
    whose = f"--user={','.join(map(str, (os.geteuid(), *others)))}" if others else "--me"
    question = ("squeue", whose, "--all", "--array", "--noheader", "--format=%i|%j|%T|%r|%N")
    text = call(*question, patience=patience, seconds=seconds)
    jobs = [Job(*line.split("|")) for line in text.splitlines() if line.count("|") == 4]
    return {job.task: job for job in jobs}


def ended_jobs(tasks: Iterable[str], seconds: float = ANSWER_SECONDS) -> dict[str, str]:
    """How array tasks ended, for those that the cluster's accounting knows: 123_4 -> "TIMEOUT". Often there is none.

    Raises:
        LaunchError: there is no sacct, or no accounting behind it.
    """
    asked = f"--jobs={','.join(sorted(tasks))}"
    question = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", asked)
    text = call(*question, patience=(), seconds=seconds)
    ends = (line.split("|") for line in text.splitlines() if line.count("|") == 1)
    return {task: f"{OUT_OF_MEMORY}; raise launch.mem_gb" if end == "OUT_OF_MEMORY" else end for task, end in ends}


def why_it_ends(task: str, restarts: int) -> JobEnd:
    """Why the job `task` (123_4) ends, asked by its own batch shell; `restarts`: how often SLURM had requeued it.

    SLURM shows a job that it ends as COMPLETING, whatever the reason. A requeue shows in the number of restarts, a
    preemption in PreemptTime, a time limit in RunTime; what remains is scancel.
    """
    try:
        job = _record_of(task, call("scontrol", "show", "job", task, "--oneliner", patience=BACK_OFF[:1], seconds=20.0))
    except LaunchError:
        return JobEnd.unknown
    used, limit = seconds_of(job.get("RunTime", "")), seconds_of(job.get("TimeLimit", ""))
    if int(job.get("Restarts", restarts)) > restarts:
        return JobEnd.requeued
    if job.get("PreemptTime", "None") != "None":
        return JobEnd.preempted
    if used is not None and limit is not None and used >= limit:
        return JobEnd.time_limit
    if job.get("JobState") in (COMPLETING, "CANCELLED"):
        return JobEnd.cancelled
    return JobEnd.by_itself if job else JobEnd.unknown


def _record_of(task: str, text: str) -> dict[str, str]:
    """The record of `task` in scontrol's answer, which may hold the whole array."""
    array, _, index = task.partition("_")
    keys = {"ArrayJobId": array, "ArrayTaskId": index} if index else {"JobId": array}
    records = (_values(line) for line in text.splitlines())
    return next((record for record in records if keys.items() <= record.items()), {})


def longest_minutes(partition: str | None) -> int | None:
    """The time limit of a partition in minutes, the longest of several (a,b); None without a limit or such a partition.

    Without a name: that of the default partition.
    """
    wanted = set(partition.split(",")) if partition else None
    limits = []
    for line in call("scontrol", "show", "partition", "--all", "--oneliner").splitlines():
        values = _values(line)
        if values["PartitionName"] in wanted if wanted else values.get("Default") == "YES":
            limits.append(seconds_of(values.get("MaxTime", "UNLIMITED")))
    known = [seconds // 60 for seconds in limits if seconds is not None]
    return max(known) if known and len(known) == len(limits) else None


def _values(line: str) -> dict[str, str]:
    """The key=value pairs of one line of scontrol."""
    return dict(re.findall(r"(\w+)=(\S*)", line))


def seconds_of(text: str) -> int | None:
    """SLURM's 1-02:03:04, 02:03:04 or 03:04 in seconds; None for UNLIMITED and anything else that is no time."""
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


def call(*command: str, patience: Sequence[float] = BACK_OFF, seconds: float = ANSWER_SECONDS) -> str:
    """Output of one of SLURM's commands, tried again after each wait of `patience`; each attempt has `seconds`.

    Raises:
        LaunchError: it is missing, or fails after all attempts; the message quotes it. Where no cluster is configured
            there is one attempt.
    """
    require(command[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PERSONAL)}
    for wait in (*patience, None):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False, env=environment
            )
            if done.returncode == 0:
                return done.stdout
            problem = done.stderr.strip() or done.stdout.strip()
        except subprocess.TimeoutExpired:
            problem = f"no answer within {seconds:.0f} s"
        if wait is None or NO_CLUSTER.search(problem):
            break
        time.sleep(wait)
    raise LaunchError(_failure(" ".join(command[:2]), problem))


def _failure(command: str, problem: str) -> str:
    """What went wrong, in a sentence that says what to do where no controller was reached."""
    if not (NO_CLUSTER.search(problem) or NO_ANSWER.search(problem)):
        return f"{command} failed: {problem}"
    last = problem.splitlines()[-1].strip()
    reason = re.sub(r"^\w+: (error|fatal): ", "", last)
    return f"{command} reaches no SLURM controller ({reason}). {ELSEWHERE}"


def require(command: str) -> None:
    """Refuse to continue without one of SLURM's commands.

    Raises:
        LaunchError: `command` is not on the PATH.
    """
    if shutil.which(command) is None:
        fix = (
            "Submit from a login node of the cluster. "
            "On this machine, launch.dry_run=true prints the scripts, and launch=local trains."
        )
        raise LaunchError(f"{command} is not on the PATH of this machine. {fix}")
