"""A real SLURM of virtual nodes on this machine: slurmctld, one slurmd a node, munge. No systemd, no cgroups.

Needs root and Debian's slurmctld, slurmd, slurm-client and munge. Each node has its own hostname (a UTS namespace) and
finds the others by name, so that a rendezvous between nodes works as on a cluster. Nothing outside `root` is changed
but /run/munge.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged", "munge", "unshare")
UP_SECONDS = 120.0

CONF = """\
ClusterName=moe
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired: two minutes by default.
AuthInfo=cred_expire=6
SlurmctldPort={port}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=2
OverTimeLimit=0
MinJobAge=3600
MaxArraySize={max_array_size}
SlurmctldTimeout=10
SlurmdTimeout=5
SlurmctldDebug=info
SlurmdDebug=info
SlurmdParameters=config_overrides
NodeName={nodes} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} Boards=1 SocketsPerBoard=1 \
CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
PartitionName=batch Nodes={nodes} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=grace Nodes={nodes} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes={nodes} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes={nodes} MaxTime=1 State=UP PriorityTier=1 PreemptMode=REQUEUE
"""


def missing() -> str | None:
    """Why no cluster can be brought up here, or None."""
    absent = [p for p in PROGRAMS if shutil.which(p) is None and not Path("/usr/sbin", p).exists()]
    if absent:
        packages = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
        return f"{', '.join(absent)} not installed: {packages}"
    if os.geteuid() != 0:
        return "the virtual nodes need root for their namespaces"
    return None


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `environment` makes SLURM's commands talk to it."""

    root: Path
    num_nodes: int

    @property
    def conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    @property
    def nodes(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.num_nodes + 1)]

    def call(self, *command: str, check: bool = True) -> str:
        """Output of one SLURM command."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def lose_node(self, node: str) -> None:
        """End a node as a power cut does: its daemon and all that it started, at once.

        The controller finds out by itself only after its pings have failed for a minute or more; here it is told.
        """
        pid = int((self.root / "run" / f"slurmd.{node}.pid").read_text())
        # All stand still first: a step daemon that saw its job's shell die would tell the controller that it ended.
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for victim in {pid, *_descendants(pid), *self._processes_of(node)}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, how)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    def _processes_of(self, node: str) -> list[int]:
        """What lives in a node's UTS namespace: step daemons, which are no children of its slurmd, and their tasks."""
        return [pid for pid in _processes() if _hostname_of(pid) == node and self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        """Another cluster on this machine has nodes of the same names."""
        with contextlib.suppress(OSError):
            return f"SLURM_CONF={self.conf}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        return False

    def start_node(self, node: str) -> None:
        """(Re)start a node's daemon with a hostname of its own."""
        script = 'hostname "$1" && mount --bind "$2/etc/hosts" /etc/hosts && exec slurmd -f "$2/etc/slurm.conf" -N "$1"'
        alone = ["unshare", "--uts", "--mount", "--propagation", "private"]
        command = [*alone, "sh", "-c", script, "_", node, str(self.root)]
        (self.root / "spool" / node).mkdir(parents=True, exist_ok=True)
        subprocess.run(command, env=os.environ | self.environment, check=True, timeout=30)

    def wait_idle(self, seconds: float = UP_SECONDS) -> None:
        """Wait until every node is idle."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.call("sinfo", "-h", "-N", "-p", "batch", "-o", "%t", check=False).split()
            if states.count("idle") == self.num_nodes:
                return
            time.sleep(0.1)
        log = (self.root / "log" / "slurmctld.log").read_text()[-2000:]
        raise TimeoutError(f"the cluster did not come up in {seconds:.0f} s: {states}\n{log}")

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        self.call("scancel", "--user=root", check=False)
        pids = [int(p.read_text()) for p in sorted((self.root / "run").glob("*.pid")) if p.read_text().strip()]
        for pid in [*pids, *(p for node in self.nodes for p in self._processes_of(node))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while any(_alive(p) for p in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start_cluster(root: Path, *, num_nodes: int = 4, cpus: int = 8, max_array_size: int = 1001) -> Cluster:
    """Bring up a cluster under `root`; takes about two seconds."""
    for name in ("etc", "state", "log", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    _start_munge()
    port = _free_ports(num_nodes + 1)
    cluster = Cluster(root, num_nodes)
    settings = {"host": socket.gethostname().split(".")[0], "port": port, "first": port + 1, "last": port + num_nodes}
    nodes = f"n[1-{num_nodes}]" if num_nodes > 1 else "n1"
    cluster.conf.write_text(CONF.format(root=root, nodes=nodes, cpus=cpus, max_array_size=max_array_size, **settings))
    hosts = Path("/etc/hosts").read_text() + f"127.0.0.1 {' '.join(cluster.nodes)}\n"
    (root / "etc" / "hosts").write_text(hosts)
    subprocess.run(["slurmctld", "-f", cluster.conf, "-i"], check=True, timeout=30)
    for node in cluster.nodes:
        cluster.start_node(node)
    cluster.wait_idle()
    return cluster


def _start_munge() -> None:
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    Path("/run/munge").chmod(0o755)
    as_munge = ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups"]
    subprocess.run([*as_munge, "/usr/sbin/munged"], check=True, timeout=30)


def _free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below those that the kernel hands out to others."""
    for first in random.sample(range(10_000, 20_000 - count), 50):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError(f"no {count} free ports in a row")


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for process in _processes():
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(process)
    found, queue = [], [pid]
    while queue:
        queue += (below := children.get(queue.pop(), []))
        found += below
    return found


def _hostname_of(pid: int) -> str | None:
    """The hostname that a process sees, if it is another than ours."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/ns/uts").readlink() == Path("/proc/self/ns/uts").readlink():
            return None
        seen = subprocess.run(
            ["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname"], capture_output=True, text=True, check=False
        )
        return seen.stdout.strip() or None
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
