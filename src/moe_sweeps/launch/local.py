"""Runs of a sweep on this machine: one process per run, a few at a time, so that a crash ends one run alone.

One process drives a sweep. Another process with the same command follows it, and takes over when the driver is gone.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from moe_sweeps.errors import MoeSweepsError, RunBusyError, RunFolderError
from moe_sweeps.host.locks import Busy, locked
from moe_sweeps.host.machine_memory import OUT_OF_MEMORY, out_of_memory
from moe_sweeps.host.output import not_waited_for
from moe_sweeps.host.signals import handled
from moe_sweeps.launch.gpus import VISIBLE, least_used, shared_gpus, visible_gpus
from moe_sweeps.launch.process import UNKNOWN, Worker, start
from moe_sweeps.launch.work import BUSY
from moe_sweeps.records.rundir import SETTLED, Failure, RunDir, State, Status

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25
STOP_SECONDS = 60.0
Tick = Callable[[], None]
# Called with the runs that train here or elsewhere; returns a further run to train, or None while there is none.
Feed = Callable[[Collection[RunDir]], RunDir | None]


def drive(sweep_folder: Path, runs: Sequence[RunDir], workers: int, tick: Tick, say: Callable[[str], None]) -> None:
    """Train what is missing of `runs`; while another process does so for the same sweep, follow it.

    `tick` is called a few times a second, `say` with a sentence when this process follows or takes over.

    Raises:
        KeyboardInterrupt: the process was asked to stop, and its workers have saved their state and ended.
    """
    retry_failed = True
    while True:
        try:
            with locked(sweep_folder / ".lock"):
                todo = [run for run in runs if _is_missing(run, retry_failed)]
                if todo and not retry_failed:
                    say("the process that ran this sweep is gone; resuming here")
                LocalSweep(todo, workers).run(tick)
                return
        except Busy as busy:
            if retry_failed:
                who = f": {busy.holder}" if busy.holder else ""  # of a soft lock, with the file to delete
                say(f"another process runs this sweep{who}; following it (Ctrl-C leaves it alone)")
            retry_failed = False  # runs that fail from now on were tried a moment ago
            time.sleep(POLL_SECONDS)
            tick()


@dataclass(slots=True)
class LocalSweep:
    """The runs of a sweep that wait or train; `run()` trains them to their ends.

    `elsewhere`: runs that another process trains. `feed` is asked for a further run when a worker is free and none
    waits.
    """

    waiting: list[RunDir]
    workers: int
    active: dict[RunDir, Worker] = field(default_factory=dict)
    elsewhere: list[RunDir] = field(default_factory=list)
    stopping: bool = False
    feed: Feed | None = None
    gpus: list[str] = field(default_factory=visible_gpus)
    _places: dict[RunDir, str | None] = field(default_factory=dict)
    _environment: dict[str, str] = field(default_factory=dict)
    _trunks: dict[RunDir, str | None] = field(default_factory=dict)

    def run(self, tick: Tick) -> None:
        """Train everything; `tick` is called a few times a second.

        Raises:
            KeyboardInterrupt: the process was asked to stop, and the workers have saved their state and ended.
        """
        sharing = shared_gpus(self.gpus, self.workers)
        with handled(self._ask_to_stop), not_waited_for(), sharing as self._environment:
            try:
                while not self.stopping:
                    self._fill()
                    if not (self.waiting or self.active or self.elsewhere):
                        break
                    self._wait()
                    self._collect()
                    tick()
            finally:
                self.stop()
                tick()
        if self.stopping:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Ask every worker to save and end; kill those that do not within STOP_SECONDS."""
        for process in self.active.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for folder, process in self.active.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
                self._settle(folder, process, give_up=False)
        self.active.clear()

    def _ask_to_stop(self, signum: int, frame: FrameType | None) -> None:
        """Only note the signal, so that nothing is interrupted half-way."""
        self.stopping = True

    def _fill(self) -> None:
        while self._in_use() < self.workers and not self.stopping:
            folder = self._next()
            if folder is None:
                return
            try:
                self.active[folder] = start(folder, self._environment | self._own_gpu(folder))
            except (MoeSweepsError, OSError) as error:
                _record_no_start(folder, error)

    def _next(self) -> RunDir | None:
        while (folder := self._first_that_can_begin()) is not None:
            self.waiting.remove(folder)
            if _is_missing(folder, retry_failed=True):  # not cancelled or finished elsewhere while it waited
                return folder
        return self.feed([*self.active, *self.elsewhere]) if self.feed else None

    def _first_that_can_begin(self) -> RunDir | None:
        """The first waiting run whose trunk, if it has one, is not waiting or trained itself."""
        not_yet = {folder.run_id for folder in (*self.waiting, *self.active, *self.elsewhere)}
        return next((folder for folder in self.waiting if self._trunk_of(folder) not in not_yet), None)

    def _trunk_of(self, folder: RunDir) -> str | None:
        if folder not in self._trunks:
            try:
                self._trunks[folder] = folder.trunk_id()
            except RunFolderError:  # its worker says why
                self._trunks[folder] = None
        return self._trunks[folder]

    def _own_gpu(self, folder: RunDir) -> dict[str, str]:
        gpu = self._places[folder] = least_used(self.gpus, (self._places.get(run) for run in self.active))
        return {} if gpu is None else {VISIBLE: gpu}

    def _in_use(self) -> int:
        """Workers on this machine that train runs of this sweep, also those that a killed driver left behind."""
        return len(self.active) + sum(map(_is_here, self.elsewhere))

    def _wait(self) -> None:
        """Until a worker ends or the poll interval is over."""
        deadline = time.monotonic() + POLL_SECONDS
        while time.monotonic() < deadline and not self.stopping:
            if any(process.exitcode is not None for process in self.active.values()):
                return
            time.sleep(POLL_SECONDS / 10)

    def _collect(self) -> None:
        for folder, process in list(self.active.items()):
            if process.exitcode is None:
                continue
            process.join()
            del self.active[folder]
            if process.exitcode and not self._settle(folder, process):
                self.waiting.insert(0, folder)
        for folder in list(self.elsewhere):
            if not _is_held(folder):
                # Its worker is gone. If the run is not finished, we train it.
                self.elsewhere.remove(folder)
                if _is_missing(folder, retry_failed=False):
                    self.waiting.append(folder)

    def _settle(self, folder: RunDir, process: Worker, give_up: bool = True) -> bool:
        """Handle a worker that ended with an error; returns False when its run is to be resumed."""
        try:
            if process.exitcode == BUSY:
                raise RunBusyError("another worker trains it")
            return record_death(folder, process, give_up)
        except RunBusyError:
            self.elsewhere.append(folder)
        except (MoeSweepsError, OSError) as error:
            log.error("%s: its worker ended, which could not be recorded: %s", folder.path.name, error)
        return True


