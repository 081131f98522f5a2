"""Do runs fit into this machine's memory? A run that certainly does not is refused; where several do not fit together,
fewer train at once; where it will be close, the plan says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from moe_sweeps.errors import ConfigError
from moe_sweeps.host.devices import Device
from moe_sweeps.host.machine_memory import Limit, available_memory, memory_limit
from moe_sweeps.training.memory import Memory, run_memory
from moe_sweeps.training.too_large import memory_text, refusal

if TYPE_CHECKING:
    from moe_sweeps.experiment.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of memory for runs: RAM, and that of the smallest GPU where runs use GPUs. None: not known."""

    ram: Limit | None
    available: int | None
    gpu: int | None = None
    gpus: int = 0
    gpu_name: str = ""  # of the smallest

    @classmethod
    def here(cls, device: Device) -> Machine:
        """This machine, for runs on `device`."""
        count = torch.cuda.device_count() if device is not Device.cpu and torch.cuda.is_available() else 0
        found = (torch.cuda.get_device_properties(n) for n in range(count))
        size, name = min(((one.total_memory, one.name) for one in found), default=(None, ""))
        return cls(memory_limit(), available_memory(), size, count, name)

    @property
    def has_gpu(self) -> bool:
        """Whether runs here use a GPU."""
        return self.gpu is not None

    @property
    def free(self) -> float:
        """Bytes of RAM that are free for runs now; infinite where nothing is known."""
        limit = self.ram.bytes if self.ram else math.inf
        return limit if self.available is None else min(limit, self.available)

    def require(self, run: RunConfig, processes: int = 1, here: int = 1) -> None:
        """Refuse a run that cannot fit. It has `processes`, of which `here` are on this machine.

        Raises:
            ConfigError: weights, gradients and optimizer state alone are larger than the memory.
        """
        needs = run_memory(run, processes, on_gpu=self.has_gpu)
        if self.gpu is not None and needs.certain > self.gpu:
            has = f"the smallest GPU here has {memory_text(self.gpu)}"
            raise refusal(run, needs, needs.certain, has, most=self.gpu)
        if self.ram is not None and here * needs.certain_ram > self.ram.bytes:
            rule = f"{self.ram.where} {memory_text(self.ram.bytes)}"
            where, most = ("" if here == 1 else f" in {here} processes"), 0 if self.has_gpu else self.ram.bytes
            raise refusal(run, needs, here * needs.certain_ram, rule, where, most)

    def holds(self, run: RunConfig) -> bool:
        """Whether `require` would let it through."""
        try:
            self.require(run)
        except ConfigError:
            return False
        return True

    def side_by_side(self, needs: Iterable[Memory], workers: int) -> int:
        """How many of `workers` can train at once, even if the largest runs coincide; at least 1."""
        largest = sorted(needs, key=lambda one: one.estimate_ram, reverse=True)[:workers]
        fitting = workers
        if self.ram is not None:
            while fitting > 1 and sum(one.estimate_ram for one in largest[:fitting]) > self.ram.bytes:
                fitting -= 1
        if self.gpu is not None and largest:
            each = max(1, self.gpu // max(one.estimate for one in largest))
            fitting = min(fitting, self.gpus * each)
        return fitting


def require_memory(runs: Sequence[RunConfig], processes: int = 1, here: int = 1) -> None:
    """Refuse runs that this machine cannot hold, one at a time.

    Raises:
        ConfigError: naming what the first such run needs, and what there is.
    """
    machines = {device: Machine.here(device) for device in {run.engine.device for run in runs}}
    for run in runs:
        machines[run.engine.device].require(run, processes, here)


def needed_text(needs: Memory) -> str:
    """What a run needs: its parts, and what saving adds."""
    parts = f"weights {memory_text(needs.weights)}, gradients {memory_text(needs.gradients)}"
    rest = needs.estimate - needs.certain
    return (
        f"{parts}, optimizer {memory_text(needs.optimizer)}, a micro-batch and the process about {memory_text(rest)}; "
        f"saving adds up to {memory_text(needs.largest)}"
    )
