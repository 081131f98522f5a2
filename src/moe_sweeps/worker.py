"""One worker trains one run: it takes the lock, reads the frozen config, trains, and records how it ended.

Everything that can happen to a run ends in status.json: done, diverged, preempted, failed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from moe_sweeps.config.compose import from_dict
from moe_sweeps.data.prepare import prepared
from moe_sweeps.errors import Diverged, Interrupted
from moe_sweeps.hardware import describe_machine, keep_freed_memory, resolve_device
from moe_sweeps.journal import Observer
from moe_sweeps.paths import resolve
from moe_sweeps.provenance import source_hash
from moe_sweeps.rundir import FINISHED, RunDir, State, Status
from moe_sweeps.trainer import Trainer

log = logging.getLogger(__name__)
STATUS_SECONDS = 2.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StatusObserver:
    """Keeps status.json fresh, and passes everything on to another observer."""

    def __init__(self, folder: RunDir, status: Status, then: Observer | None = None) -> None:
        self.folder, self.status, self.then = folder, status, then
        self._written = 0.0

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        self.status.tokens_per_second = round(tokens_per_second, 1)
        self.status.loss, self.status.maxvio = values.get("loss"), values.get("maxvio_batch")
        self.status.collapsed = bool(values.get("collapsed"))
        self.alive(step)
        if self.then:
            self.then.logged(step, values, tokens_per_second)

    def alive(self, step: int) -> None:
        self.status.step = step
        if time.monotonic() - self._written > STATUS_SECONDS:
            self.folder.write_status(self.status)
            self._written = time.monotonic()


def run_worker(folder: RunDir, observer: Observer | None = None) -> State:
    """Train the run of `folder` unless it is finished, and return the state it is in afterwards.

    Raises:
        RunBusyError: another worker holds the run.
        Exception: what made the run fail, after it was recorded.
    """
    with folder.lock():
        status = folder.status()
        if status.state in FINISHED:
            return status.state
        with _stop_on_signals() as should_stop:
            _begin_attempt(status)
            folder.write_status(status)
            try:
                status.state = _train(folder, StatusObserver(folder, status, observer), should_stop)
            except Interrupted as error:
                log.info("%s", error)
                status.state = State.preempted
            except KeyboardInterrupt:
                log.info("stopped at once; the run goes on from its last checkpoint")
                status.state = State.preempted
            except BaseException as error:
                status.state, status.failure = State.failed, folder.record_failure(error)
                raise
            finally:
                folder.write_status(status)
    return status.state


def _train(folder: RunDir, observer: StatusObserver, should_stop: StopFlag) -> State:
    run = from_dict(folder.config())
    observer.status.tokens_per_step = run.trainer.tokens_per_step
    torch.set_num_threads(run.launch.threads or 1)
    keep_freed_memory()
    device = resolve_device(run.engine.device)
    data = prepared(run.data, resolve(run.paths.data), progress=observer.then is not None)
    _record_attempt(folder, device, data.fingerprint)
    trainer = Trainer(run, folder, data, device, observer)
    try:
        summary, state = trainer.train(should_stop), State.done
    except Diverged as error:
        log.warning("%s", error)
        summary, state = trainer.summary_when_diverged(), State.diverged
    finally:
        observer.status.step = trainer.step
    observer.status.collapsed = bool(summary.get("collapsed"))
    folder.write_summary(summary)
    return state


def _begin_attempt(status: Status) -> None:
    status.state, status.failure = State.running, None
    status.attempt += 1
    status.host, status.pid = socket.gethostname(), os.getpid()
    status.slurm_job_id = os.environ.get("SLURM_JOB_ID")


def _record_attempt(folder: RunDir, device: torch.device, data_fingerprint: str) -> None:
    """Add this machine, code and data to provenance.json; warn when the code is not what was submitted.

    Tables read the versions from the attempts, so a run that went on with other code or data is marked in them.
    """
    before = folder.provenance()
    if before["source_hash"] != source_hash():
        log.warning("the training code changed since submission: %s then, %s now", before["source_hash"], source_hash())
    attempt = describe_machine(device) | {"source_hash": source_hash(), "data_fingerprint": data_fingerprint}
    attempt["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    folder.update_provenance(attempts=[*before.get("attempts", []), attempt])


class StopFlag:
    """False until the process was asked to stop. A second Ctrl-C stops at once, without saving."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def ask(self, signum: int, frame: FrameType | None) -> None:
        if self._asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        log.info("stopping after this step; its state will be saved (Ctrl-C again: stop at once)")


@contextmanager
def _stop_on_signals() -> Iterator[StopFlag]:
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    # What the parent made this process ignore stays ignored: the parent decides what it means.
    heeded = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, flag.ask) for s in heeded}
    try:
        yield flag
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
