"""What a run cost: tokens, seconds, sizes, memory and speed, for its summary."""

from __future__ import annotations

from typing import Any

import torch

from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import peak_memory
from moe_sweeps.host.peak import peak_of
from moe_sweeps.model.precision import Compute
from moe_sweeps.model.sizes import sizes
from moe_sweeps.training.clock import Clock


def costs(
    run: RunConfig, vocab_size: int, step: int, clock: Clock, compute: Compute, processes: int = 1
) -> dict[str, Any]:
    """The costs of `step` updates on `processes` devices, by their names in summary.json.

    `seconds_per_step` is over all steps. `share_of_peak` compares the speed with what so many devices could do.
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
    """`flops` per second of one process as a share of the peak of its device (host/peak.py).

    Beside it stand the rates of all ways to multiply, of which the peak is the largest; `peak_gflops_data_sheet` where
    it was not measured. They are those of the run's precision on a GPU, and of float32 on a CPU: many CPUs only emulate
    bfloat16, slowly.
    """
    dtype = torch.bfloat16 if compute.autocast and compute.device.type == "cuda" else torch.float32
    peak = peak_of(compute.device, dtype)
    return {
        "share_of_peak": round(flops / peak.flops, 4),
        "peak_gflops": round(peak.flops / 1e9, 1),
        **{f"peak_gflops_{way}": round(rate / 1e9, 1) for way, rate in peak.rates.items()},
    }
