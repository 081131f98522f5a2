"""Router collapse as an outcome of a run.

The rule: let v be the MaxVio of a step's global batch, averaged over layers, divided by its maximum E/k - 1. The router
has collapsed once v was above `trainer.collapse_threshold` in `trainer.collapse_patience` consecutive steps. The rule
counts steps and not logging intervals, because how often a run is logged must not change its outcome.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moe_sweeps.config.groups import MoEExpertsConfig, TrainerConfig
from moe_sweeps.config.run import Run


class CollapseWatch:
    """Applies the rule on the device. The host synchronises with the device only where a method says so."""

    def __init__(self, settings: TrainerConfig, num_experts: int, top_k: int, device: torch.device) -> None:
        self.settings, self.limit = settings, num_experts / top_k - 1
        self._streak = torch.zeros((), dtype=torch.int64, device=device)  # consecutive steps above the threshold
        self._since = torch.zeros((), dtype=torch.int64, device=device)  # first step at which the rule held; 0: never

    @classmethod
    def of(cls, run: Run, device: torch.device) -> CollapseWatch:
        """The watch over the router of `run`. A model without experts has nothing that can collapse."""
        experts = run.experts
        if not isinstance(experts, MoEExpertsConfig):
            return cls(run.trainer, 1, 1, device)
        return cls(run.trainer, experts.num_experts, experts.top_k, device)

    def add(self, step: int, maxvio_batch: Tensor) -> None:
        """Note the MaxVio after `step` updates. Where every token uses every expert, nothing can collapse."""
        if self.limit <= 0:
            return
        above = maxvio_batch > self.settings.collapse_threshold * self.limit
        self._streak.add_(1).mul_(above)
        holds = (self._streak >= self.settings.collapse_patience) & (self._since == 0)
        self._since += step * holds

    def collapsed_at(self) -> int | None:
        """The first step at which the rule held, or None. Synchronises with the device."""
        return int(self._since.item()) or None

    def says_stop(self, step: int) -> bool:
        """Whether to stop after `step` updates. Synchronises with the device only at multiples of the patience."""
        asked = self.settings.stop_on_collapse and step % self.settings.collapse_patience == 0
        return asked and self.collapsed_at() is not None

    def summary(self) -> dict[str, Any]:
        """Whether the router collapsed, and when, by their names in summary.json. Synchronises with the device."""
        collapsed_at = self.collapsed_at()
        found: dict[str, Any] = {"collapsed": collapsed_at is not None}
        return found | ({} if collapsed_at is None else {"collapsed_at_step": collapsed_at})

    def state_dict(self) -> dict[str, Tensor]:
        return {"streak": self._streak, "since": self._since}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._streak.copy_(state["streak"])
        self._since.copy_(state["since"])
