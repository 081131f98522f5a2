"""Freeze at submission: a run becomes a folder whose config no later edit can change."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_sweeps.config.frozen import to_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import RunBusyError
from moe_sweeps.hardware import available_cores
from moe_sweeps.identity import identity
from moe_sweeps.paths import resolve
from moe_sweeps.provenance import provenance
from moe_sweeps.rundir import SETTLED, RunDir, State
from moe_sweeps.snapshot import SNAPSHOTS, take_snapshot

# A model of proxy size has too little work in one operation for many threads to share.
MOST_THREADS = 4


def freeze(run: RunConfig, overrides: Sequence[str], *, command: str, threads: int | None = None) -> RunDir:
    """The folder of `run`, made now or found. Infrastructure of a run that is not finished follows the newest request.

    `threads` (None: those of a process that has the cores for itself) is what the run is trained with, unless
    `launch.threads` is set by hand. It can change the last bit of a sum, so that of the first attempt counts for all
    later ones.
    """
    found = identity(run)
    frozen = _with_threads(run, run.launch.threads or threads or default_threads(1))
    submission = provenance(command) | snapshot_entry(run)
    root = resolve(run.paths.runs)
    is_new = RunDir.find(root, found["run_id"]) is None
    folder = RunDir.create(
        root,
        run.run_name,
        found["run_id"],
        config=to_dict(frozen),
        overrides=list(overrides),
        identity=found,
        provenance=submission,
        total_steps=run.trainer.steps,
    )
    if not is_new:
        _refresh(folder, run, frozen, submission)
    return folder


def snapshot_entry(run: RunConfig) -> dict[str, str | None]:
    """What provenance.json says about the snapshot that workers import: its name, None for the repository itself."""
    return {"snapshot": _snapshot(resolve(run.paths.runs)).name if run.launch.snapshot else None}


@functools.cache
def _snapshot(runs_root: Path) -> Path:
    """One for all runs that this process submits, whatever is edited meanwhile."""
    return take_snapshot(runs_root)


def snapshot_of(folder: RunDir) -> Path | None:
    """The snapshot that the run's workers import, None for the repository itself."""
    name = folder.provenance().get("snapshot")
    return folder.path.parent / SNAPSHOTS / str(name) if name else None


def default_threads(workers: int) -> int:
    """Threads of one of `workers` processes: its share of the cores, up to what models of proxy size can use."""
    return max(1, min(MOST_THREADS, available_cores() // workers))


def _refresh(folder: RunDir, run: RunConfig, frozen: RunConfig, submission: dict[str, Any]) -> None:
    """Write the requested devices, folders and intervals into the config of a run that is neither over nor in use.

    A run that never started is submitted anew, with the code of now. One that failed gets the code of now, too: it may
    have been mended. Any other that has a snapshot goes on with it.
    """
    try:
        with folder.lock():
            status = folder.status()
            if status.state in SETTLED:
                return
            if not status.attempt:
                _update(folder, {k: v for k, v in submission.items() if k != "submitted"})
            elif status.state is State.failed or not folder.provenance().get("snapshot"):
                _update(folder, {"snapshot": submission["snapshot"]})
            if status.attempt and run.launch.threads is None:
                frozen = _with_threads(run, int(folder.config()["launch"]["threads"]))
            wanted = to_dict(frozen)
            if wanted != folder.config():
                folder.write_config(wanted)
    except RunBusyError:
        return


def _update(folder: RunDir, changes: dict[str, Any]) -> None:
    before = folder.provenance()
    if before | changes != before:
        folder.update_provenance(**changes)


def _with_threads(run: RunConfig, threads: int) -> RunConfig:
    return dataclasses.replace(run, launch=dataclasses.replace(run.launch, threads=threads))
