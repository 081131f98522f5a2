"""What runs are doing, read from their folders: cheap enough to ask about a thousand runs twice a second."""

from __future__ import annotations

import heapq
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.errors import RunFolderError
from moe_sweeps.rundir import FINISHED, SETTLED, RunDir, State, Status

# A worker writes its heartbeat every second. One of this host that is silent for so long is looked for; one of another
# host, whose clock may differ, is given up.
SILENT_SECONDS = 15.0
SILENT_SECONDS_ELSEWHERE = 300.0
LOST = "lost"  # "running", but its worker is gone without a word
DAMAGED = "damaged"  # status.json cannot be read
PAUSED = "paused"  # "preempted" where `trainer.stop_at` said
PRUNED = "pruned"  # paused, and its search is over without having promoted it


@dataclass(frozen=True, slots=True)
class Row:
    """One run at one moment. `state` is a State, or LOST, DAMAGED, PAUSED or PRUNED; `note` is what there is to add."""

    label: str
    folder: RunDir
    status: Status
    state: str
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in (*SETTLED, State.failed, DAMAGED, PAUSED, PRUNED)

    @property
    def steps_left(self) -> int:
        return max(0, self.status.total_steps - self.status.step)

    @property
    def seconds_left(self) -> float | None:
        """Of a run that trains; None while its speed is not known."""
        speed = self.status.seconds_per_step
        if self.state != State.running or speed is None:
            return None
        return self.steps_left * speed


@dataclass(slots=True)
class Follower:
    """Reads the same runs again and again, and only the files that changed."""

    runs: list[tuple[str, RunDir]]
    _seen: dict[Path, tuple[int, Row]] = field(default_factory=dict)

    def read(self) -> list[Row]:
        """The rows of now, in the order of `runs`."""
        return [self._row(label, folder) for label, folder in self.runs]

    def _row(self, label: str, folder: RunDir) -> Row:
        try:
            changed = (folder.path / "status.json").stat().st_mtime_ns
            stamp, row = self._seen.get(folder.path, (None, None))
            if row is None or stamp != changed or row.state == State.running:
                row = read_row(label, folder)
                self._seen[folder.path] = (changed, row)
            return row
        except OSError:
            return read_row(label, folder)


def read_row(label: str, folder: RunDir) -> Row:
    """The run of a folder as it is now."""
    try:
        status = folder.status()
    except RunFolderError:
        return Row(label, folder, Status(), DAMAGED)
    if status.is_paused:
        return Row(label, folder, status, PAUSED)
    return Row(label, folder, status, LOST if is_lost(folder, status) else status.state)


def is_silent(status: Status) -> bool:
    """Whether a run that is called running has not been heard of for a while, on whatever host."""
    return status.state is State.running and time.time() - status.heartbeat > SILENT_SECONDS


def is_lost(folder: RunDir, status: Status) -> bool:
    """Whether a run that is called running has no worker any more.

    The lock, which ends with its process, has the last word on this host. It is asked only when the heartbeat is old or
    the process gone, because to ask is to hold it for an instant.
    """
    if status.state is not State.running:
        return False
    silent = time.time() - status.heartbeat
    if status.host != socket.gethostname():
        return silent > SILENT_SECONDS_ELSEWHERE
    return (silent > SILENT_SECONDS or not _exists(status.pid)) and not folder.is_locked()


def total_seconds_left(rows: Sequence[Row], workers: int) -> float | None:
    """Until all runs are over with `workers` at work, None while no speed is known.

    A waiting run's step takes what the median run's takes; each run goes to the worker that is free first.
    """
    known = [speed for row in rows if (speed := row.status.seconds_per_step) is not None]
    waiting = [row for row in rows if not row.is_over and row.state != State.running]
    running = [row for row in rows if row.state == State.running]
    if not known:
        return 0.0 if not waiting and not running else None
    typical = statistics.median(known)
    busy = [row.steps_left * (row.status.seconds_per_step or typical) for row in running]
    free_at = busy + [0.0] * max(0, workers - len(busy))
    heapq.heapify(free_at)
    for row in waiting:
        heapq.heappush(free_at, heapq.heappop(free_at) + row.steps_left * typical)
    return max(free_at, default=0.0)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3.2 min, 5.1 h."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def tokens_per_second(rows: Sequence[Row]) -> float:
    """Of all runs that train now, together."""
    return sum(row.status.tokens_per_second or 0.0 for row in rows if row.state == State.running)


def all_finished(rows: Sequence[Row]) -> bool:
    """Whether every run has its result, or stopped where it was told to."""
    return all(row.state in (*FINISHED, PAUSED, PRUNED) for row in rows)


def _exists(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
