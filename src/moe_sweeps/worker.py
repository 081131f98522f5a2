"""One worker trains one run: it takes the lock, reads the frozen config, trains, and records how it ended.

Everything that can happen to a run ends in status.json: done, diverged, preempted, cancelled, failed. Several processes
may be one worker (distributed.py). The first of them holds the lock and writes; one that fails says so in the run
folder itself, because the others then know nothing but that it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from types import FrameType

import torch

from moe_sweeps.config.frozen import from_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.prepare import prepared
from moe_sweeps.distributed import ALONE, Ranks, lost_a_peer
from moe_sweeps.engines.build import engine_record
from moe_sweeps.errors import DiskFull, Diverged, Interrupted, Paused, RunBusyError
from moe_sweeps.hardware import describe_machine, keep_freed_memory, resolve_device
from moe_sweeps.journal import Observer
from moe_sweeps.mirroring import Mirror, start_mirror
from moe_sweeps.paths import resolve
from moe_sweeps.provenance import source_hash
from moe_sweeps.rundir import PROBE_SECONDS, SETTLED, Failure, RunDir, State, Status
from moe_sweeps.trainer import Trainer

log = logging.getLogger(__name__)
# Of the code that is imported by now, not of what the files say once a run starts: they may be edited in between.
SOURCE_HASH = source_hash()
STATUS_SECONDS = 1.0
# SLURM announces a time limit or a preemption with SIGTERM, SIGUSR1 or SIGUSR2, as the cluster likes.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class StatusObserver:
    """Keeps status.json fresh where it `writes`, and passes everything on to another observer.

    A thread writes the heartbeat, so that a long step, an evaluation or the preparation of data does not look like a
    death, and sees requests to cancel the run and what its `mirror` has to say.
    """

    mirror: Mirror | None = None

    def __init__(
        self, folder: RunDir, status: Status, stop: StopFlag, then: Observer | None = None, writes: bool = True
    ) -> None:
        self.folder, self.status, self.stop, self.then, self.writes = folder, status, stop, then, writes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_over, name="heartbeat", daemon=True)

    def __enter__(self) -> StatusObserver:
        self.write()
        if self.writes:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self.writes:
            self._thread.join()

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        self.status.tokens_per_second = round(tokens_per_second, 1)
        self.status.loss, self.status.maxvio = values.get("loss"), values.get("maxvio_batch")
        self.status.collapsed = bool(values.get("collapsed"))
        self.alive(step)
        if self.then:
            self.then.logged(step, values, tokens_per_second)

    def alive(self, step: int) -> None:
        self.status.step = step

    def write(self) -> None:
        """Write status.json now, in the process that does so."""
        if self.writes:
            self.folder.write_status(self.status)

    def hear_of_tracker(self, problem: str | None) -> None:
        """Note what is wrong with the run's tracker, None for nothing. Training goes on whatever it is."""
        if problem and problem != self.status.tracking:
            log.warning("tracking: %s", problem)
        self.status.tracking = problem

    def _beat_until_over(self) -> None:
        while not self._over.wait(STATUS_SECONDS):
            if self.folder.cancel_requested:
                self.stop.cancel()
            self.hear_of_tracker(self.mirror.problem() if self.mirror else None)
            try:
                self.write()
            except (OSError, DiskFull) as error:  # training goes on; it ends where it cannot save what counts
                log.warning("status.json could not be written: %s", error)


def run_worker(folder: RunDir, observer: Observer | None = None, ranks: Ranks = ALONE) -> State:
    """Train the run of `folder` unless it is finished, and return the state it is in afterwards.

    All processes of `ranks`, joined, call it with the same folder.

    Raises:
        RunBusyError: another worker holds the run.
        Exception: what made the run fail, after it was recorded.
    """
    with _held(folder, ranks):
        status = folder.status()
        if ranks.any(ranks.is_first and (status.state in SETTLED or folder.settle_cancel_request(status))):
            return folder.status().state
        with _stop_on_signals() as stop:
            follower = StatusObserver(folder, status, stop, observer, writes=ranks.is_first)
            _begin_attempt(folder, status, ranks)
            try:
                follower.mirror = start_mirror(folder) if ranks.is_first else None
                with folder.reserved_space() if ranks.is_first else nullcontext(), follower:
                    status.state = _train(folder, follower, stop, ranks)
            except Paused as error:
                log.info("%s", error)
                status.state, status.paused_at = State.preempted, status.step
            except Interrupted as error:
                log.info("%s", error)
                status.state = State.cancelled if ranks.any(stop.cancelled) else State.preempted
            except KeyboardInterrupt:
                log.info("stopped at once; the run goes on from its last checkpoint")
                status.state = State.preempted
            except BaseException as error:
                _record_failure(follower, error, ranks)
                raise
            finally:
                if ranks.is_first and status.state is State.preempted and folder.cancel_requested:
                    status.state = State.cancelled  # asked for after the last heartbeat had looked
                follower.write()
                if ranks.is_first:
                    folder.drop_cancel_request()
                _end_mirror(follower)
    return status.state


