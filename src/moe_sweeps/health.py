"""Health of a run as an outcome: has its router collapsed?

The rule: v = MaxVio of a step's global batch, mean over layers, divided by its maximum E/k - 1. The run has collapsed
once v was above `trainer.collapse_threshold` in `trainer.collapse_patience` consecutive steps. It counts steps, not
logging intervals, because how often a run is logged must not change what becomes of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moe_sweeps.config.groups import TrainerConfig


class CollapseWatch:
    """Applies the rule on the device; the host waits for it only where it asks."""

    def __init__(self, settings: TrainerConfig, num_experts: int, top_k: int, device: torch.device) -> None:
        self.settings, self.limit = settings, num_experts / top_k - 1
        self._streak = torch.zeros((), dtype=torch.int64, device=device)  # consecutive steps above the threshold
        self._since = torch.zeros((), dtype=torch.int64, device=device)  # step at which the rule held first; 0: never

    def add(self, step: int, maxvio_batch: Tensor) -> None:
        """Note the MaxVio after `step` updates. Where every token uses every expert, nothing can collapse."""
        if self.limit <= 0:
            return
        above = maxvio_batch > self.settings.collapse_threshold * self.limit
        self._streak.add_(1).mul_(above)
        holds = (self._streak >= self.settings.collapse_patience) & (self._since == 0)
        self._since += step * holds

    def collapsed_at(self) -> int | None:
        """The first step at which the rule held, or None. Waits for the device."""
        return int(self._since.item()) or None

    def says_stop(self, step: int) -> bool:
        """Whether to stop now. Asked after every step, it waits for the device at multiples of the patience alone."""
        asked = self.settings.stop_on_collapse and step % self.settings.collapse_patience == 0
        return asked and self.collapsed_at() is not None

    def state_dict(self) -> dict[str, Tensor]:
        return {"streak": self._streak, "since": self._since}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._streak.copy_(state["streak"])
        self._since.copy_(state["since"])
