"""What a run will cost in seconds: from finished runs like it, or else from the machine's measured arithmetic."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.hardware import gemm_peak
from moe_sweeps.model.sizes import sizes
from moe_sweeps.rundir import RunDir, State

# Share of the GEMM peak that training is assumed to reach while no run of this machine says better.
ASSUMED_SHARE_OF_PEAK = 0.2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of one run, and where the number comes from."""

    seconds: float
    source: str


def wall_time(seconds: Iterable[float], workers: int) -> float:
    """Seconds that `workers` need for runs of these lengths: no less than the mean share, nor than the longest run."""
    lengths = list(seconds)
    return max(math.fsum(lengths) / workers, max(lengths, default=0.0))


class History:
    """Finished runs below a folder, as a source of estimates for runs of `threads` threads."""

    def __init__(self, root: Path, threads: int = 1) -> None:
        self._threads = threads
        self._summaries = [s for folder in RunDir.all(root) if (s := _summary_of_done(folder))]

    def estimate(self, run: RunConfig) -> Estimate:
        """Seconds that `run` takes: the median of finished runs of its size, scaled by the number of tokens."""
        flops = sizes(run, run.data.vocab_size).flops_per_token
        tokens = run.trainer.steps * run.trainer.tokens_per_step
        like = [s["wall_seconds"] * tokens / s["tokens"] for s in self._summaries if s.get("flops_per_token") == flops]
        if like:
            plural = "" if len(like) == 1 else "s"
            return Estimate(statistics.median(like), f"from {len(like)} finished run{plural} of this size")
        rate = _peak(self._threads) * ASSUMED_SHARE_OF_PEAK
        share = f"{ASSUMED_SHARE_OF_PEAK:.0%} of this machine's matrix-product peak"
        return Estimate(flops * tokens / rate, f"a guess: {share}; no run of this size is finished")


@functools.cache
def _peak(threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return gemm_peak(repeats=3)
    finally:
        torch.set_num_threads(before)


def _summary_of_done(folder: RunDir) -> dict[str, Any] | None:
    try:
        return folder.summary() if folder.status().state is State.done else None
    except (OSError, ValueError, KeyError, MoeSweepsError):
        return None  # a damaged folder is the tables' business; it only must not stop a plan
