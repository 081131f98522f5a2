"""Learning-rate schedules: pure functions of the step that give a factor of the peak learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_sweeps.config.registry import Component, component, knob
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig


@dataclass(slots=True)
class ScheduleConfig(Component):
    """Base of the schedules."""

    warmup_steps: int = knob(100, ge=1)

    def factor(self, step: int, total_steps: int) -> float:
        """Factor of the peak learning rate for update `step`, counted from 0 to total_steps - 1."""
        raise NotImplementedError

    def check(self, run: RunConfig) -> Iterator[ConfigError]:
        if self.warmup_steps >= run.trainer.steps:
            rule = f"warm-up must end before training does (trainer.steps={run.trainer.steps})"
            yield ConfigError("schedule.warmup_steps", self.warmup_steps, rule, "Shorten it or train longer.")


@component("schedule", "onecycle_cosine")
@dataclass(slots=True)
class OneCycleCosineConfig(ScheduleConfig):
    """Cosine from `start_fraction` of the peak up to it in `warmup_steps`, then cosine down to `end_fraction` of it.

    The numbers of torch.optim.lr_scheduler.OneCycleLR with anneal_strategy="cos" (arXiv 1708.07120).
    """

    kind: str = "onecycle_cosine"
    start_fraction: float = knob(0.01, gt=0, le=1)
    end_fraction: float = knob(0.1, ge=0, le=1)

    def factor(self, step: int, total_steps: int) -> float:
        peak_step = self.warmup_steps - 1
        if step <= peak_step:
            return _cosine(self.start_fraction, 1.0, step / peak_step if peak_step else 1.0)
        return _cosine(1.0, self.end_fraction, (step - peak_step) / (total_steps - 1 - peak_step))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
