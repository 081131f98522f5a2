"""Runs of a sweep on this machine: one process a run, a few at a time, each isolated from the others' crashes.

Workers are forked from a server that has imported torch once, so that a run starts without importing it again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from types import FrameType

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
    stopping: bool = False

    def run(self, tick: Callable[[], None]) -> None:
        """Train everything; `tick` is called about twice a second.

        Raises:
            KeyboardInterrupt: the process was asked to stop, and the workers have saved their state and ended.
        """
        with self._stop_on_signals():
            try:
                context = _forkserver()
                while (self.waiting or self.active or self.elsewhere) and not self.stopping:
                    self._fill(context)
                    wait([p.sentinel for p in self.active.values()], timeout=POLL_SECONDS)
                    self._collect()
                    tick()
            finally:
                self.stop()
                tick()
        if self.stopping:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Ask every worker that still trains to save and end; end those that do not."""
        for process in self.active.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for folder, process in self.active.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
                record_death(folder, process, State.preempted)
        self.active.clear()

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Note SIGINT, SIGTERM and SIGHUP instead of being interrupted anywhere."""

        def ask(signum: int, frame: FrameType | None) -> None:
            self.stopping = True

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _fill(self, context: ForkServerContext) -> None:
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
            elif process.exitcode:
                record_death(folder, process, State.failed)
        for folder in list(self.elsewhere):
            if not folder.is_locked():
                # Its other worker is gone: finished, or not, which a worker of ours finds out.
                self.elsewhere.remove(folder)
                self.waiting.append(folder)


def _forkserver() -> ForkServerContext:
    """The server that workers are forked from. It and they ignore Ctrl-C, which a terminal sends to all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moe_sweeps.worker", "moe_sweeps.cli.train"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context


def work(folder: RunDir) -> None:
    """The body of a worker process: train one run with all output going to its log."""
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


def record_death(folder: RunDir, process: BaseProcess, state: State) -> None:
    """Make a worker that ended without a word (SIGKILL, out of memory, no start at all) visible in its run's status."""
    try:
        with folder.lock():
            status = folder.status()
            its_own = status.state is State.running and status.pid == process.pid
            if not its_own and status.state is not State.planned:
                return  # it said itself how it ended, or another worker went on
            code = process.exitcode or 0
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            message = f"the worker process ended by {cause} without a traceback; see {folder.log}"
            status.state, status.failure = state, Failure("WorkerDied", message, f"died: {cause}")
            folder.write_status(status)
    except RunBusyError:
        return
