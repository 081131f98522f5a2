"""One attempt at a run: what a worker records when it starts, about the attempt before and about its own."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

import torch

from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.engines.build import engine_record
from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.files import make_folder
from moe_sweeps.host.hardware import describe_machine
from moe_sweeps.host.machine_memory import oom_kills, out_of_memory
from moe_sweeps.records.code_record import CodeRecord, changed_files, is_other, name_files
from moe_sweeps.records.rundir import RunDir, State, Status
from moe_sweeps.records.status import own_slurm_job, slurm_restarts

log = logging.getLogger(__name__)


def begin_attempt(folder: RunDir, status: Status, ranks: Ranks) -> None:
    """Fill in `status` for a new attempt. The first process holds the lock, so a worker still "running" is dead."""
    if ranks.is_first:
        folder.remove_leftovers()
        make_folder(folder.checkpoints)  # a rebuilt run folder has none
    if status.state is State.running:
        _note_death(folder, status)
    status.state, status.failure = State.running, None
    status.paused_at = status.tracking = status.rebuilt = None
    status.attempt += 1
    status.started, status.started_step = time.time(), folder.checkpoint_step()
    status.oom_kills = oom_kills()
    status.step = status.started_step
    status.host, status.pid = socket.gethostname(), os.getpid()
    status.slurm_job_id, status.slurm_restarts = own_slurm_job(os.environ), slurm_restarts(os.environ)


def _note_death(folder: RunDir, status: Status) -> None:
    """The last attempt recorded no end. Where SLURM requeued the job without giving it time to, that is no failure."""
    job = own_slurm_job(os.environ)
    if job is not None and job == status.slurm_job_id and slurm_restarts(os.environ) > status.slurm_restarts:
        log.warning("SLURM stopped job %s at about step %d and requeued it", job, status.step)
        return
    cause = out_of_memory(status.host, status.oom_kills) or "died without an error message"
    log.warning("process %s on %s, at about step %d: %s", status.pid, status.host, status.step, cause)
    status.count_death(folder.checkpoint_step())


def record_attempt(folder: RunDir, run: RunConfig, device: torch.device, fingerprint: str, processes: int) -> bool:
    """Add machine, code and data to the attempts in provenance.json. Returns whether the code changed since submission.

    `fingerprint`: of the data. Tables read these versions, and mark a run that was trained with several of them.
    """
    before, now = folder.provenance(), code_version(run)
    then = CodeRecord(before["source_hash"], before.get("sources"))
    changed = is_other(then, now)
    if changed:
        files = name_files(changed_files(then, now))
        log.warning(
            "the training code changed since submission: %s then, %s now (%s)", then.version, now.version, files
        )
    attempt = describe_machine(device) | {"source_hash": now.version, "data_fingerprint": fingerprint}
    attempt |= _sources(then, now) | engine_record(run, device) | {"processes": processes}
    attempt["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    folder.update_provenance(attempts=[*before.get("attempts", []), attempt])
    return changed


def _sources(then: CodeRecord, now: CodeRecord) -> dict[str, Any]:
    """The hashes of the files, where they are not those of the submission."""
    return {"sources": now.files} if now.version != then.version else {}
