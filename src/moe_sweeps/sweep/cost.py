"""What a plan costs: parameters, FLOPs, time, disk."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.launch.slurm.resources import gpus_of
from moe_sweeps.model.sizes import Sizes, sizes
from moe_sweeps.records.rundir import SETTLED
from moe_sweeps.sweep.estimate import Estimator, RunEstimate, tokens_of, wall_time
from moe_sweeps.sweep.fitting import Machine
from moe_sweeps.sweep.plan import Plan, PlannedRun
from moe_sweeps.training.memory import Memory, run_memory


@dataclass(frozen=True, slots=True)
class RunCost:
    """One run that is not finished. `seconds`: time to train the rest of it."""

    planned: PlannedRun
    size: Sizes
    estimate: RunEstimate
    seconds: float
    memory: Memory

    @property
    def flops(self) -> int:
        """Training FLOPs of the whole run."""
        return self.size.flops_per_token * tokens_of(self.planned.run)

    @property
    def disk(self) -> int:
        """Bytes of the checkpoints that the run keeps."""
        return self.estimate.checkpoint_bytes * self.planned.run.trainer.keep_checkpoints


@dataclass(frozen=True, slots=True)
class PlanCost:
    """All runs that are not finished, on `workers` processes."""

    runs: tuple[RunCost, ...]
    workers: int
    free_disk: int
    machine: Machine | None = None  # None: the runs are trained elsewhere
    wanted_workers: int = 0  # before memory limited them

    @property
    def seconds(self) -> float:
        """Wall time of all runs on the workers."""
        return wall_time((r.seconds for r in self.runs), self.workers)

    @property
    def flops(self) -> int:
        """Training FLOPs of all runs."""
        return sum(r.flops for r in self.runs)

    @property
    def disk(self) -> int:
        """Bytes of all checkpoints that the runs keep."""
        return sum(r.disk for r in self.runs)

    @property
    def sources(self) -> list[str]:
        """Where the times come from, the most frequent first."""
        return [source for source, _ in Counter(r.estimate.source for r in self.runs).most_common()]

    @property
    def problems(self) -> list[str]:
        """Why probes that were tried gave no times."""
        return list(dict.fromkeys(r.estimate.problem for r in self.runs if r.estimate.problem))

    def by_size(self) -> list[list[RunCost]]:
        """The runs grouped by size and length, in order."""
        groups: dict[tuple[object, ...], list[RunCost]] = {}
        for cost in self.runs:
            groups.setdefault((cost.size, tokens_of(cost.planned.run)), []).append(cost)
        return list(groups.values())

    def require_memory(self) -> None:
        """Refuse runs that this machine cannot hold, as training them would; nothing where they are trained elsewhere.

        Raises:
            ConfigError: naming what the first such run needs, and what there is.
        """
        for cost in self.runs if self.machine else ():
            assert self.machine
            self.machine.require(cost.planned.run)

    def require_disk(self) -> None:
        """Refuse runs whose checkpoints do not fit on the disk.

        Raises:
            ConfigError: naming what is needed and what is free.
        """
        if self.disk > self.free_disk:
            rule = f"checkpoints would take {size_text(self.disk)}, and {size_text(self.free_disk)} are free"
            fix = "Keep fewer (trainer.keep_checkpoints=1), free some space, or set MOE_SWEEPS_RUNS to a larger disk."
            raise ConfigError("paths.runs", self.runs[0].planned.run.paths.runs, rule, fix)


def plan_cost(plan: Plan, estimator: Estimator, workers: int) -> PlanCost:
    """The cost of what a plan has left to train, on `workers` processes or fewer where memory holds fewer."""
    todo = [p for p in plan.to_train.values() if p.state not in SETTLED]
    first = next(iter(plan.runs.values())).run
    machine = None if isinstance(first.launch, SlurmConfig) else Machine.here(first.engine.device)
    runs = tuple(_run_cost(p, estimator, machine) for p in todo)
    fitting = machine.side_by_side((r.memory for r in runs), workers) if machine else workers
    return PlanCost(runs, fitting, _free(plan.runs_root), machine, workers)


def _run_cost(planned: PlannedRun, estimator: Estimator, machine: Machine | None) -> RunCost:
    run = planned.run
    estimate = estimator.estimate(run)
    left = (run.last_step - max(planned.step, run.first_step)) / (run.last_step - run.first_step)
    processes, on_gpu = 1, bool(machine and machine.has_gpu)
    if isinstance(run.launch, SlurmConfig):
        processes, on_gpu = run.launch.nodes * run.launch.tasks_per_node, gpus_of(run, run.launch) > 0
    memory = run_memory(run, processes, on_gpu=on_gpu)
    return RunCost(planned, sizes(run, run.data.vocab_size), estimate, estimate.seconds * left, memory)


def _free(root: Path) -> int:
    existing = next(p for p in (root, *root.parents) if p.exists())
    return shutil.disk_usage(existing).free


def size_text(count: float) -> str:
    """Bytes in a readable unit: 24 MB."""
    return scaled(count, ("B", "kB", "MB", "GB", "TB"))


def count_text(count: float) -> str:
    """Parameters or tokens in a readable unit: 1.2 M."""
    return scaled(count, ("", "k", "M", "B", "T"))


def flops_text(count: float) -> str:
    """FLOPs in a readable unit: 3.4 PFLOP."""
    return scaled(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"))


def scaled(count: float, units: Sequence[str]) -> str:
    """`count` in the unit in which it is 1 to 999, with three digits."""
    power = min(int(math.log10(count) // 3), len(units) - 1) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {units[power]}".strip()
