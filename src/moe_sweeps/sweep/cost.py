"""What a plan costs: parameters, FLOPs, time, disk."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.errors import ConfigError
from moe_sweeps.model.sizes import Sizes, sizes
from moe_sweeps.rundir import SETTLED
from moe_sweeps.sweep.estimate import Estimate, Estimator, tokens_of, wall_time
from moe_sweeps.sweep.plan import Plan, PlannedRun


@dataclass(frozen=True, slots=True)
class RunCost:
    """One run that is not finished. `seconds` is what is left of it."""

    planned: PlannedRun
    size: Sizes
    estimate: Estimate
    seconds: float

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

    @property
    def seconds(self) -> float:
        return wall_time((r.seconds for r in self.runs), self.workers)

    @property
    def flops(self) -> int:
        return sum(r.flops for r in self.runs)

    @property
    def disk(self) -> int:
        return sum(r.disk for r in self.runs)

    @property
    def sources(self) -> list[str]:
        """Where the times come from, the most frequent first."""
        return [source for source, _ in Counter(r.estimate.source for r in self.runs).most_common()]

    def by_size(self) -> list[list[RunCost]]:
        """The runs grouped by size and length, in order."""
        groups: dict[tuple[object, ...], list[RunCost]] = {}
        for cost in self.runs:
            groups.setdefault((cost.size, tokens_of(cost.planned.run)), []).append(cost)
        return list(groups.values())

    def require_disk(self) -> None:
        """Refuse runs whose measured checkpoints do not fit; a guess refuses nothing."""
        needed = sum(r.disk for r in self.runs if r.estimate.measured)
        if needed > self.free_disk:
            rule = f"checkpoints would take {size_text(needed)}, and {size_text(self.free_disk)} are free"
            fix = "Keep fewer (trainer.keep_checkpoints=1), make room, or point MOE_SWEEPS_RUNS elsewhere."
            raise ConfigError("paths.runs", self.runs[0].planned.run.paths.runs, rule, fix)


def plan_cost(plan: Plan, estimator: Estimator, workers: int) -> PlanCost:
    """The cost of what a plan still has to run."""
    todo = [p for p in plan.runs.values() if p.state not in SETTLED]
    return PlanCost(tuple(_run_cost(p, estimator) for p in todo), workers, _free(plan.runs_root))


def _run_cost(planned: PlannedRun, estimator: Estimator) -> RunCost:
    estimate = estimator.estimate(planned.run)
    step = planned.folder.status().step if planned.folder else 0
    left = 1 - step / planned.run.trainer.steps
    return RunCost(planned, sizes(planned.run, planned.run.data.vocab_size), estimate, estimate.seconds * left)


def _free(root: Path) -> int:
    existing = next(p for p in (root, *root.parents) if p.exists())
    return shutil.disk_usage(existing).free


def size_text(count: float) -> str:
    """Bytes as a person says them: 24 MB."""
    return scaled(count, ("B", "kB", "MB", "GB", "TB"))


def count_text(count: float) -> str:
    """Parameters or tokens: 1.2 M."""
    return scaled(count, ("", "k", "M", "B", "T"))


def flops_text(count: float) -> str:
    """FLOPs: 3.4 PFLOP."""
    return scaled(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"))


def scaled(count: float, units: Sequence[str]) -> str:
    """`count` in the unit in which it is 1 to 999, with three digits."""
    power = min(int(math.log10(count) // 3), len(units) - 1) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {units[power]}".strip()
