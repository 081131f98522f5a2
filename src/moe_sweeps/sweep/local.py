"""Runs of a sweep on this machine: one process a run, a few at a time, each isolated from the others' crashes.

Workers are forked from a server that has imported torch once, so that a run starts in milliseconds instead of seconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from moe_sweeps.errors import RunBusyError
from moe_sweeps.rundir import Failure, RunDir, State

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0
BUSY = 75  # exit code of a worker that found its run in other hands


@dataclass(slots=True)
class LocalSweep:
    """The runs that are waiting, training and over. `run()` drives them to the end."""

    waiting: list[RunDir]
    workers: int
    active: dict[RunDir, BaseProcess] = field(default_factory=dict)
    elsewhere: list[RunDir] = field(default_factory=list)

    def run(self, tick: Callable[[], None]) -> None:
        """Train everything; `tick` is called about twice a second.

        Raises:
            KeyboardInterrupt: after the workers saved their state and ended.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["moe_sweeps.worker"])
        try:
            while self.waiting or self.active or self.elsewhere:
                self._fill(context)
                wait([p.sentinel for p in self.active.values()], timeout=POLL_SECONDS)
                self._collect()
                tick()
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask every worker to save and end; end those that do not."""
        for process in self.active.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.active.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _fill(self, context: multiprocessing.context.ForkServerContext) -> None:
        while self.waiting and len(self.active) < self.workers:
            folder = self.waiting.pop(0)
            process = context.Process(target=work, args=(folder,), name=folder.path.name)
            process.start()
            self.active[folder] = process

    def _collect(self) -> None:
        for folder, process in list(self.active.items()):
            if process.exitcode is None:
                continue
            del self.active[folder]
            if process.exitcode == BUSY:
                self.elsewhere.append(folder)
            else:
                record_death(folder, process.exitcode)
        for folder in list(self.elsewhere):
            if not folder.is_locked():
                # Its other worker is gone: finished, or not, which a worker of ours finds out.
                self.elsewhere.remove(folder)
                self.waiting.append(folder)


def work(folder: RunDir) -> None:
    """The body of a worker process: train one run with all output going to its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    with folder.log.open("a", buffering=1) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    from moe_sweeps.worker import run_worker

    try:
        run_worker(folder)
    except RunBusyError as error:
        logging.info("%s", error)
        os._exit(BUSY)
    except Exception:
        logging.exception("the run failed")
        sys.exit(1)


def record_death(folder: RunDir, exitcode: int) -> None:
    """Make a worker that ended without a word (SIGKILL, out of memory) visible in its status."""
    status = folder.status()
    if status.state is not State.running:
        return
    cause = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    status.state = State.failed
    status.failure = Failure("WorkerDied", f"the worker process ended by {cause} without a traceback", f"died: {cause}")
    folder.write_status(status)


def unfinished(folders: Iterable[RunDir]) -> list[RunDir]:
    """Folders whose run did not end with a result."""
    return [f for f in folders if f.status().state not in (State.done, State.diverged)]
