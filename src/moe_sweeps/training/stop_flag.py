"""How a worker is asked to stop: by a signal, or because somebody cancelled its run."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from enum import Enum
from queue import Empty, SimpleQueue
from types import FrameType

# One Ctrl-C may arrive twice within milliseconds, from the terminal and from the parent process.
SECOND_CTRL_C_SECONDS = 0.5


class Event(Enum):
    """What wakes the heartbeat before its time."""

    stop_requested, over = "stop_requested", "over"


class StopFlag:
    """False until the process is asked to stop. A second Ctrl-C stops at once, without saving."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self.cancelled = False
        self.events: SimpleQueue[Event] = SimpleQueue()  # put() is reentrant, so a signal handler may call it

    def __call__(self) -> bool:
        return self.cancelled or self._asked_at is not None

    def cancel(self) -> None:
        """Stop because the run was cancelled. Unlike an interrupted run it is not resumed automatically."""
        self.cancelled = True

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """A signal handler. It prints nothing: the heartbeat does."""
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self.events.put(Event.stop_requested)
        elif signum == signal.SIGINT and now - self._asked_at > SECOND_CTRL_C_SECONDS:
            raise KeyboardInterrupt

    def next_event(self, seconds: float) -> Event | None:
        """The next event, or None if none comes within `seconds`."""
        with suppress(Empty):
            return self.events.get(timeout=seconds)
        return None