def record_death(folder: RunDir, process: Worker, give_up: bool = True) -> bool:
    """Record in the run's status that its worker died without doing so itself (SIGKILL, out of memory, no start).

    Returns whether the run is over for now. A run whose worker was killed is resumed, unless with `give_up` it has died
    `launch.max_attempts_without_progress` times in a row without a new checkpoint.

    Raises:
        RunBusyError: another worker trains the run.
    """
    with folder.lock():
        status = folder.status()
        if not _died_unrecorded(status, process):
            return True
        status.count_death(folder.checkpoint_step())
        code, limit = process.exitcode or 0, folder.settings("launch").get("max_attempts_without_progress", 3)
        killed = code < 0 or code == UNKNOWN
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        message = f"the worker process ended by {cause} without a traceback; see {folder.log}"
        kind, signature = "WorkerDied", f"died: {cause}"
        out = (
            out_of_memory(status.host, status.oom_kills)
            if code == -signal.SIGKILL and status.state is State.running
            else None
        )
        if out is not None:
            kind, signature, message = "OutOfMemory", OUT_OF_MEMORY, out
        if status.deaths > 1:
            message += f" ({status.deaths} attempts in a row reached no new checkpoint)"
        status.state = State.failed if not killed or (give_up and status.deaths >= limit) else State.preempted
        status.failure = Failure(kind, message, signature)
        folder.write_status(status)
        return status.state is State.failed


def _died_unrecorded(status: Status, process: Worker) -> bool:
    """Whether the status does not tell how the worker ended, and no other worker has resumed the run since."""
    if status.state is State.running:
        return status.pid == process.pid
    never_began = status.state is State.planned or (status.state is State.preempted and status.failure is not None)
    return never_began and bool(process.exitcode)


def _record_no_start(folder: RunDir, error: Exception) -> None:
    try:
        with folder.lock():
            status = folder.status()
            status.state, status.failure = State.failed, folder.record_failure(error)
            folder.write_status(status)
    except (MoeSweepsError, OSError) as second:
        log.error("%s: %s (%s)", folder.path.name, error, second)


def _is_missing(run: RunDir, retry_failed: bool) -> bool:
    """Whether the run is to be trained. A folder that is gone or cannot be read is reported and left out."""
    try:
        state = run.status().state
    except RunFolderError as error:
        log.error("%s is left out: %s", run.path.name, error)
        return False
    return state not in SETTLED and (retry_failed or state is not State.failed)


def _is_here(run: RunDir) -> bool:
    with suppress(RunFolderError):
        return run.status().host == socket.gethostname()
    return False


def _is_held(run: RunDir) -> bool:
    """Whether a worker trains the run; False where its folder is gone."""
    with suppress(OSError):
        return run.is_locked()
    return False
