"""The sbatch script of an array of jobs, and its submission, by submitit.

submitit writes the script and reads the job's number. What it does inside a job (a pickled function, a pickled result,
its own signal handler and requeue) is not used: the job is a plain command over run folders.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import LaunchError
from moe_sweeps.launch.slurm.resources import Resources
from moe_sweeps.paths import HOME_VARIABLE, home, sources_of

SBATCH_SECONDS = 120
# Variables that a job would inherit from a submission inside another job and take for its own: SLURM sets the number of
# restarts only after the first one, and srun refuses two kinds of memory limits.
OF_ANOTHER_JOB = ("SLURM_RESTART_COUNT", "SLURM_ARRAY_", "SLURM_MEM_PER_")
# A person's own defaults for sbatch, SBATCH_X, win over the script. The option that each stands for, where that is not
# --x. NO_REQUEUE and the other ways to ask for memory and GPUs contradict what the script asks for.
OPTION_OF = {
    "TIMELIMIT": "time",
    "ARRAY_INX": "array",
    "MEM_PER_NODE": "mem",
    "MEM_PER_CPU": "mem",
    "MEM_PER_GPU": "mem",
    "NO_REQUEUE": "requeue",
    "GPUS": "gpus-per-node",
    "GPUS_PER_TASK": "gpus-per-node",
}
WAITS = "SBATCH_WAIT"  # sbatch would end with the job, and its answer would come hours late
NODES_NOT_AVAILABLE = "Requested node configuration is not available"
# What sbatch says, with exit code 1, where the controller may have taken the job and its answer was lost.
ANSWER_LOST = re.compile(
    r"timed out|Zero Bytes were transmitted or received|Transport endpoint is not connected",
    re.IGNORECASE,
)


class NoAnswer(LaunchError):
    """Nobody knows whether SLURM took a job: sbatch ended without an answer."""


class _Writer(SlurmExecutor):
    """submitit's executor, for machines without SLURM, too: submitit itself requires srun."""

    @classmethod
    def affinity(cls) -> int:
        return 1


class ArrayScript:
    """One sbatch script: `num_jobs` jobs with equal resources, each running `command` with its place in the array.

    `after`: what they wait for, as --dependency takes it. Where that can never be, SLURM removes them.
    """

    def __init__(
        self, record: Path, needs: Resources, launch: SlurmConfig, num_jobs: int, code: Path, after: str | None = None
    ) -> None:
        self.record = record
        self._executor = _Writer(folder=record.parent, python=shlex.quote(sys.executable))
        self._executor.update_parameters(
            job_name=record.stem,
            **_asked_for(needs),
            **_where(launch),
            array_parallelism=launch.max_parallel or num_jobs,
            # SLURM checks time limits every half minute, so its signal may come that much early; never at the start.
            signal_delay_s=min(launch.signal_seconds, 30 * needs.minutes),
            setup=[*launch.setup, *_setup(code)],
            srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={needs.cpus_per_task}", *launch.srun],
            teardown=_teardown(record),
            additional_parameters={"requeue": True} | _waiting_for(after, _extra(launch)),
            wckey=None,
        )
        self._executor.parameters["map_count"] = num_jobs
        self._command = (
            f"{shlex.quote(sys.executable)} -u -m moe_sweeps.launch.slurm.job run {shlex.quote(str(record))}"
        )

    @property
    def path(self) -> Path:
        """Where the script is written for a submission, beside its record."""
        return self.record.with_suffix(".sh")

    def text(self) -> str:
        """The script itself."""
        return self._executor._make_submission_file_text(self._command, self.record.stem) + "\n"

    def test(self) -> None:
        """Let SLURM check the script without submitting it.

        Such a test refuses nodes that are drained or down now, while a submitted job would wait for them; so that
        refusal is ignored.

        Raises:
            LaunchError: sbatch refused; the message quotes it.
        """
        try:
            self._sbatch("--test-only")
        except LaunchError as error:
            if NODES_NOT_AVAILABLE not in str(error):
                raise

    def submit(self) -> str:
        """Submit the script and return the number of the array's job.

        Raises:
            NoAnswer: nobody knows whether SLURM has the job now.
            LaunchError: sbatch refused; the message quotes it.
        """
        try:
            return self._executor._get_job_id_from_submission_command(self._sbatch())
        except (FailedJobError, FailedSubmissionError) as error:
            raise NoAnswer(f"sbatch gave an answer without a job number: {error}") from error

    def _sbatch(self, *arguments: str) -> str:
        text = self.text()
        self.path.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                ["sbatch", *arguments, str(self.path)],
                capture_output=True,
                text=True,
                timeout=SBATCH_SECONDS,
                check=False,
                env={name: value for name, value in os.environ.items() if not _is_overriding(name, text)},
            )
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"sbatch did not answer: {error}") from error
        except OSError as error:
            raise LaunchError(f"sbatch did not start: {error}") from error
        said = done.stderr.strip() or done.stdout.strip()
        if done.returncode and ANSWER_LOST.search(said):
            raise NoAnswer(f"sbatch lost the controller's answer: {said}")
        if done.returncode:
            raise LaunchError(f"sbatch refused {self.path.name}: {said}")
        return done.stdout


