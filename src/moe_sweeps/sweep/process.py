"""Worker processes: how one is started, and what it does.

A worker is forked from a server that has imported torch once, so that a run starts without importing it again. A run
that has a snapshot of the sources gets a fresh interpreter that imports from there:
`python -m moe_sweeps.sweep.process FOLDER`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Protocol

from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.errors import RunBusyError
from moe_sweeps.freeze import snapshot_of
from moe_sweeps.rundir import RunDir
from moe_sweeps.snapshot import environment

FAILED = 1
BUSY = 75  # exit code of a worker that found its run in other hands


class Worker(Protocol):
    """A process that trains one run. `exitcode` is None while it lives, and minus the signal that ended it."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class SnapshotWorker:
    """A worker in an interpreter of its own, which imports the sources as they were at submission."""

    def __init__(self, folder: RunDir, snapshot: Path) -> None:
        command = [sys.executable, "-m", "moe_sweeps.sweep.process", str(folder.path)]
        # A session of its own: Ctrl-C in the terminal is this process's business, which asks its workers to save.
        with folder.log.open("a") as log:
            self._process = subprocess.Popen(
                command, env=environment(snapshot), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return


def start(folder: RunDir) -> Worker:
    """A new process that trains the run of `folder`, from its snapshot if it has one."""
    snapshot = snapshot_of(folder)
    if snapshot is not None:
        return SnapshotWorker(folder, snapshot)
    process = _forkserver().Process(target=work, args=(folder,), name=folder.path.name)
    process.start()
    return process


def work(folder: RunDir, ranks: Ranks = ALONE) -> None:
    """The body of a worker process: train one run, alone or with fellow `ranks`; the first one's output is its log."""
    if ranks.is_first:
        with folder.log.open("a", buffering=1) as file:
            os.dup2(file.fileno(), sys.stdout.fileno())
            os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    from moe_sweeps.worker import run_worker

    try:
        with ranks.joined() as joined:
            run_worker(folder, ranks=joined)
    except RunBusyError as error:
        logging.info("%s", error)
        os._exit(BUSY)
    except Exception:
        logging.exception("the run failed")
        sys.exit(FAILED)


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


if __name__ == "__main__":
    work(RunDir(Path(sys.argv[1])))
