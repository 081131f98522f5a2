"""What is said about a run when it is over: its outcome and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.hardware import gemm_peak, peak_memory
from moe_sweeps.health import CollapseWatch
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.sizes import sizes


@dataclass(slots=True)
class Clock:
    """Seconds spent, over all attempts: in training steps alone, and altogether."""

    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def lap(self) -> None:
        """Bring `wall_seconds` up to now."""
        now = time.perf_counter()
        self.wall_seconds += now - self._started
        self._started = now

    def tokens_per_second(self, tokens: int) -> float:
        """Speed of the training steps alone."""
        return tokens / max(self.train_seconds, 1e-9)

    def state_dict(self) -> dict[str, float]:
        return {"train_seconds": self.train_seconds, "wall_seconds": self.wall_seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.train_seconds, self.wall_seconds = state["train_seconds"], state["wall_seconds"]


def outcome(health: CollapseWatch) -> dict[str, Any]:
    """Whether the router collapsed, and when."""
    collapsed_at = health.collapsed_at()
    found: dict[str, Any] = {"collapsed": collapsed_at is not None}
    return found | ({} if collapsed_at is None else {"collapsed_at_step": collapsed_at})


def costs(
    run: RunConfig, vocab_size: int, step: int, clock: Clock, compute: Compute, processes: int = 1
) -> dict[str, Any]:
    """Tokens, seconds, sizes, memory and speed after `step` updates, with the speed's share of what `processes` such
    devices could do. `seconds_per_step` is over all steps, none left out.
    """
    tokens = step * run.trainer.tokens_per_step
    speed = clock.tokens_per_second(tokens)
    size = sizes(run, vocab_size)
    found = {
        "tokens": tokens,
        "wall_seconds": round(clock.wall_seconds, 3),
        "train_seconds": round(clock.train_seconds, 3),
        "tokens_per_second": round(speed, 1),
        "seconds_per_step": float(f"{clock.train_seconds / max(step, 1):.6g}"),
        "params_total": size.params_total,
        "params_active": size.params_active,
        "flops_per_token": size.flops_per_token,
        "peak_memory_bytes": peak_memory(compute.device),
    }
    return found | share_of_peak(speed * size.flops_per_token / processes, compute)


def share_of_peak(flops: float, compute: Compute) -> dict[str, float]:
    """`flops` per second of one process beside the measured peak of matrix products on its device.

    On a GPU in the run's precision, on a CPU in float32: many CPUs only imitate bfloat16, slowly.
    """
    dtype = torch.bfloat16 if compute.autocast and compute.device.type == "cuda" else torch.float32
    peak = gemm_peak(device=compute.device, dtype=dtype)
    return {"gemm_peak_gflops": round(peak / 1e9, 1), "share_of_gemm_peak": round(flops / peak, 4)}
