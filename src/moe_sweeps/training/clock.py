"""Seconds that a run has taken, over all its attempts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """Seconds spent in training steps, and seconds spent altogether."""

    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    def lap(self) -> None:
        """Bring `wall_seconds` up to date."""
        now = time.perf_counter()
        self.wall_seconds += now - self._started
        self._started = now

    def tokens_per_second(self, tokens: int) -> float:
        """Speed over training steps alone."""
        return tokens / max(self.train_seconds, 1e-9)

    def state_dict(self) -> dict[str, float]:
        return {"train_seconds": self.train_seconds, "wall_seconds": self.wall_seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.train_seconds, self.wall_seconds = state["train_seconds"], state["wall_seconds"]
