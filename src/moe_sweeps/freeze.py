"""Freeze at submission: a run becomes a folder whose config no later edit can change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moe_sweeps.config.compose import to_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import RunBusyError
from moe_sweeps.hardware import available_cores
from moe_sweeps.identity import identity
from moe_sweeps.paths import resolve
from moe_sweeps.provenance import provenance
from moe_sweeps.rundir import FINISHED, RunDir

# A model of proxy size has too little work in one operation for many threads to share.
MOST_THREADS = 4


def freeze(run: RunConfig, overrides: Sequence[str], *, command: str, workers: int = 1) -> RunDir:
    """The folder of `run`, made now or found. Infrastructure of a run that is not finished follows the newest request.

    `workers` processes share the cores. The number of threads can change the last bit of a sum, so that of the first
    attempt counts for all later ones, unless `launch.threads` is set by hand.
    """
    found = identity(run)
    frozen = _with_threads(run, run.launch.threads or default_threads(workers))
    folder = RunDir.create(
        resolve(run.paths.runs),
        run.run_name,
        found["run_id"],
        config=to_dict(frozen),
        overrides=list(overrides),
        identity=found,
        provenance=provenance(command),
        total_steps=run.trainer.steps,
    )
    _refresh_infrastructure(folder, run, frozen)
    return folder


def default_threads(workers: int) -> int:
    """Threads of one of `workers` processes: its share of the cores, up to what models of proxy size can use."""
    return max(1, min(MOST_THREADS, available_cores() // workers))


def _refresh_infrastructure(folder: RunDir, run: RunConfig, frozen: RunConfig) -> None:
    """Write the requested devices, folders and intervals into the config of a run that is neither over nor in use."""
    try:
        with folder.lock():
            status = folder.status()
            if status.state in FINISHED:
                return
            if status.attempt and run.launch.threads is None:
                frozen = _with_threads(run, int(folder.config()["launch"]["threads"]))
            if to_dict(frozen) != folder.config():
                folder.write_config(to_dict(frozen))
    except RunBusyError:
        return


def _with_threads(run: RunConfig, threads: int) -> RunConfig:
    return dataclasses.replace(run, launch=dataclasses.replace(run.launch, threads=threads))
