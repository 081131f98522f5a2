"""200 smoke runs on a SLURM: seconds to submit them, and how often the scheduler is called while they are followed.

    python benchmarks/slurm_calls.py [--runs 200] [--minutes 5] [--hydra PYTHON]

PYTHON is an interpreter with hydra-submitit-launcher, which is measured beside this project. A SLURM of four virtual
nodes is brought up for it (tests/slurm/cluster.py); they start nothing, so that all jobs wait and no run is trained.
Commands of SLURM are counted by wrappers on the PATH. The other launcher asks sacct, which answers only where there is
accounting: here a stand-in answers from squeue, so that its calls can be counted, too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.data.prepare import prepared
from moe_sweeps.paths import REPOSITORY, resolve

sys.path.insert(0, str(REPOSITORY / "tests"))
from slurm.cluster import Cluster, missing, start_cluster

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct")
TICKS = os.sysconf("SC_CLK_TCK")
SACCT = """\
echo 'JobID|State|NodeList'
{squeue} --me --array --noheader --format='%i|%T|%N'
"""
# The smallest possible job: one field of config, no imports.
HYDRA_JOB = """\
import hydra

@hydra.main(config_path=None, config_name=None, version_base="1.3")
def job(config):
    return 0.0

job()
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one launcher took: wall seconds, CPU seconds, and calls of SLURM's commands."""

    seconds: float
    cpu_seconds: float
    submitting: Counter[str]
    following: Counter[str]

    def row(self, name: str) -> str:
        """The row of the Markdown table."""
        calls = ", ".join(f"{n} {command}" for command, n in sorted(self.submitting.items()))
        polls = ", ".join(f"{n} {command}" for command, n in sorted(self.following.items())) or "none"
        return f"| {name} | {self.seconds:.1f} | {self.cpu_seconds:.1f} | {calls} | {polls} |"


class CountedPath:
    """A PATH whose SLURM commands are counted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._log = folder, folder / "calls.log"
        folder.mkdir()
        self._log.touch()
        for name in COMMANDS:
            real = (
                SACCT.format(squeue=shutil.which("squeue")) if name == "sacct" else f'exec {shutil.which(name)} "$@"\n'
            )
            (folder / name).write_text(f"#!/bin/sh\necho {name} >> {self._log}\n{real}")
            (folder / name).chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        """This environment with the counting commands first on its PATH, and `more` variables."""
        return os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"} | more

    def counts(self) -> Counter[str]:
        """Calls so far, by command."""
        return Counter(self._log.read_text().split())


class Ours:
    """`python train.py -m ... launch=slurm_cpu`, then `moe-sweeps watch`."""

    def __init__(self, folder: Path, runs: int) -> None:
        self.path = CountedPath(folder / "ours-bin")
        self._environment = self.path.environment(MOE_SWEEPS_RUNS=str(folder / "runs"))
        line = ["-m", "scale=smoke", f"seed=range({runs})", "launch=slurm_cpu"]
        started, before = time.perf_counter(), os.times()
        train = [sys.executable, str(REPOSITORY / "train.py"), *line]
        subprocess.run(train, env=self._environment, check=True, stdout=subprocess.DEVNULL)
        self.seconds, after = time.perf_counter() - started, os.times()
        self.cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
        self.submitting = self.path.counts()

    def follow(self) -> subprocess.Popen[bytes]:
        """Start `moe-sweeps watch`."""
        call = "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())"
        watch = [sys.executable, "-c", call, "watch"]
        return subprocess.Popen(watch, env=self._environment, stdout=subprocess.DEVNULL)


class Hydra:
    """An application of stock Hydra with `hydra/launcher=submitit_slurm`; the process that submits also follows."""

    def __init__(self, folder: Path, runs: int, python: str, cluster: Cluster) -> None:
        self.path = CountedPath(folder / "hydra-bin")
        job = folder / "hydra_job.py"
        job.write_text(HYDRA_JOB)
        seeds = ",".join(map(str, range(runs)))
        line = ["-m", "hydra/launcher=submitit_slurm", f"+seed={seeds}", f"hydra.sweep.dir={folder}/multirun"]
        started = time.perf_counter()
        command = [python, str(job), *line, "hydra.launcher.mem_gb=1"]
        environment = self.path.environment(PYTHONPATH="")
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
        queue = ("squeue", "--array", "--noheader", "--states=all", "--name=hydra_job")
        while len(cluster.call(*queue).splitlines()) < runs:
            if self._process.poll() is not None:
                raise RuntimeError("hydra-submitit-launcher ended before it had submitted")
            time.sleep(0.2)
        self.seconds, self.cpu_seconds = time.perf_counter() - started, cpu_seconds_of(self._process.pid)
        self.submitting = Counter({"sbatch": self.path.counts()["sbatch"]})

    def follow(self) -> subprocess.Popen[bytes]:
        """The submitting process, which polls by itself."""
        return self._process


def main() -> None:
    """Measure and print one row a launcher."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--hydra", metavar="PYTHON", help="an interpreter with hydra-submitit-launcher")
    asked = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    prepared(CorpusConfig(), resolve(os.environ.get("MOE_SWEEPS_DATA") or "data"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = start_cluster(folder / "slurm")
        os.environ |= cluster.environment
        try:
            for node in cluster.nodes:
                cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=benchmark")
            launchers: dict[str, Ours | Hydra] = {"moe_sweeps": Ours(folder, asked.runs)}
            if asked.hydra:
                launchers[versions(asked.hydra)] = Hydra(folder, asked.runs, asked.hydra, cluster)
            report(launchers, asked.runs, asked.minutes)
        finally:
            cluster.stop()


def report(launchers: dict[str, Ours | Hydra], runs: int, minutes: float) -> None:
    """Follow all of them at the same time, and print the table."""
    before = {name: launcher.path.counts() for name, launcher in launchers.items()}
    followers = [launcher.follow() for launcher in launchers.values()]
    time.sleep(60 * minutes)
    ended = [process.args for process in followers if process.poll() is not None]
    polls = {name: launcher.path.counts() - before[name] for name, launcher in launchers.items()}
    for process in followers:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
    if ended:
        raise RuntimeError(f"ended before the time was over: {ended}")
    print(f"| {runs} runs | seconds | CPU seconds | calls to submit | calls in {minutes:g} minutes |")
    print("|---|---|---|---|---|")
    for name, found in launchers.items():
        print(Measured(found.seconds, found.cpu_seconds, found.submitting, polls[name]).row(name))


def cpu_seconds_of(pid: int) -> float:
    """CPU seconds of a process so far, with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def versions(python: str) -> str:
    """What is compared with."""
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(?m)^(hydra\S*|submitit)\s+(\S+)", listed))
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    main()
