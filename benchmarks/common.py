"""What the benchmarks share."""

from __future__ import annotations

import torch

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.freeze import freeze
from moe_sweeps.hardware import resolve_device
from moe_sweeps.trainer import Trainer


class Silent:
    """An observer that says nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


def new_trainer(run: RunConfig, data: TokenData) -> Trainer:
    """The trainer of a run with a folder of its own."""
    return Trainer(run, freeze(run, [], command="benchmark"), data, resolve_device(run.engine.device), Silent())


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
