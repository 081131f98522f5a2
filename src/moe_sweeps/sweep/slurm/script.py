"""The sbatch script of an array of jobs, and its submission, by submitit.

submitit writes the script and reads the job's number. What it does inside a job (a pickled function, a pickled result,
its own signal handler and requeue) is not used: the job is a plain command over run folders.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import SlurmExecutor

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import LaunchError
from moe_sweeps.paths import HOME_VARIABLE, home
from moe_sweeps.sweep.slurm.resources import Resources

SBATCH_SECONDS = 120
NODES_NOT_AVAILABLE = "Requested node configuration is not available"


class ArrayScript:
    """One sbatch script: `num_jobs` jobs with equal resources, each running `command` with its place in the array."""

    def __init__(self, record: Path, needs: Resources, launch: SlurmConfig, num_jobs: int, code: Path) -> None:
        self.record = record
        self._executor = SlurmExecutor(folder=record.parent, python=shlex.quote(sys.executable))
        self._executor.update_parameters(
            job_name=record.stem,
            **_asked_for(needs),
            **_where(launch),
            array_parallelism=launch.max_parallel or num_jobs,
            # SLURM looks at time limits every half minute and warns that much too early; a job must not begin with it.
            signal_delay_s=min(launch.signal_seconds, 30 * needs.minutes),
            setup=[*launch.setup, *_setup(code)],
            srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={needs.cpus_per_task}", *launch.srun],
            teardown=_teardown(record),
            additional_parameters={"requeue": True} | _extra(launch),
            wckey=None,
        )
        self._executor.parameters["map_count"] = num_jobs
        self._command = f"{shlex.quote(sys.executable)} -u -m moe_sweeps.sweep.slurm.job run {shlex.quote(str(record))}"

    def text(self) -> str:
        """The script itself."""
        return self._executor._make_submission_file_text(self._command, self.record.stem) + "\n"

    def test(self) -> None:
        """Let SLURM judge the script without submitting it.

        Nodes that are drained or down at this moment count as missing in such a test, and not in a submission, where
        the job waits for them; so that answer is left to the submission.

        Raises:
            LaunchError: with sbatch's own words.
        """
        try:
            self._sbatch("--test-only")
        except LaunchError as error:
            if NODES_NOT_AVAILABLE not in str(error):
                raise

    def submit(self) -> str:
        """Submit it and return the number of the array's job.

        Raises:
            LaunchError: with sbatch's own words.
        """
        try:
            return self._executor._get_job_id_from_submission_command(self._sbatch())
        except FailedJobError as error:
            raise LaunchError(f"sbatch answered what is not understood: {error}") from error

    def _sbatch(self, *arguments: str) -> str:
        path = self.record.with_suffix(".sh")
        path.write_text(self.text())
        try:
            done = subprocess.run(
                ["sbatch", *arguments, str(path)], capture_output=True, text=True, timeout=SBATCH_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"sbatch did not answer: {error}") from error
        if done.returncode:
            raise LaunchError(f"sbatch refused {path.name}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


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
    """`launch.sbatch` as submitit wants it: "key=value", or "key" alone for a flag."""
    pairs = (line.removeprefix("--").partition("=") for line in launch.sbatch)
    return {key: value if sign else True for key, sign, value in pairs}


def _setup(code: Path) -> list[str]:
    return [
        # A batch shell dies of the SIGTERM that announces a preemption, and what follows srun would never run. With a
        # handler it waits for srun; an ignored signal would be inherited by the processes that must hear it.
        "trap : TERM USR1 USR2",
        f"export PYTHONPATH={shlex.quote(str(code / 'src'))}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"export {HOME_VARIABLE}={shlex.quote(str(home()))}",
    ]


def _teardown(record: Path) -> list[str]:
    """After srun has ended, the batch shell decides what becomes of the job: a step cannot requeue itself safely."""
    judge = f"{shlex.quote(sys.executable)} -m moe_sweeps.sweep.slurm.job judge {shlex.quote(str(record))}"
    return ["code=$?", f"{judge} $code", "exit $?", ""]
