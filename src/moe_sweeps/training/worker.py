"""One worker trains one run: it takes the lock, reads the frozen config, trains, and records how it ended.

Every ending is a state in status.json: done, diverged, preempted, cancelled, failed. Several processes may be one
worker (distributed/ranks.py). The first of them holds the lock and writes. One that fails records the failure in the
run folder itself, because the others then see only that their connection to it broke.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch

from moe_sweeps.data.account import sentences
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared
from moe_sweeps.distributed.ranks import ALONE, Ranks, lost_a_peer
from moe_sweeps.errors import Diverged, Interrupted, Paused, RunBusyError
from moe_sweeps.experiment.code_version import own_sources
from moe_sweeps.experiment.frozen_run import frozen_run
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import resolve_device
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.host.machine_memory import out_of_memory
from moe_sweeps.host.output import not_waited_for
from moe_sweeps.host.signals import handled
from moe_sweeps.paths import resolve
from moe_sweeps.records.mirror import start_mirror
from moe_sweeps.records.rundir import PROBE_SECONDS, SETTLED, Failure, RunDir, State, Status
from moe_sweeps.training.attempt import begin_attempt, record_attempt
from moe_sweeps.training.checkpoint import has_intact_checkpoint
from moe_sweeps.training.forking import Trunk, ready_trunk
from moe_sweeps.training.heartbeat import Heartbeat
from moe_sweeps.training.journal import Observer
from moe_sweeps.training.stop_flag import StopFlag
from moe_sweeps.training.too_large import require_device
from moe_sweeps.training.trainer import Trainer

log = logging.getLogger(__name__)
own_sources()  # hash the code that is imported by now: its files may be edited before a run starts


def run_worker(
    folder: RunDir, observer: Observer | None = None, ranks: Ranks = ALONE, *, show_progress: bool = False
) -> State:
    """Train the run of `folder` unless it is finished, and return the state it is in afterwards.

    All processes of `ranks`, joined, call it with the same folder. `show_progress`: of the preparation of data.

    Raises:
        RunBusyError: another worker holds the run.
        Exception: the run failed; the failure is recorded.
    """
    with _held(folder, ranks):
        status = folder.status()
        if status.rebuilt and ranks.is_first:
            log.warning("%s; the rest of the folder is used", status.rebuilt)
        if _is_settled(folder, status, ranks):
            return folder.status().state
        stop = StopFlag()
        with handled(stop.ask), not_waited_for():
            heartbeat = Heartbeat(folder, status, stop, observer, writes=ranks.is_first)
            begin_attempt(folder, status, ranks)
            with _end_recorded(heartbeat, ranks):
                status.state = _train_with_heartbeat(heartbeat, ranks, show_progress)
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


def _is_settled(folder: RunDir, status: Status, ranks: Ranks) -> bool:
    """Whether nothing is left to train: the run has ended, or is cancelled by a request that waited for it."""
    return ranks.any(ranks.is_first and (status.state in SETTLED or folder.settle_cancel_request(status)))


# --- how an attempt ends ----------------------------------------------------------------------------------------------


@contextmanager
def _end_recorded(heartbeat: Heartbeat, ranks: Ranks) -> Iterator[None]:
    """Around an attempt: however it ends, the status says so. Only failures are raised again."""
    status = heartbeat.status
    try:
        yield
    except Paused as error:
        log.info("%s", error)
        status.state, status.paused_at = State.preempted, status.step
    except Interrupted as error:
        log.info("%s", error)
        status.state = State.cancelled if ranks.any(heartbeat.stop.cancelled) else State.preempted
    except KeyboardInterrupt:
        log.info("stopped at once; the run resumes from its last checkpoint")
        status.state = State.preempted
    except BaseException as error:
        _record_failure(heartbeat, error, ranks)
        raise
    finally:
        _write_end(heartbeat, ranks)


def _write_end(heartbeat: Heartbeat, ranks: Ranks) -> None:
    folder, status = heartbeat.folder, heartbeat.status
    if ranks.is_first and status.state is State.preempted and folder.cancel_requested:
        status.state = State.cancelled  # requested after the last heartbeat
    heartbeat.write()
    if ranks.is_first:
        folder.drop_cancel_request()
    heartbeat.end_mirror()


def _record_failure(heartbeat: Heartbeat, error: BaseException, ranks: Ranks) -> None:
    """Keep the traceback, and in the status the failure of the process that failed first: the others follow from it.

    The first process may be gone, or may wait in vain for this one, so this process writes the status, too.
    """
    folder, status = heartbeat.folder, heartbeat.status
    own = folder.record_failure(error, str(ranks) if ranks.size > 1 else "")
    if ranks.size > 1 and ranks.first_failure() is None and lost_a_peer(error):
        # The other process was killed, or its node was lost. Nothing is wrong with the run: it can be resumed.
        cause = out_of_memory(status.host, status.oom_kills) or "gone without an error message"
        log.warning("another process of this run: %s; the run resumes when it is started again", cause)
        status.state = State.preempted
    else:
        ranks.report_failure(json.dumps(asdict(own)))
        first = ranks.first_failure()
        status.state, status.failure = State.failed, Failure(**json.loads(first)) if first else own
    heartbeat.writes = ranks.is_first or _is_still_this_attempt(folder, status)


def _is_still_this_attempt(folder: RunDir, status: Status) -> bool:
    now = folder.status()
    return now.attempt == status.attempt and now.state is State.running


# --- what an attempt does ---------------------------------------------------------------------------------------------


def _train_with_heartbeat(heartbeat: Heartbeat, ranks: Ranks, show_progress: bool) -> State:
    """Train while status.json is kept up to date, the tracker is fed, and disk space for the end is reserved."""
    folder = heartbeat.folder
    folder.require_log()
    heartbeat.mirror = start_mirror(folder) if ranks.is_first else None
    with folder.reserved_space() if ranks.is_first else nullcontext(), heartbeat:
        return _train(heartbeat, ranks, show_progress)


def _train(heartbeat: Heartbeat, ranks: Ranks, show_progress: bool) -> State:
    folder, status = heartbeat.folder, heartbeat.status
    run = frozen_run(folder)
    status.tokens_per_step = run.trainer.tokens_per_step
    device = _device(run, ranks)
    require_device(run, device, ranks.size)
    data = _data(run, show_progress)
    if run.fork.continues and not ranks.any(ranks.is_first and has_intact_checkpoint(folder.checkpoints)):
        _ready_trunk(run, folder, heartbeat.stop, ranks, show_progress)
    status.code_changed = ranks.is_first and record_attempt(folder, run, device, data.fingerprint, ranks.size)
    trainer = Trainer(run, folder, data, device, heartbeat, ranks)
    try:
        summary, state = _summary(trainer, heartbeat.stop)
    finally:
        status.step = trainer.step
    status.collapsed = bool(summary.get("collapsed"))
    if ranks.is_first:
        folder.write_summary(summary)
    return state


def _ready_trunk(run: RunConfig, folder: RunDir, stop: StopFlag, ranks: Ranks, show_progress: bool) -> None:
    """Have what the run continues from: other workers, or this one, train the trunk."""

    def train(trunk: RunDir) -> State:
        return run_worker(trunk, None, ranks, show_progress=show_progress)

    ready_trunk(Trunk.of(run, folder), train, ranks, stop)


def _device(run: RunConfig, ranks: Ranks) -> torch.device:
    """The device of this process, with torch set up for it."""
    torch.set_num_threads(run.launch.threads or 1)
    keep_freed_memory()
    return ranks.own_device(resolve_device(run.engine.device))


def _data(run: RunConfig, show_progress: bool) -> TokenData:
    """The run's data, prepared if they are not yet. What is unusual about them is logged."""
    data = prepared(run.data, resolve(run.paths.data), progress=show_progress)
    for sentence in sentences(data.meta):
        log.info("%s", sentence)
    return data


def _summary(trainer: Trainer, stop: StopFlag) -> tuple[dict[str, Any], State]:
    """The summary of the run, trained to its end or until it diverges."""
    try:
        return trainer.train(stop), State.done
    except Diverged as error:
        log.warning("%s", error)
        return trainer.summary_when_diverged(), State.diverged
