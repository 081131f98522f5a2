"""What the benchmarks share."""

from __future__ import annotations

import torch

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import resolve_device
from moe_sweeps.training.trainer import Trainer


class Silent:
    """An observer that prints nothing."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        """A line was logged; nothing to do."""

    def alive(self, step: int) -> None:
        """A step was taken; nothing to do."""


def new_trainer(run: RunConfig, data: TokenData) -> Trainer:
    """The trainer of a run with a folder of its own."""
    return Trainer(run, freeze(run, [], command="benchmark"), data, resolve_device(run.engine.device), Silent())


def wait(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
