"""Freeze at submission: a run becomes a folder whose config no later edit can change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from moe_sweeps.config.compose import to_dict
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.hardware import available_cores
from moe_sweeps.identity import identity
from moe_sweeps.paths import resolve
from moe_sweeps.provenance import provenance
from moe_sweeps.rundir import RunDir


def freeze(run: RunConfig, overrides: Sequence[str], *, command: str, workers: int = 1) -> RunDir:
    """The folder of `run`: made now, or the one that exists, whose frozen config then counts.

    `workers` processes share the cores, so the number of threads is decided and frozen here: a resumed run then
    computes with the same threads, and so the same numbers, on whatever machine it goes on.
    """
    threads = run.launch.threads or max(1, available_cores() // workers)
    frozen = dataclasses.replace(run, launch=dataclasses.replace(run.launch, threads=threads))
    return RunDir.create(
        resolve(run.paths.runs),
        run.run_name,
        identity(run)["run_id"],
        config=to_dict(frozen),
        overrides=list(overrides),
        identity=identity(run),
        provenance=provenance(command),
        total_steps=run.trainer.steps,
    )