@contextmanager
def _held(folder: RunDir, ranks: Ranks) -> Iterator[None]:
    """The first process holds the run's lock for all."""
    with ExitStack() as stack:
        busy: RunBusyError | None = None
        try:
            if ranks.is_first:
                stack.enter_context(folder.lock(wait=PROBE_SECONDS))
        except RunBusyError as error:
            busy = error
        if ranks.any(busy is not None):
            raise busy or RunBusyError(f"{folder.path.name} is being trained by another worker")
        yield


def _record_failure(follower: StatusObserver, error: BaseException, ranks: Ranks) -> None:
    """Keep the traceback, and in the status the failure of the process that failed first: the others follow from it.

    The first process may be gone, or wait in vain for this one, so this one writes the status, too.
    """
    folder, status = follower.folder, follower.status
    own = folder.record_failure(error, str(ranks) if ranks.size > 1 else "")
    if ranks.size > 1 and ranks.told_failure() is None and lost_a_peer(error):
        # Killed, or its node lost: nothing is wrong with the run, which goes on from its last checkpoint.
        log.warning("another process of this run is gone without a word; it goes on when it is started again")
        status.state, follower.writes = State.preempted, ranks.is_first or _is_still_this_attempt(folder, status)
        return
    ranks.tell_failure(json.dumps(asdict(own)))
    told = ranks.told_failure()
    status.state, status.failure = State.failed, Failure(**json.loads(told)) if told else own
    follower.writes = ranks.is_first or _is_still_this_attempt(folder, status)


def _end_mirror(follower: StatusObserver) -> None:
    """Tell the tracker how the run ended; it has a few seconds to take the rest. Nothing of the run depends on it."""
    if follower.mirror:
        follower.hear_of_tracker(follower.mirror.end(follower.status.state))
        follower.folder.write_status(follower.status, beat=False)


def _is_still_this_attempt(folder: RunDir, status: Status) -> bool:
    now = folder.status()
    return now.attempt == status.attempt and now.state is State.running


def _train(folder: RunDir, observer: StatusObserver, should_stop: StopFlag, ranks: Ranks) -> State:
    run = from_dict(folder.config())
    observer.status.tokens_per_step = run.trainer.tokens_per_step
    torch.set_num_threads(run.launch.threads or 1)
    keep_freed_memory()
    device = ranks.own_device(resolve_device(run.engine.device))
    data = prepared(run.data, resolve(run.paths.data), progress=observer.then is not None)
    observer.status.code_changed = ranks.is_first and _record_attempt(folder, run, device, data.fingerprint, ranks.size)
    trainer = Trainer(run, folder, data, device, observer, ranks)
    try:
        summary, state = trainer.train(should_stop), State.done
    except Diverged as error:
        log.warning("%s", error)
        summary, state = trainer.summary_when_diverged(), State.diverged
    finally:
        observer.status.step = trainer.step
    observer.status.collapsed = bool(summary.get("collapsed"))
    if ranks.is_first:
        folder.write_summary(summary)
    return state


def _begin_attempt(folder: RunDir, status: Status, ranks: Ranks) -> None:
    """The first process holds the lock: whoever wrote "running" is dead."""
    if ranks.is_first:
        folder.remove_leftovers()
    if status.state is State.running:
        log.warning("process %s on %s died without a word at about step %d", status.pid, status.host, status.step)
        status.count_death(folder.checkpoint_step())
    status.state, status.failure = State.running, None
    status.paused_at = status.tracking = None
    status.attempt += 1
    status.started, status.started_step = time.time(), folder.checkpoint_step()
    status.step = status.started_step
    status.host, status.pid = socket.gethostname(), os.getpid()
    status.slurm_job_id = _slurm_job(os.environ)


def _slurm_job(environ: Mapping[str, str]) -> str | None:
    """The job as squeue names it: 123_4 for a task of an array."""
    if "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def _record_attempt(
    folder: RunDir, run: RunConfig, device: torch.device, data_fingerprint: str, processes: int
) -> bool:
    """Add this machine, code and data to provenance.json; returns whether the code is not what was submitted.

    Tables read the versions from the attempts, so a run that went on with other code or data is marked in them.
    """
    before = folder.provenance()
    changed = bool(before["source_hash"] != SOURCE_HASH)
    if changed:
        log.warning("the training code changed since submission: %s then, %s now", before["source_hash"], SOURCE_HASH)
    attempt = describe_machine(device) | {"source_hash": SOURCE_HASH, "data_fingerprint": data_fingerprint}
    attempt |= engine_record(run, device) | {"processes": processes}
    attempt["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    folder.update_provenance(attempts=[*before.get("attempts", []), attempt])
    return changed


class StopFlag:
    """False until the process was asked to stop. A second Ctrl-C stops at once, without saving."""

    def __init__(self) -> None:
        self._asked = False
        self.cancelled = False

    def __call__(self) -> bool:
        return self._asked

    def cancel(self) -> None:
        """Stop because somebody cancelled the run; it is not gone on with by itself."""
        self._asked = self.cancelled = True

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
