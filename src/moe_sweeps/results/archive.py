"""An archive of runs that are over: their records without checkpoints, small enough to be committed.

It has the layout of a runs folder, so everything that reads runs reads it, and a sweep that is typed again with
MOE_SWEEPS_RUNS at a copy of it trains only what is missing.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.errors import RunFolderError
from moe_sweeps.files import write_atomic
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.rundir import FINISHED, RunDir

# Settings and identity, where it came from, how it ended. The routing log is ten times as large as all of these.
RECORDS = (
    *("config.yaml", "overrides.yaml", "identity.json", "provenance.json", "status.json"),
    *("metrics.jsonl", "summary.json"),
)


@dataclass(slots=True)
class Archived:
    """Runs by what became of them: copied now, there before, and left out because they are not over."""

    copied: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def archive(runs: Sequence[RunDir], manifests: Sequence[Manifest], source: Path, destination: Path) -> Archived:
    """Copy the records of those of `runs` that are done or diverged, and the manifests, from `source`.

    Each run appears complete or not at all. Manifests of runs that are still to come are copied, too: a table shows
    what is missing.

    Raises:
        RunFolderError: the archive has a run of this id with another result.
    """
    destination.mkdir(parents=True, exist_ok=True)
    found = Archived()
    for run in runs:
        if run.status().state not in FINISHED:
            found.left_out.append(run.path.name)
        elif _add(run, destination):
            found.copied.append(run.path.name)
        else:
            found.kept.append(run.path.name)
    for manifest in manifests:
        part = Path("sweeps") / manifest.sweep_id / "manifest.json"
        (destination / part).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(destination / part, (source / part).read_bytes())
    return found


def _add(run: RunDir, destination: Path) -> bool:
    """Copy one run; False if it is there already."""
    there = RunDir.find(destination, run.run_id)
    if there is not None:
        if there.summary() != run.summary():
            raise RunFolderError(f"{there.path} holds another result of run {run.run_id}. Move it away.")
        return False
    draft = destination / f".{run.run_id}.{uuid.uuid4().hex[:8]}-draft"
    draft.mkdir()
    try:
        for name in RECORDS:
            if (run.path / name).exists():
                shutil.copyfile(run.path / name, draft / name)
        draft.rename(destination / run.path.name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return True
