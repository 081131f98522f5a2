"""What runs are doing, read from their folders; cheap enough for a thousand runs twice a second."""

from __future__ import annotations

import heapq
import os
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError, RunBusyError, RunFolderError
from moe_sweeps.records.rundir import FINISHED, SETTLED, RunDir, State, Status
from moe_sweeps.records.status import PAUSED as PAUSED  # offered here beside LOST and DAMAGED
from moe_sweeps.records.status import PRUNED as PRUNED

# A worker writes its heartbeat every second. After this much silence its lock is checked; on another host, whose clock
# may differ, later.
SILENT_SECONDS = 15.0
SILENT_SECONDS_ELSEWHERE = 300.0
LOST = "lost"  # "running" by its folder, but its worker died without saying so
DAMAGED = "damaged"  # its folder is gone or cannot be read


@dataclass(frozen=True, slots=True)
class RunRow:
    """What one run is doing now. `state` is a State, or LOST, DAMAGED, PAUSED or PRUNED; `note`: a remark on it."""

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
        """Training steps to the end of the run."""
        return max(0, self.status.total_steps - self.status.step)

    @property
    def seconds_left(self) -> float | None:
        """Until a run that trains ends; None for others, and while the speed is not known."""
        speed = self.status.seconds_per_step
        if self.state != State.running or speed is None:
            return None
        return self.steps_left * speed


Stamp = tuple[int, int, int]


@dataclass(slots=True)
class Follower:
    """Reads the same runs repeatedly, and only the files that changed."""

    runs: list[tuple[str, RunDir]]
    _seen: dict[Path, tuple[Stamp, RunRow]] = field(default_factory=dict)

    def read(self) -> list[RunRow]:
        """The current rows, in the order of `runs`."""
        return [self._row(label, folder) for label, folder in self.runs]

    def _row(self, label: str, folder: RunDir) -> RunRow:
        try:
            changed = _stamp(folder.path / "status.json")
            stamp, row = self._seen.get(folder.path, (None, None))
            if row is None or stamp != changed or row.state == State.running:
                row = read_row(label, folder)
                self._seen[folder.path] = (changed, row)
            return row
        except OSError:
            return read_row(label, folder)


def _stamp(file: Path) -> Stamp:
    """Differs from that of the file's next version, also where the clock of the file system is coarse."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def read_row(label: str, folder: RunDir) -> RunRow:
    """The run of a folder as it is now."""
    try:
        status = folder.status()
    except RunFolderError:
        return RunRow(label, folder, Status(), DAMAGED)
    note = "status.json was lost; rebuilt from other files" if status.rebuilt else ""
    if status.is_paused:
        return RunRow(label, folder, status, PAUSED, note)
    if is_lost(folder, status):
        return RunRow(label, folder, status, LOST, note)
    return RunRow(label, folder, status, status.state, note or _why_held(folder, status))


def is_silent(status: Status, seconds: float = SILENT_SECONDS) -> bool:
    """Whether a run with the state running has had no heartbeat for `seconds`, on whatever host.

    A heartbeat from the future counts as silence: the clocks of the two hosts differ, so it proves nothing.
    """
    return status.state is State.running and abs(time.time() - status.heartbeat) > seconds


def is_lost(folder: RunDir, status: Status) -> bool:
    """Whether a run with the state running has no worker any more.

    The lock, which ends with its process, decides. It is tested only when the heartbeat is old or the process is gone,
    because testing it holds it for an instant. For SLURM jobs on a file system that does not share locks between hosts,
    the queue knows more (slurm/agree.py).
    """
    if status.state is not State.running:
        return False
    if status.host != socket.gethostname():
        return is_silent(status, SILENT_SECONDS_ELSEWHERE) and not _is_held(folder)
    return (is_silent(status) or not _exists(status.pid)) and not _is_held(folder)


def _is_held(folder: RunDir) -> bool:
    """Whether a worker holds the run. Nobody can hold a lock that is a link or a folder."""
    with suppress(OSError):
        return folder.is_locked()
    return False


def _why_held(folder: RunDir, status: Status) -> str:
    """Who holds a run that has been silent for long. A soft lock outlives its node: only a person can delete it."""
    if is_silent(status, SILENT_SECONDS_ELSEWHERE):
        try:
            with folder.lock():
                return ""
        except RunBusyError as error:
            return str(error)
        except (MoeSweepsError, OSError):
            return ""
    return ""


def total_seconds_left(rows: Sequence[RunRow], workers: int) -> float | None:
    """Seconds until `workers` have trained all runs; None while no speed is known.

    A step of a waiting run is taken to last as long as the median run's; each run goes to the first free worker.
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
    """Seconds in a readable unit: about 45 s, about 3.2 min, about 5.1 h."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def tokens_per_second(rows: Sequence[RunRow]) -> float:
    """The total speed of all runs that train now."""
    return sum(row.status.tokens_per_second or 0.0 for row in rows if row.state == State.running)


def readable(folders: Sequence[RunDir], left_out: Callable[[RunDir, RunFolderError], None]) -> list[RunDir]:
    """Those whose status can be read; the others, which were moved away or closed, are told to `left_out`."""
    found = []
    for folder in folders:
        try:
            folder.status()
            found.append(folder)
        except RunFolderError as error:
            left_out(folder, error)
    return found


def all_finished(rows: Sequence[RunRow]) -> bool:
    """Whether every run has its result, was paused at `trainer.stop_at`, or was pruned."""
    return all(row.state in (*FINISHED, PAUSED, PRUNED) for row in rows)


def _exists(pid: object) -> bool:
    """Whether there is such a process. What a damaged status.json may hold in its place is none."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