def _is_overriding(name: str, script: str) -> bool:
    """Whether an environment variable would change what `script` asks for."""
    if not name.startswith("SBATCH_"):
        return name.startswith(OF_ANOTHER_JOB)
    suffix = name.removeprefix("SBATCH_")
    option = OPTION_OF.get(suffix, suffix.lower().replace("_", "-"))
    return name == WAITS or re.search(rf"^#SBATCH --{re.escape(option)}(=|$)", script, re.MULTILINE) is not None


def _asked_for(needs: Resources) -> dict[str, object]:
    asked: dict[str, object] = {
        "nodes": needs.nodes,
        "ntasks_per_node": needs.tasks_per_node,
        "cpus_per_task": needs.cpus_per_task,
        "mem": f"{needs.mem_gb}GB",
        "time": needs.minutes,
    }
    return asked | ({"gpus_per_node": needs.gpus_per_node} if needs.gpus_per_node else {})


def _where(launch: SlurmConfig) -> dict[str, str]:
    names = ("partition", "account", "qos", "constraint", "exclude")
    return {name: value for name in names if (value := getattr(launch, name)) is not None}


def _extra(launch: SlurmConfig) -> dict[str, object]:
    """`launch.sbatch` as submitit takes it: "key=value", or "key" alone for a flag."""
    pairs = (line.removeprefix("--").partition("=") for line in launch.sbatch)
    return {key: value if sign else True for key, sign, value in pairs}


def _waiting_for(after: str | None, extra: dict[str, object]) -> dict[str, object]:
    """The options of `extra`, and what makes the jobs wait for `after` besides what they wait for by `extra`."""
    if after is None:
        return extra
    both = ",".join(str(one) for one in (extra.get("dependency"), after) if one)
    return extra | {"dependency": both, "kill_on_invalid_dep": "yes"}


def _setup(code: Path) -> list[str]:
    return [
        # SIGTERM, which announces a preemption, would end the batch shell before what follows srun. With a handler it
        # waits for srun. An ignored signal would be inherited by the workers, which must receive it.
        "trap : TERM USR1 USR2",
        f"export PYTHONPATH={shlex.quote(str(sources_of(code)))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export {HOME_VARIABLE}={shlex.quote(str(home()))}",
    ]


def _teardown(record: Path) -> list[str]:
    """After srun, the batch shell decides whether the job is requeued: a job step cannot requeue its job safely."""
    judge = f"{shlex.quote(sys.executable)} -m moe_sweeps.launch.slurm.job judge {shlex.quote(str(record))}"
    return ["code=$?", f"{judge} $code", "exit $?", ""]
