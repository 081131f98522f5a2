"""When a checkpoint is due during a run: after so many steps, after so many minutes, or as often as saving is cheap.

Nothing here changes a result: a checkpoint is a copy of the state, whenever it is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moe_sweeps.config.groups import TrainerConfig

# Without steps or minutes in the config, saving takes at most this share of the time,
MOST_OF_THE_TIME = 0.01
# and at least so much time lies between two checkpoints. The first one, whose cost is not known, is due after it, too.
SHORTEST_SECONDS = 60.0


class CheckpointSchedule:
    """The checkpoints of one attempt at a run. `now` reads a clock in seconds."""

    def __init__(self, settings: TrainerConfig, now: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._minutes, self._now = settings.checkpoint_every, settings.checkpoint_minutes, now
        self._cost = 0.0  # seconds that the last checkpoint took
        self._saved = now()  # when it was complete; before the first one, when the attempt started

    @property
    def is_automatic(self) -> bool:
        """Whether the cost of saving decides."""
        return self._steps is None and self._minutes is None

    @property
    def seconds_between(self) -> float | None:
        """From the end of one checkpoint to the start of the next; None where steps alone decide."""
        if self._minutes is not None:
            return 60 * self._minutes
        if not self.is_automatic:
            return None
        return max(SHORTEST_SECONDS, self._cost * (1 - MOST_OF_THE_TIME) / MOST_OF_THE_TIME)

    def is_due_by_steps(self, step: int) -> bool:
        """Whether `step` is one to save after. All processes get the same answer."""
        return self._steps is not None and step % self._steps == 0

    def is_due_by_clock(self) -> bool:
        """Whether it is time to save. Each process has its own clock, so one of them must decide for all."""
        return self.seconds_between is not None and self._now() - self._saved >= self.seconds_between

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measures the block, which writes a checkpoint."""
        started = self._now()
        yield
        self._saved = self._now()
        self._cost = self._saved - started

    def __str__(self) -> str:
        following = "" if self.seconds_between is None else f"; the next one in about {self.seconds_between:.0f} s"
        return f"saved in {self._cost:.2f} s{following}"
