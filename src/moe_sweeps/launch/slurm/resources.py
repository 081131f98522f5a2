"""What a run asks of the cluster: nodes, tasks, cores, GPUs, memory and time, from its config and its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.errors import ConfigError
from moe_sweeps.host.devices import Device
from moe_sweeps.training.memory import Memory, run_memory
from moe_sweeps.training.too_large import require_bytes

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig

# A job asks for this many times its estimated time, and some minutes to start, load data and evaluate.
TIME_MARGIN = 1.5
START_MINUTES = 10
# For one process without its model: Python, torch, the memory-mapped data.
BASE_GB = 4.0
# Asked for on top of the estimate, since SLURM kills a job that exceeds its memory.
MEMORY_MARGIN = 1.25
GIB = 2**30  # SLURM's gigabyte


@dataclass(frozen=True, slots=True, order=True)
class Resources:
    """What one job of an array asks for. Runs with equal resources share an array."""

    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    mem_gb: int
    minutes: int

    @property
    def ranks(self) -> int:
        """Tasks of the job, each a rank of the run."""
        return self.nodes * self.tasks_per_node


def resources(run: RunConfig, seconds: float) -> Resources:
    """The resources of `run`, which takes about `seconds` on one rank; settings of `launch` take precedence.

    Raises:
        ConfigError: launch.pack with several ranks, or a batch that the ranks cannot divide evenly.
    """
    launch = run.launch
    assert isinstance(launch, SlurmConfig)
    ranks = launch.nodes * launch.tasks_per_node
    if launch.pack > 1 and ranks > 1:
        rule = f"{ranks} ranks train one run, so a job cannot hold several runs"
        raise ConfigError("launch.pack", launch.pack, rule, "Use launch.pack=1, or one node with one task.")
    Ranks(0, ranks).require_even_split(run.trainer.batch_size, run.trainer.micro_batch_size)
    _require_memory(run, launch)
    processes = launch.tasks_per_node * launch.pack
    cpus = launch.cpus_per_task or (run.launch.threads or 1) * launch.pack
    return Resources(
        nodes=launch.nodes,
        tasks_per_node=launch.tasks_per_node,
        cpus_per_task=cpus,
        gpus_per_node=gpus_of(run, launch),
        mem_gb=launch.mem_gb or math.ceil(processes * _process_gb(run, launch)),
        minutes=launch.minutes or _rounded_minutes(seconds / ranks),
    )


def within_limit(needs: Resources, launch: SlurmConfig, most: int | None) -> Resources:
    """`needs` with at most the `most` minutes that the partition allows; a longer run is requeued and resumes.

    Without this check SLURM, by default, accepts the job and lets it wait forever.

    Raises:
        ConfigError: more were asked for by hand.
    """
    if most is None or needs.minutes <= most:
        return needs
    if launch.minutes is None:
        return replace(needs, minutes=most)
    where = launch.partition or "the default one"
    rule = f"no job may run longer than {most} minutes in this partition ({where}), so it would wait forever"
    fix = f"Use launch.minutes={most}, or leave it out: a run that needs longer is requeued and resumes."
    raise ConfigError("launch.minutes", launch.minutes, rule, fix)


def gpus_of(run: RunConfig, launch: SlurmConfig) -> int:
    """How many GPUs a node of the run's job has."""
    if launch.gpus_per_node is not None:
        return launch.gpus_per_node
    return 0 if run.engine.device is Device.cpu else launch.tasks_per_node


def _memory(run: RunConfig, launch: SlurmConfig) -> Memory:
    return run_memory(run, launch.nodes * launch.tasks_per_node, on_gpu=gpus_of(run, launch) > 0)


def _process_gb(run: RunConfig, launch: SlurmConfig) -> float:
    return BASE_GB + MEMORY_MARGIN * _memory(run, launch).estimate_ram / GIB


def _require_memory(run: RunConfig, launch: SlurmConfig) -> None:
    """Refuse `launch.mem_gb` and `launch.gpu_mem_gb` where even what is certain to be needed is more than that.

    Raises:
        ConfigError: naming how much is needed.
    """
    ranks, gpus = launch.nodes * launch.tasks_per_node, gpus_of(run, launch)
    if launch.gpu_mem_gb is not None and gpus:
        require_bytes(run, ranks, launch.gpu_mem_gb * GIB, "launch.gpu_mem_gb says that a GPU has")
    processes = launch.tasks_per_node * launch.pack
    least = processes * _memory(run, launch).certain_ram
    if launch.mem_gb is not None and launch.mem_gb * GIB < least:
        what = "to build the model" if gpus else "for weights, gradients and optimizer state"
        each = f"{processes} processes of {run.run_name} need" if processes > 1 else f"{run.run_name} needs"
        rule = f"{each} at least {math.ceil(least / GIB)} GB a node {what}"
        asked = math.ceil(processes * _process_gb(run, launch))
        raise ConfigError("launch.mem_gb", launch.mem_gb, rule, f"Leave it out, which asks for {asked}.")


def _rounded_minutes(seconds: float) -> int:
    """The time to ask for, rounded up to tens of minutes, so that runs of similar length share an array."""
    return 10 * math.ceil((seconds * TIME_MARGIN / 60 + START_MINUTES) / 10)
