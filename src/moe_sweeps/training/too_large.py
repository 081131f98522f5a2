"""The refusal of a run that cannot fit: what it needs, what there is, and which of its settings would make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from moe_sweeps.config.groups import Parallel
from moe_sweeps.errors import ConfigError
from moe_sweeps.optim.build import AdamWConfig
from moe_sweeps.training.memory import Memory, run_memory

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig

OTHERWISE = (
    "Use a smaller model, optimizer=adamw, engine.parallel=fsdp on several machines or GPUs, or a machine with more "
    "memory (launch=slurm asks for one)."
)
PROCESSES = (2, 4, 8, 16, 32, 64)


def memory_text(count: float) -> str:
    """Bytes of memory, coarse as estimates are."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def require_device(run: RunConfig, device: torch.device, processes: int = 1) -> None:
    """Refuse a run whose process cannot fit on its GPU, before anything is built; nothing on a CPU.

    Raises:
        ConfigError: weights, gradients and optimizer state alone are larger than the device's memory.
    """
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        require_bytes(run, processes, found.total_memory, f"this GPU ({found.name}) has")


def require_bytes(run: RunConfig, processes: int, most: int, has: str) -> None:
    """Refuse a run one of whose `processes` cannot fit on a GPU of `most` bytes; `has`: who has them, with the verb.

    Raises:
        ConfigError: weights, gradients and optimizer state alone are more.
    """
    needs = run_memory(run, processes, on_gpu=True)
    if needs.certain > most:
        raise refusal(run, needs, needs.certain, f"{has} {memory_text(most)}", most=most)


def refusal(run: RunConfig, needs: Memory, least: int, has: str, where: str = "", most: int = 0) -> ConfigError:
    """The error about a run that needs at least `least` bytes. `most`: of one device, to look for what would fit it."""
    parts = f"weights {memory_text(needs.weights)}, gradients {memory_text(needs.gradients)}"
    rule = (
        f"{run.run_name} needs at least {memory_text(least)} of memory{where} "
        f"({parts}, optimizer {memory_text(needs.optimizer)} a process), and {has}"
    )
    remedies = list(_remedies(run, needs, most))
    fix = f"These would fit with {', or with '.join(remedies)}." if remedies else OTHERWISE
    if remedies and remedies[0] == "optimizer=adamw":
        return ConfigError("optimizer", run.optimizer.kind, rule, fix)
    return ConfigError("scale", run.scale, rule, fix)


def _remedies(run: RunConfig, needs: Memory, most: int) -> Iterator[str]:
    """Settings with which one process of the run needs at most `most` bytes for certain."""
    adamw = dataclasses.replace(run, optimizer=AdamWConfig())
    if run.optimizer.kind != "adamw" and run_memory(adamw, on_gpu=needs.on_gpu).certain <= most:
        yield "optimizer=adamw"
    if run.engine.kind != "native":
        return
    other = "" if run.optimizer.ELEMENTWISE else "optimizer=adamw "
    for processes in PROCESSES:
        if run.trainer.batch_size % processes:
            continue
        share = run.trainer.batch_size // processes
        sharded = _sharded(adamw if other else run, share)
        if run_memory(sharded, processes, on_gpu=needs.on_gpu).certain <= most:
            each = "a GPU" if needs.on_gpu else "a machine"
            micro = f"trainer.micro_batch_size={share}"
            yield f"{other}engine.parallel=fsdp {micro} in {processes} processes with {each} each"
            return


def _sharded(run: RunConfig, share: int) -> RunConfig:
    """`run` with one micro-batch a process, so that its gradients never are whole."""
    engine = dataclasses.replace(run.engine, parallel=Parallel.fsdp)
    return dataclasses.replace(run, engine=engine, trainer=dataclasses.replace(run.trainer, micro_batch_size=share))
