"""What a run asks of the cluster: nodes, tasks, cores, GPUs, memory and time, from its config and its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moe_sweeps.config.groups import Device, SlurmConfig
from moe_sweeps.distributed import Ranks
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.sizes import sizes

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig

# A job gets this many times its estimate, and some minutes to start, load data and evaluate.
TIME_MARGIN = 1.5
START_MINUTES = 10
# Of one process besides its model: Python, torch, the memory-mapped data.
BASE_GB = 4.0
# Weights, gradients and two moments in float32, and as much again for what an optimizer computes with.
BYTES_PER_PARAMETER = 32


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
        return self.nodes * self.tasks_per_node


def resources(run: RunConfig, seconds: float) -> Resources:
    """The resources of `run`, which takes about `seconds` on one rank; what `launch` sets by hand wins.

    Raises:
        ConfigError: runs cannot be packed into a job of several ranks, or a batch not divided among them.
    """
    launch = run.launch
    assert isinstance(launch, SlurmConfig)
    ranks = launch.nodes * launch.tasks_per_node
    if launch.pack > 1 and ranks > 1:
        rule = f"{ranks} ranks work on one run, so that a job cannot hold several runs"
        raise ConfigError("launch.pack", launch.pack, rule, "Use launch.pack=1, or one node with one task.")
    Ranks(0, ranks).require_even_split(run.trainer.batch_size, run.trainer.micro_batch_size)
    processes = launch.tasks_per_node * launch.pack
    cpus = launch.cpus_per_task or (run.launch.threads or 1) * launch.pack
    return Resources(
        nodes=launch.nodes,
        tasks_per_node=launch.tasks_per_node,
        cpus_per_task=cpus,
        gpus_per_node=_gpus(run, launch),
        mem_gb=launch.mem_gb or math.ceil(processes * _process_gb(run)),
        minutes=launch.minutes or _rounded_minutes(seconds / ranks),
    )


def within_limit(needs: Resources, launch: SlurmConfig, most: int | None) -> Resources:
    """`needs` with no more than the `most` minutes that the partition allows; a longer run goes on after its limit.

    Without this check SLURM, as it is set up by default, takes the job and lets it wait for ever.

    Raises:
        ConfigError: more were asked for by hand.
    """
    if most is None or needs.minutes <= most:
        return needs
    if launch.minutes is None:
        return replace(needs, minutes=most)
    where = launch.partition or "the default one"
    rule = f"no job may run longer than {most} minutes in this partition ({where}), and it would wait for ever"
    fix = f"Use launch.minutes={most}, or leave it out: a run that needs longer goes on after its time limit."
    raise ConfigError("launch.minutes", launch.minutes, rule, fix)


def _gpus(run: RunConfig, launch: SlurmConfig) -> int:
    if launch.gpus_per_node is not None:
        return launch.gpus_per_node
    return 0 if run.engine.device is Device.cpu else launch.tasks_per_node


def _process_gb(run: RunConfig) -> float:
    return BASE_GB + sizes(run, run.data.vocab_size).params_total * BYTES_PER_PARAMETER / 1e9


def _rounded_minutes(seconds: float) -> int:
    """Whole tens of minutes, so that runs of similar length share an array."""
    return 10 * math.ceil((seconds * TIME_MARGIN / 60 + START_MINUTES) / 10)
